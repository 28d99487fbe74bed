"""Names of samples and subjects, and the batch's way to a device."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from humanpose3d.sample import PoseBatch, PoseSample, make_key, normalise_subject, subjects_asked_for


def test_a_key_is_built_as_documented():
    key = make_key("h36m", "S9", "Directions 1", 54138969, "000123", "p0")
    assert key == "h36m-S9-Directions_1-54138969-000123-p0"


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=6))
def test_a_key_never_has_a_dot_a_slash_or_a_space(parts):
    assert re.fullmatch(r"[A-Za-z0-9_-]*", make_key(*parts))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 999999), st.integers(0, 9)), unique=True, max_size=30))
def test_different_frames_have_different_keys(parts):
    keys = {make_key("h36m", f"S{subject}", f"{frame:06d}", f"p{person}") for subject, frame, person in parts}
    assert len(keys) == len(parts)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("9", "S9"), (9, "S9"), ("s9", "S9"), ("S09", "S9"), (" S11 ", "S11"), ("0", "S0"), ("ts3", "TS3"),
     ("downtown_walking_00", "downtown_walking_00"), ("P7", "P7"), ("", "")],
)  # fmt: skip
def test_one_subject_has_one_spelling(name, expected):
    assert normalise_subject(name) == expected


@given(st.text(max_size=8))
def test_normalising_a_subject_twice_changes_nothing(name):
    assert normalise_subject(normalise_subject(name)) == normalise_subject(name)


def test_with_makes_a_new_record():
    sample = PoseSample(key="a", subject="S1")
    other = sample.with_(subject="S9")
    assert (sample.subject, other.subject, other.key) == ("S1", "S9", "a")


def test_a_batch_moves_whole_and_keeps_what_is_absent():
    batch = PoseBatch(
        keys=["a"],
        subjects=["S1"],
        actions=["walk"],
        counted=torch.ones(1, dtype=torch.bool),
        image=None,
        depth_m=torch.zeros(1, 1, 4, 4),
        keypoints_px=torch.zeros(1, 17, 2),
        keypoint_score=torch.zeros(1, 17),
        keypoint_mask=torch.zeros(1, 17, dtype=torch.bool),
        intrinsics=torch.eye(3)[None],
        image_size_wh=torch.tensor(np.array([[8.0, 8.0]])),
        joints_px=None,
        joints_cam_m=None,
        joint_mask=None,
        joint_in_view=None,
    )
    moved = batch.to("meta")
    assert len(moved) == 1 and moved.image is None and moved.keys == ["a"]
    assert {value.device.type for value in vars(moved).values() if isinstance(value, torch.Tensor)} == {"meta"}


@pytest.mark.parametrize(
    "request_, found",
    [
        ("9", ["S9"]),
        ("s9", ["S9"]),
        ("train", ["train/golf_00", "train/golf_01"]),
        ("golf_01", ["train/golf_01"]),
        ("train/golf_01", ["train/golf_01"]),
        ("0-1999", ["0-999", "1000-1999"]),
        ("1000-1999", ["1000-1999"]),
        ("5000-9999", []),
        ("test", []),
    ],
)
def test_a_request_means_subjects_by_name_part_or_range(request_, found):
    present = ["S9", "S11", "train/golf_00", "train/golf_01", "0-999", "1000-1999", "2000-2999", "evaluation"]
    assert subjects_asked_for(request_, present) == found


def test_a_range_that_cuts_a_block_is_refused():
    with pytest.raises(ValueError, match="0-1499 cuts the block of samples 1000-1999"):
        subjects_asked_for("0-1499", ["0-999", "1000-1999"])
