"""The bytes of a sample: nothing is lost, and what is wrong is said."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import fields
from typing import Any

import cv2
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from humanpose3d.camera import Camera
from humanpose3d.chunks.codec import (
    SAMPLE_MEMBERS,
    BadSample,
    _record,
    check_sample,
    decode_depth,
    decode_sample,
    encode_depth,
    encode_jpeg,
    encode_sample,
    glance,
    members_of,
    read_facts,
    with_fields,
)
from humanpose3d.sample import SCHEMA_VERSION, PoseSample
from tests.records import random_sample

KEY = "h36m-S1-Walking-54138969-000000-p0"
any_float32 = st.floats(width=32, allow_nan=True, allow_infinity=False)


def assert_same(first: PoseSample, second: PoseSample, *, but: tuple[str, ...] = ()) -> None:
    for name in (field.name for field in fields(PoseSample) if field.name not in but):
        mine, theirs = getattr(first, name), getattr(second, name)
        if isinstance(mine, Camera):
            assert mine.to_dict() == theirs.to_dict()
        elif isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype, name
            np.testing.assert_array_equal(mine, theirs, err_msg=name)
        else:
            assert mine == theirs, name


@given(
    joints=hnp.arrays(np.float32, (17, 3), elements=any_float32),
    keypoints=hnp.arrays(np.float32, (17, 2), elements=any_float32),
    score=hnp.arrays(np.float32, 17, elements=st.floats(0, 1, width=32)),
    window=hnp.arrays(np.float32, (3, 17, 3), elements=any_float32),
)
def test_every_number_comes_back_bit_for_bit(
    joints: np.ndarray, keypoints: np.ndarray, score: np.ndarray, window: np.ndarray
) -> None:
    sample = random_sample(
        np.random.default_rng(0), image=False, depth=False, joints_cam_m=joints, keypoints_px=keypoints,
        keypoint_score=score, keypoint_window=window, window_fps=50.0,
    )  # fmt: skip
    assert_same(sample, decode_sample(KEY, encode_sample(sample)))


def test_a_record_with_everything_comes_back_whole() -> None:
    sample = random_sample(
        np.random.default_rng(1), window=5, head_size_px=31.5, gender="female", valid=False, frame_index=7,
        smpl_pose_rad=np.ones((24, 3), np.float32), smpl_betas=np.ones(10, np.float32),
        smpl_trans_m=np.ones(3, np.float32),
    )  # fmt: skip
    members = encode_sample(sample)
    assert tuple(members) == SAMPLE_MEMBERS
    decoded = decode_sample(KEY, members)
    assert_same(sample, decoded, but=("image",))
    assert sample.image is not None and decoded.image is not None
    assert np.abs(sample.image.astype(int) - decoded.image).mean() < 3


def test_a_record_with_nothing_but_a_key_comes_back_empty() -> None:
    assert_same(PoseSample(KEY), decode_sample(KEY, encode_sample(PoseSample(KEY))))


def test_the_same_record_gives_the_same_bytes() -> None:
    first, second = (encode_sample(random_sample(np.random.default_rng(2), window=3)) for _ in range(2))
    assert first == second


def test_only_the_members_of_the_fields_asked_for_are_needed() -> None:
    members = encode_sample(random_sample(np.random.default_rng(3), window=3))
    assert members_of(()) == ("meta.json",)
    bare = decode_sample(KEY, {"meta.json": members["meta.json"]}, ())
    assert bare.image is None and bare.depth_m is None and bare.image_size_wh == (64, 64)
    some = {extension: members[extension] for extension in members_of(("depth_m",))}
    assert decode_sample(KEY, some, ("depth_m",)).depth_m is not None


def test_an_image_that_is_encoded_already_keeps_its_bytes() -> None:
    sample = random_sample(np.random.default_rng(4))
    assert sample.image is not None
    jpeg = encode_jpeg(sample.image, 60)
    assert encode_sample(sample, image_jpeg=jpeg)["image.jpg"] == jpeg


@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_depth_keeps_every_millimetre(millimetres: np.ndarray) -> None:
    depth_m = millimetres.astype(np.float32) / np.float32(1000)
    np.testing.assert_array_equal(decode_depth(KEY, encode_depth(depth_m)), depth_m)


def test_depth_is_a_16_bit_png_for_everybody_else_too() -> None:
    png = encode_depth(np.array([[0.0, 1.2344, np.nan], [70.0, np.inf, -1.0]], dtype=np.float32))
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint16
    assert pixels.tolist() == [[0, 1234, 0], [65535, 65535, 0]]


def test_depth_of_another_program_is_read_too() -> None:
    millimetres = np.arange(60, dtype=np.uint16).reshape(6, 10) * 1000
    _, png = cv2.imencode(".png", millimetres, [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH])
    np.testing.assert_array_equal(decode_depth(KEY, png.tobytes()), millimetres.astype(np.float32) / np.float32(1000))


def test_depth_of_8_bits_is_refused() -> None:
    _, png = cv2.imencode(".png", np.zeros((4, 4), np.uint8))
    with pytest.raises(BadSample, match="not a 16-bit grey PNG"):
        decode_depth(KEY, png.tobytes())


def test_a_valid_sample_passes_and_gives_what_a_set_keeps_in_mind() -> None:
    sample = random_sample(np.random.default_rng(5), window=3)
    facts = check_sample(KEY, encode_sample(sample), decode=True)
    assert facts == {
        "schema_version": SCHEMA_VERSION, "subject": "S1", "skeleton": sample.skeleton,
        "keypoint_skeleton": sample.keypoint_skeleton, "provenance": sample.provenance,
    }  # fmt: skip
    assert read_facts(KEY, encode_sample(sample)) == facts


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 30), st.floats(-5, 5), st.sampled_from(["S1", "h36m_17", "coco_17", ""]),
    st.lists(st.floats(0, 1), max_size=25),
    st.lists(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=4), max_size=25),
    st.dictionaries(st.sampled_from(["K", "R", "t_m", "distortion"]), st.floats(0, 1)),
)  # fmt: skip


@given(st.sampled_from([field.name for field in fields(PoseSample)]), _VALUES, st.booleans())
def test_what_the_quick_way_takes_the_long_way_takes_too(name: str, value: Any, leave_out: bool) -> None:
    members = encode_sample(random_sample(np.random.default_rng(5)))
    meta = json.loads(members["meta.json"])
    meta.pop(name, None) if leave_out else meta.update({name: value})
    members["meta.json"] = json.dumps(meta).encode()
    try:
        decoded, reason = decode_sample(KEY, members), None
        assert_same(decoded, _record(KEY, meta), but=("image", "depth_m", "keypoint_window"))
    except BadSample as bad:
        reason = bad.reason
    try:
        check_sample(KEY, members)
        checked = None
    except BadSample as bad:
        checked = bad.reason
    assert checked == reason or "not of the size" in str(reason)


@pytest.mark.parametrize("extension", SAMPLE_MEMBERS)
def test_a_promised_member_that_is_missing_is_named(extension: str) -> None:
    members = encode_sample(random_sample(np.random.default_rng(6), window=3))
    del members[extension]
    with pytest.raises(BadSample, match=f"^{KEY}: {extension} is missing$"):
        check_sample(KEY, members)


@pytest.mark.parametrize(
    ("extension", "reason"),
    [("image.jpg", "not a whole JPEG"), ("depth.png", "not a whole PNG"), ("window.npy", "cannot be read"),
     ("meta.json", "not JSON")],
)  # fmt: skip
def test_a_member_that_ends_early_is_named(extension: str, reason: str) -> None:
    members = encode_sample(random_sample(np.random.default_rng(7), window=3))
    members[extension] = members[extension][:-20]
    with pytest.raises(BadSample, match=reason):
        check_sample(KEY, members)


@pytest.mark.parametrize(("extension", "field"), [("image.jpg", "image"), ("depth.png", "depth_m")])
def test_a_picture_damaged_in_the_middle_is_found_by_decoding(extension: str, field: str) -> None:
    members = encode_sample(random_sample(np.random.default_rng(8), size=128))
    data = bytearray(members[extension])
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff\xd9" * 20
    members[extension] = bytes(data)
    check_sample(KEY, members)
    with pytest.raises(BadSample):
        check_sample(KEY, members, decode=True)
    with pytest.raises(BadSample):
        decode_sample(KEY, members, (field,))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("subject", None, "subject is missing"),
        ("subject", 9, "subject is of another type"),
        ("joints_cam_m", [[0.0, 1.0, 2.0]], "joints_cam_m has another shape"),
        ("joints_cam_m", "none", "joints_cam_m is not an array"),
        ("keypoint_skeleton", "coco_19", "'coco_19' is not one of"),
        ("keypoint_score", None, "come together"),
        ("camera", {"K": [1]}, "camera is not"),
        ("image_size_wh", [64], "image_size_wh"),
        ("joint_in_view", [1] * 17, "joint_in_view"),
        ("frame_index", 1.5, "frame_index is of another type"),
        ("schema_version", None, "no schema_version"),
        ("schema_version", 999, "newer than this program"),
        ("key", "another", "another key"),
    ],
)
def test_metadata_that_does_not_fit_the_schema_is_refused(field: str, value: Any, reason: str) -> None:
    members = encode_sample(random_sample(np.random.default_rng(9)))
    meta = orjson.loads(members["meta.json"]) | {field: value}
    members["meta.json"] = orjson.dumps(meta)
    with pytest.raises(BadSample, match=reason):
        check_sample(KEY, members)


@pytest.mark.parametrize("key", ["a.b", "a/b", "a b", "", "../a"])
def test_a_key_that_webdataset_would_cut_is_refused(key: str) -> None:
    with pytest.raises(BadSample, match="its key"):
        check_sample(key, encode_sample(PoseSample(key)))


@pytest.mark.parametrize("changes", [{"version": (2, 0)}, {"version": (1, 0), "fortran": True}])
def test_a_window_that_another_program_wrote_otherwise_is_read(changes: dict[str, Any]) -> None:
    sample = random_sample(np.random.default_rng(8), window=3)
    members = encode_sample(sample)
    window, file = sample.keypoint_window, io.BytesIO()
    np.lib.format.write_array(file, np.asfortranarray(window) if "fortran" in changes else window, changes["version"])
    members["window.npy"] = file.getvalue()
    np.testing.assert_array_equal(decode_sample(KEY, members).keypoint_window, window)


def test_a_pickle_in_place_of_a_window_is_not_opened() -> None:
    members = encode_sample(random_sample(np.random.default_rng(10), window=3))
    buffer = io.BytesIO()
    np.save(buffer, np.array([object()], dtype=object), allow_pickle=True)
    members["window.npy"] = buffer.getvalue()
    with pytest.raises(BadSample, match="window.npy cannot be read"):
        decode_sample(KEY, members)


def test_a_bad_sample_survives_the_way_between_processes() -> None:
    back = pickle.loads(pickle.dumps(BadSample(KEY, "no image")))
    assert (back.key, back.reason, str(back)) == (KEY, "no image", f"{KEY}: no image")


def lying(members: dict[str, bytes]) -> tuple[bytearray, list[tuple[str, int, int]]]:
    """Members one after the other, some way into a memory, and where each lies."""
    memory, parts = bytearray(b"before"), []
    for extension, data in members.items():
        parts.append((extension, len(memory) - 6, len(data)))
        memory += data
    return memory, parts


def test_a_glance_gives_what_reading_gives() -> None:
    members = encode_sample(random_sample(np.random.default_rng(5), window=3))
    assert glance(KEY, *lying(members), 6) == read_facts(KEY, members)


@pytest.mark.parametrize(
    "damage",
    [
        lambda members: members | {"image.jpg": members["image.jpg"][:-2]},
        lambda members: members | {"depth.png": members["depth.png"][:-1]},
        lambda members: {name: data for name, data in members.items() if name != "depth.png"},
        lambda members: members | {"meta.json": members["meta.json"][:-1]},
        lambda members: members | {"meta.json": members["meta.json"].replace(KEY.encode(), b"another")},
        lambda members: {name: data for name, data in members.items() if name != "meta.json"},
    ],
)
def test_a_glance_takes_nothing_that_looks_wrong(damage: Any) -> None:
    members = damage(encode_sample(random_sample(np.random.default_rng(5), window=3)))
    assert glance(KEY, *lying(members), 6) is None
    with pytest.raises(BadSample):
        check_sample(KEY, members)


def test_replaced_fields_are_all_that_changes() -> None:
    sample = random_sample(np.random.default_rng(0), KEY, window=3)
    members = encode_sample(sample)
    pose_rad = np.random.default_rng(1).normal(size=(24, 3)).astype(np.float32)
    changed = with_fields(KEY, members, smpl_pose_rad=pose_rad, gender="neutral", head_size_px=None)
    assert {name: changed[name] for name in changed if name != "meta.json"} == {
        name: members[name] for name in members if name != "meta.json"
    }
    found = decode_sample(KEY, changed)
    np.testing.assert_array_equal(found.smpl_pose_rad, pose_rad)
    assert_same(found, decode_sample(KEY, members), but=("smpl_pose_rad", "gender"))
    assert with_fields(KEY, changed, smpl_pose_rad=None, gender=None) == members
