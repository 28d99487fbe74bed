"""The studio's motion: CMU's definitions of the joints, varied poses, the same bytes for the same request."""

from pathlib import Path

import numpy as np
import pytest

from humanpose3d.skeletons import COCO_17, H36M_17, shared_joints
from humanpose3d.studio.layouts import write_corpus
from humanpose3d.studio.mocap import FILE, write_mocap

FRAMES = 60  # six seconds: a whole round of most actions


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    out = tmp_path_factory.mktemp("motion")
    write_mocap(out, subjects=["S101", "S102"], frames_per_take=FRAMES)
    with np.load(out / FILE, allow_pickle=False) as file:
        return dict(file)


def at(values: dict[str, np.ndarray], joint: str) -> np.ndarray:
    return values["joints_h36m_m"][:, H36M_17.index(joint)]


def test_each_person_acts_everything(values):
    assert len(values["frame"]) == 2 * 15 * FRAMES and len(np.unique(values["motion"])) == 30
    assert set(values["subject"].tolist()) == {101, 102} and "Sitting" in values["label"]
    assert (values["frame"].reshape(30, FRAMES) == np.arange(FRAMES) * 12).all()


def test_both_joint_sets_share_their_points(values):
    of_h36m, of_coco = shared_joints(H36M_17, COCO_17)
    np.testing.assert_array_equal(values["joints_h36m_m"][:, of_h36m], values["joints_coco_m"][:, of_coco])


def test_proportions_are_those_of_captured_people(values):
    leg = np.linalg.norm(at(values, "left_hip") - at(values, "left_knee"), axis=-1)
    leg += np.linalg.norm(at(values, "left_knee") - at(values, "left_ankle"), axis=-1)
    for first, second, share in (  # measured on CMU's own skeletons
        ("pelvis", "left_hip", 0.102), ("pelvis", "spine", 0.261), ("spine", "thorax", 0.281),
        ("thorax", "neck", 0.173), ("neck", "head", 0.174), ("thorax", "left_shoulder", 0.232),
        ("left_shoulder", "left_elbow", 0.353), ("left_elbow", "left_wrist", 0.288),
    ):  # fmt: skip
        lengths = np.linalg.norm(at(values, first) - at(values, second), axis=-1) / leg
        assert abs(np.median(lengths) / share - 1) < 0.1, (first, second)


def test_people_sit_crouch_and_stand_on_the_floor(values):
    height = at(values, "pelvis")[:, 2]
    assert height.min() < 0.45 and height.max() > 0.75
    ankles = np.minimum(at(values, "left_ankle")[:, 2], at(values, "right_ankle")[:, 2])
    assert ankles.min() > 0.0 and np.median(ankles) < 0.15


def test_faces_look_where_the_chest_does(values):
    nose = values["joints_coco_m"][:, COCO_17.index("nose")] - at(values, "head")
    left = at(values, "left_shoulder") - at(values, "right_shoulder")
    forward = np.cross(left, at(values, "thorax") - at(values, "spine"))
    assert ((nose * forward).sum(-1) > 0).mean() > 0.98


def test_the_same_request_gives_the_same_bytes(tmp_path: Path):
    for name, workers, seed in (("one", 1, 0), ("two", 2, 0), ("other", 1, 1)):
        write_corpus(
            corpus="mocap",
            out=tmp_path / name,
            subjects=("S101", "S102"),
            frames_per_take=2,
            workers=workers,
            seed=seed,
        )
    one, two, other = ((tmp_path / name / FILE).read_bytes() for name in ("one", "two", "other"))
    assert one == two != other


def test_what_cannot_be_written_is_said(tmp_path: Path):
    with pytest.raises(ValueError, match="no subject 'S9' for motion; it has S101 to S999"):
        write_mocap(tmp_path, subjects=["S9"])
    with pytest.raises(ValueError, match="motion has no pictures; leave out --size"):
        write_mocap(tmp_path, size=256)
