"""infer.py with a body regressor: meshes beside joints, in pictures and files; what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from humanpose3d import Pipeline
from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.images import read_image
from humanpose3d.inference import infer
from humanpose3d.model_config import model_config
from humanpose3d.models import build_model
from humanpose3d.models.checkpoint import save_model
from humanpose3d.models.smpl_body import load_bodies, rotations_from_axis_angle
from humanpose3d.skeletons import SMPL_24
from humanpose3d.studio.free_body import write_free_body
from tests.browser import part
from tests.test_inference import checkpoint, photos, request_, result_of  # noqa: F401  fixtures

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def body_request(request_: dict, tmp_path: Path) -> dict:  # noqa: F811
    torch.manual_seed(0)
    config = model_config("hps", "tiny", input_size=64, channels=16)
    save_model(tmp_path / "hps.pth", build_model(config), config)
    write_free_body(tmp_path / "body")
    return {**request_, "checkpoint_path": tmp_path / "hps.pth", "body_model": tmp_path / "body", "no_depth": True}


def test_every_person_is_a_body_whose_numbers_give_its_joints_and_mesh(body_request: dict) -> None:
    report = infer(**body_request, visualize=True, export=["obj", "glb"])
    assert report.counts["people"] > 0 and report.exit_code == 0
    out, body = body_request["output_folder"], load_bodies(body_request["body_model"]).neutral
    joints_m, told = result_of(out, "a")
    assert told["skeleton"] == "smpl_24" and joints_m.shape == (len(told["people"]), 24, 3)
    camera = Camera.create(told["camera"]["focal_px"], told["camera"]["center_px"])
    for number, person in enumerate(told["people"]):
        smpl = {name: torch.tensor(values)[None] for name, values in person["smpl"].items()}
        surface = body(rotations_from_axis_angle(smpl["pose_rad"]), smpl["betas"], smpl["trans_m"])
        np.testing.assert_allclose(surface.joints_m[0], joints_m[number], atol=1e-4)
        np.testing.assert_allclose(person["root_cam_m"], joints_m[number, SMPL_24.root_index], atol=1e-4)
        np.testing.assert_allclose(person["joints_px"], camera_to_pixel(joints_m[number], camera), rtol=1e-3, atol=0.1)
        lines = (out / f"a_person_{number}.obj").read_text().splitlines()
        vertices = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], float)
        np.testing.assert_allclose(vertices * [1, -1, -1], surface.vertices_m[0], atol=1e-4)
        assert (out / f"a_person_{number}.glb").read_bytes()[:4] == b"glTF"
    picture = read_image(out / "a_mesh.png")
    assert picture.shape[1] > 2 * picture.shape[0]  # three beside each other
    again = infer(**body_request, visualize=True, export=["obj", "glb"])
    assert again.counts["complete_before"] == 2


def test_the_viewer_shows_the_bodies(body_request: dict) -> None:
    infer(**body_request, viewer=True)
    drawn = part((body_request["output_folder"] / "viewer.html").read_text(), "first")["data"]
    [bodies] = [trace for trace in drawn if trace["name"] == "bodies"]
    assert bodies["type"] == "mesh3d" and len(bodies["x"]) > 1000


def test_a_picture_without_people_has_no_mesh_and_is_whole(body_request: dict, blind_pose_model: str) -> None:
    infer(**{**body_request, "yolo_model_path": blind_pose_model}, visualize=True, export=["obj"])
    out = body_request["output_folder"]
    assert result_of(out, "a")[0].shape == (0, 24, 3) and not list(out.rglob("*.obj"))
    assert (out / "a_combined_viz.png").is_file()


def test_the_pipeline_answers_bodies_as_joints(body_request: dict, photos: Path) -> None:  # noqa: F811
    people = Pipeline(
        body_request["checkpoint_path"], yolo_model=body_request["yolo_model_path"], depth_model=None,
        body_model=body_request["body_model"], device="cpu",
    ).predict(photos / "a.jpg")  # fmt: skip
    assert people and people[0].joints == SMPL_24.joints and np.isfinite(people[0].joints_cam_m).all()


def test_meshes_of_a_lifter_and_a_missing_body_are_refused(body_request: dict, request_: dict) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="gives joints"):
        infer(**request_, export=["glb"])
    with pytest.raises(FileNotFoundError, match="fake smpl"):
        infer(**{**body_request, "body_model": body_request["output_folder"]})
    with pytest.raises(ValueError, match="a hps, not a lifter"):
        infer(**body_request, model_type="lifter")


def test_a_video_of_bodies_is_followed(body_request: dict, tmp_path: Path) -> None:
    from humanpose3d.video import write_video

    rng = np.random.default_rng(0)
    write_video(tmp_path / "clip.mp4", [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(3)], 10)
    report = infer(**{**body_request, "input_folder": None, "input": [str(tmp_path / "clip.mp4")]})
    assert report.counts["images"] == 3
    assert "smpl" in json.loads(next(body_request["output_folder"].rglob("000000.json")).read_text())["people"][0]
