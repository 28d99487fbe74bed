"""FreiHAND's files as the studio writes them, looked at without the reader."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from humanpose3d.studio.freihand import LAYOUTS, SAMPLES, image_file, write_freihand
from humanpose3d.studio.hands import VERSIONS

ASKED = {"frames_per_take": 3, "seed": 4}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("freihand")
    report = write_freihand(out, **ASKED)
    assert report.counts["images"] == report.inputs == 3 * 4 + 3
    assert report.exit_code == 0
    return out


def test_the_files_are_version_2s(written):
    assert sorted(path.name for path in written.glob("*.json")) == [
        "evaluation_K.json", "evaluation_scale.json", "evaluation_xyz.json", "studio.json",
        "training_K.json", "training_scale.json", "training_xyz.json",
    ]  # fmt: skip
    assert sorted(path.name for path in (written / "training/rgb").iterdir()) == sorted(
        f"{sample + SAMPLES * version:08d}.jpg" for version in range(4) for sample in range(3)
    )
    assert sorted(path.name for path in (written / "evaluation/rgb").iterdir()) == [
        "00000000.jpg", "00000001.jpg", "00000002.jpg",
    ]  # fmt: skip
    assert cv2.imread(str(written / image_file("training", 2, 3))).shape == (224, 224, 3)


def test_labels_are_lists_by_sample_in_metres(written):
    for split in ("training", "evaluation"):
        K, xyz, scale = (json.loads((written / f"{split}_{what}.json").read_text()) for what in ("K", "xyz", "scale"))
        assert np.shape(K) == (3, 3, 3) and np.shape(xyz) == (3, 21, 3) and np.shape(scale) == (3,)
        for camera, joints, length in zip(np.array(K), np.array(xyz), scale, strict=True):
            projected = joints @ camera.T
            pixels = projected[:, :2] / projected[:, 2:]
            assert pixels.min() > 0 and pixels.max() < 224
            assert 0.3 < joints[:, 2].min() and joints[:, 2].max() < 1.1
            assert length == pytest.approx(np.linalg.norm(joints[9] - joints[10]))


def test_training_and_evaluation_show_other_hands(written):
    training, evaluation = (
        np.array(json.loads((written / f"{split}_xyz.json").read_text())) for split in ("training", "evaluation")
    )
    assert np.abs(training - evaluation).max() > 0.02


def test_versions_of_a_sample_are_pictures_of_one_hand(written):
    pictures = [cv2.imread(str(written / image_file("training", 1, version))).astype(int) for version in range(4)]
    assert len(VERSIONS) == len(pictures)
    for first in range(4):
        for second in range(first):
            assert np.abs(pictures[first] - pictures[second]).mean() > 4


def test_the_same_seed_gives_the_same_bytes_after_any_interruption(written, tmp_path):
    write_freihand(tmp_path, **{**ASKED, "frames_per_take": 1})
    (tmp_path / image_file("training", 0, 2)).unlink()
    report = write_freihand(tmp_path, **ASKED)
    assert report.counts["already there"] == 4
    assert contents(tmp_path) == contents(written)


def test_two_workers_write_what_one_does(written, tmp_path):
    write_freihand(tmp_path, **ASKED, workers=2)
    assert contents(tmp_path) == contents(written)


def test_one_split_is_written_alone(tmp_path):
    report = write_freihand(tmp_path, subjects=["evaluation"], frames_per_take=1)
    assert report.counts["images"] == 1 and not (tmp_path / "training_K.json").exists()


def test_the_coco_form_has_mmposes_files_and_2d_labels(tmp_path):
    write_freihand(tmp_path, frames_per_take=3, layout="coco")
    assert not (tmp_path / "evaluation").exists()
    seen = {}
    for part in ("train", "val", "test"):
        data = json.loads((tmp_path / f"annotations/freihand_{part}.json").read_text())
        for image, person in zip(data["images"], data["annotations"], strict=True):
            assert person["image_id"] == image["id"] and len(person["keypoints"]) == 63
            assert (tmp_path / image["file_name"]).is_file()
            seen[image["id"]] = part
    assert sorted(seen) == sorted(sample + SAMPLES * version for version in range(4) for sample in range(3))
    assert len({seen[1 + SAMPLES * version] for version in range(4)} | {seen[SAMPLES * v] for v in range(4)}) > 1, (
        "hands lie in several files, as in the real ones"
    )


def test_a_folder_of_another_seed_is_refused(written):
    with pytest.raises(ValueError, match="choose another folder"):
        write_freihand(written, **{**ASKED, "seed": 5})


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"subjects": ["S1"]}, "no 'S1'; it has training, evaluation"),
        ({"layout": "v3"}, f"as {', '.join(LAYOUTS)}, not as 'v3'"),
        ({"layout": "coco", "subjects": ["evaluation"]}, "training images only"),
        ({"frames_per_take": 0}, "1 to 32560 samples"),
    ],
)
def test_an_impossible_request_is_refused_before_anything_is_written(tmp_path, asked, message):
    with pytest.raises(ValueError, match=message):
        write_freihand(tmp_path / "new", **asked)
    assert not (tmp_path / "new").exists()
