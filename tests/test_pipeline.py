"""The six scripts, one after the other, as a user runs them: studio people through a cloud drive, and real frames."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import webdataset

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.studio.human36m import write_human36m
from tests.conftest import S3Remote

PROJECT = Path(__file__).parents[1]
STUDIO_NETWORKS = ("--yolo-model", "studio", "--depth-model", "studio")
TINY = ("--model-size", "tiny", "--accumulate", "1", "--num-workers", "0", "--device", "cpu", "--batch-size")
PICTURES = ("original.jpg", "2d_overlay.jpg", "depth.png", "3d_pose.png", "combined_viz.png")


@dataclass(frozen=True)
class Workplace:
    """A folder where scripts run, and the environment that reaches the cloud drive."""

    folder: Path
    env: dict[str, str]

    def run(self, script: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
        """A script as a subprocess; its exit code must be `code`."""
        done = subprocess.run(
            [sys.executable, str(PROJECT / script), *map(str, arguments)],
            cwd=self.folder, env=os.environ | self.env, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == code, f"{script} {arguments}\n{done.stdout}\n{done.stderr}"
        return done

    def report(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text())


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Path:
    """Two actions of S1, S5 and S9: 24 frames of each subject."""
    out = tmp_path_factory.mktemp("studio")
    write_human36m(out, subjects=("S1", "S5", "S9"), actions=(2, 6), subactions=(1,), frames_per_take=3, seed=3)
    return out


@pytest.fixture
def workplace(tmp_path, s3_remote: S3Remote) -> Workplace:
    return Workplace(tmp_path, {**s3_remote.env, "OMP_NUM_THREADS": "1"})


def corpus_flags(studio: Path, processed: object) -> tuple[object, ...]:
    return (
        "--images-path",
        studio / "images",
        "--annotations-path",
        studio / "annotations",
        "--processed-path",
        processed,
    )


def test_the_whole_road_from_frames_to_people_with_split_and_shuffle_remote_to_remote(studio, workplace, s3_remote):
    run, drive = workplace.run, s3_remote.location
    run("preprocess.py", studio / "images", "processed", *STUDIO_NETWORKS)
    assert workplace.report("processed/preprocess_report.json")["counts"]["frames"] == 72
    run("dataset_chunker.py", "--subjects", "1", "S5", "s9", *corpus_flags(studio, "processed"),
        "--output", f"{drive}/chunks", "--chunk_size", 20, "--image-size", 128, "--window", 3,
        "--max-bad", 0.2)  # fmt: skip
    run("dataset_split.py", "--rclone-input-prefix", f"{drive}/chunks", "--rclone-destination-prefix", f"{drive}/split",
        "--train-subjects", "S1,5", "--test-subjects", "9", "--new-chunk-size", 16)  # fmt: skip
    run(
        "dataset_rechunker.py", "--input-dir", f"{drive}/split", "--output-dir", f"{drive}/shuffled", "--chunk-size", 30
    )
    run("dataset_rechunker.py", "--input-dir", f"{drive}/split", "--output-dir", "shuffled", "--chunk-size", 30)
    trained = run("main.py", "--chunks-dir", f"{drive}/shuffled", "--cache-dir", "cache", *TINY, 4, "--max-steps", 4,
                  "--exp", "road", "--train-chunks", 0, 1, "--model_type", "cnn")  # fmt: skip
    assert "MPJPE" in trained.stdout
    checkpoint = "logs/road/checkpoints/best_model.pth"
    run("main.py", "--chunks-dir", "shuffled", *TINY, 4, "--evaluate", "--checkpoint", checkpoint)
    scores = workplace.report("logs/road/evaluate_report.json")
    assert scores["samples"] > 15 and np.isfinite([scores["mpjpe_mm"], scores["mean_pose_mpjpe_mm"]]).all()
    photos = workplace.folder / "photos"
    photos.mkdir()
    for frame in sorted((studio / "images").glob("s_09*/*_000002.jpg"))[:2]:
        shutil.copy(frame, photos)
    run("infer.py", "--checkpoint_path", checkpoint, "--input_folder", "photos", "--model_type", "cnn", "--visualize",
        "--output_folder", "results", "--yolo_model_path", "studio", "--depth_model_path", "studio")  # fmt: skip
    for photo in photos.iterdir():
        people = np.load(workplace.folder / f"results/{photo.stem}_pred_joints3d.npy")
        assert people.shape == (len(people), 17, 3) and people.dtype == np.float32 and len(people) >= 1
        assert all(cv2.imread(str(workplace.folder / f"results/{photo.stem}_{name}")) is not None for name in PICTURES)


@dataclass(frozen=True)
class Road:
    """How a corpus goes through the stages."""

    corpus: str
    fake: tuple[str, ...]
    subjects: tuple[str, ...]
    train: str
    test: str
    lifted: str = ""  # what main.py says where there is nothing to lift


ROADS = [
    Road(
        "human36m", ("--layout", "official", "--subjects", "1", "9", "--frames-per-take", "4"), ("1", "9"), "S1", "S9"
    ),
    Road("mpi_inf_3dhp", ("--subjects", "S1", "TS1", "--frames-per-take", "4"), ("S1", "TS1"), "S1", "TS1"),
    Road("mpii", ("--frames-per-take", "16"), ("train", "valid"), "train", "valid", "2D labels only .mpii_16."),
    Road("freihand", ("--frames-per-take", "12"), ("training", "evaluation"), "training", "evaluation"),
    Road("threedpw", ("--frames-per-take", "6"), ("train", "test"), "train", "test"),
]


@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.corpus)
def test_every_corpus_goes_the_whole_road_in_its_own_format(road: Road, tmp_path: Path) -> None:
    run = Workplace(tmp_path, {"OMP_NUM_THREADS": "1"}).run
    data = f"data/{road.corpus}"  # where the chunker looks by itself
    done = subprocess.run(
        [sys.executable, "-m", "humanpose3d", "fake", road.corpus, data, *road.fake, "--size", "128"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pictures = f"{data}/images" if (tmp_path / data / "images").is_dir() else data
    run("preprocess.py", pictures, f"{data}/processed", "--no-depth", *STUDIO_NETWORKS)
    flags = ("--images-path", pictures, "--annotations-path", data) if road.corpus == "human36m" else ()
    run("dataset_chunker.py", "--dataset", road.corpus, "--subjects", *road.subjects, *flags, "--output", "chunks",
        "--processed-path", f"{data}/processed", "--image-size", 96, "--max-bad", 0.5)  # fmt: skip
    run("dataset_split.py", "--rclone-input-prefix", "chunks", "--rclone-destination-prefix", "split",
        "--train-subjects", road.train, "--test-subjects", road.test)  # fmt: skip
    run("dataset_rechunker.py", "--input-dir", "split", "--output-dir", "shuffled")
    trained = run("main.py", "--chunks-dir", "shuffled", *TINY, 4, "--fdr", code=2 if road.lifted else 0)
    assert re.search(road.lifted, trained.stderr)


def test_the_same_road_in_folders_gives_the_same_bytes_as_through_the_drive(studio, workplace, s3_remote):
    run = workplace.run
    run("preprocess.py", studio / "images", "processed", *STUDIO_NETWORKS, "--no-depth")
    for place in ("here", f"{s3_remote.location}/there"):
        run("dataset_chunker.py", "--subjects", "1", "9", *corpus_flags(studio, "processed"),
            "--output", f"{place}/chunks", "--chunk-size", 15, "--image-size", 96, "--compress", "gz",
            "--max-bad", 0.2)  # fmt: skip
        run("dataset_split.py", "--rclone_input_prefix", f"{place}/chunks", "--rclone_destination_prefix",
            f"{place}/split", "--train_subjects", "1", "--test_subjects", "9", "--compress", "gz")  # fmt: skip
        run("dataset_rechunker.py", "--input-dir", f"{place}/split", "--output-dir", f"{place}/shuffled")
    here, there = workplace.folder / "here", s3_remote.folder / "there"
    tars = sorted(path.relative_to(here) for path in here.rglob("*.tar*"))
    assert len(tars) >= 6
    for tar in tars:
        assert (here / tar).read_bytes() == (there / tar).read_bytes(), tar


def test_real_frames_go_the_whole_road(samples, workplace, s3_remote):
    """What the road ends with: four Human3.6M frames, a real YOLO, and two photographs from anywhere."""
    run, drive, corpus = workplace.run, s3_remote.location, samples / "human36m"
    yolo = samples / "weights/yolov8n-pose.pt"
    run("preprocess.py", corpus / "images", "processed", "--yolo-model", yolo, "--depth-model", "studio")
    run("dataset_chunker.py", "--subjects", 1, 5, 7, 8, *corpus_flags(corpus, "processed"),
        "--output", f"{drive}/chunks")  # fmt: skip
    run("dataset_split.py", "--rclone-input-prefix", f"{drive}/chunks", "--rclone-destination-prefix", f"{drive}/split",
        "--train-subjects", "S1,S5", "--test-subjects", "S7,S8")  # fmt: skip
    run("dataset_rechunker.py", "--input-dir", f"{drive}/split", "--output-dir", "shuffled")
    assert stored_labels_reproject(workplace.folder / "shuffled", within_px=3.0) == 4
    run("main.py", "--chunks-dir", "shuffled", *TINY, 2, "--max-steps", 3, "--exp", "real")
    photos = workplace.folder / "photos"
    photos.mkdir()
    import ultralytics

    for photo in [*(corpus / "images").rglob("*.jpg"), *(Path(ultralytics.__file__).parent / "assets").glob("*.jpg")]:
        shutil.copy(photo, photos)
    run("infer.py", "--checkpoint_path", "logs/real/checkpoints/last.pth", "--input_folder", "photos", "--visualize",
        "--yolo_model_path", yolo, "--depth_model_path", "studio")  # fmt: skip
    found = {
        path.stem: len(np.load(path)) for path in (workplace.folder / "inference_results").glob("*_pred_joints3d.npy")
    }
    assert (found["bus_pred_joints3d"], found["zidane_pred_joints3d"]) == (4, 2)


def stored_labels_reproject(root: Path, within_px: float) -> int:
    """How many samples stock WebDataset finds below `root`; the 3D joints of each must land on its 2D joints."""
    number = 0
    for tar in sorted(root.rglob("*.tar")):
        for sample in webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False):
            meta = json.loads(sample["meta.json"])
            image = cv2.imdecode(np.frombuffer(sample["image.jpg"], np.uint8), cv2.IMREAD_COLOR)
            projected = camera_to_pixel(np.array(meta["joints_cam_m"]), Camera.from_dict(meta["camera"]))
            assert image.shape[1::-1] == tuple(meta["image_size_wh"])
            assert np.abs(projected - np.array(meta["joints_px"])).max() < within_px
            number += 1
    return number


@pytest.mark.parametrize(
    "script, arguments, words",
    [
        ("preprocess.py", ("nowhere", "out"), "nowhere is missing"),
        ("preprocess.py", ("empty", "out"), "no images in empty"),
        ("dataset_chunker.py", ("--subjects", 1, "--output", "o"), "run preprocess.py"),
        ("dataset_split.py", ("--rclone-input-prefix", "empty", "--rclone-destination-prefix", "o"), "subjects"),
        ("dataset_split.py", ("--rclone-input-prefix", "nodrive:x", "--rclone-destination-prefix", "o",
                              "--train-subjects", 1), "rclone has no remote 'nodrive'"),
        ("dataset_rechunker.py", ("--input-dir", "empty", "--output-dir", "o"), "no chunks in empty"),
        ("main.py", ("--chunks-dir", "empty"), "empty"),
        ("infer.py", ("--checkpoint_path", "nowhere.pth", "--input_folder", "empty"), "nowhere.pth"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_carried_out_is_one_line_and_exit_code_2(script, arguments, words, workplace):
    (workplace.folder / "empty").mkdir()
    done = workplace.run(script, *arguments, code=2)
    assert words in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
