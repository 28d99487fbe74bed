"""PoseSample <-> the members of one sample in a chunk. Sole owner of the bytes.

`image.jpg`, `depth.png` (16-bit, millimetres), `window.npy`, and `meta.json`: all else, by the record's field names.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

import cv2
import msgspec
import numpy as np
import orjson
import simplejpeg
from isal import isal_zlib
from isal.igzip_lib import IsalError

from humanpose3d.camera import Camera
from humanpose3d.sample import SCHEMA_VERSION, PoseSample
from humanpose3d.skeletons import SKELETONS

META = "meta.json"
MEMBER_OF_FIELD = {"image": "image.jpg", "depth_m": "depth.png", "keypoint_window": "window.npy"}
SAMPLE_MEMBERS = (*MEMBER_OF_FIELD.values(), META)  # in the order they are written
JPEG_QUALITY = 90
LONGEST_NAME = 99  # bytes of `<key>.<extension>` that fit a USTAR header's name

_KEY = re.compile(r"[A-Za-z0-9_+=@-]+")
_PNG_SUB, _PNG_UP = 1, 2  # filters of a PNG's rows: differences to the left, to the row above
_NPY_START = 10  # bytes of a .npy before its header, the last two of which say how long that is
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"

# float32 arrays of meta.json and their shapes; J and Jin are the lengths of `skeleton` and `keypoint_skeleton`
_ARRAYS: dict[str, tuple[int | str, ...]] = {
    "keypoints_px": ("Jin", 2),
    "keypoint_score": ("Jin",),
    "joints_px": ("J", 2),
    "joints_cam_m": ("J", 3),
    "joint_score": ("J",),
    "box_px": (4,),
    "smpl_pose_rad": (24, 3),
    "smpl_betas": (10,),
    "smpl_trans_m": (3,),
}
_NUMBERS = ("window_fps", "head_size_px", "fps")  # float or absent
_TEXTS = ("corpus", "subject", "action", "camera_id")  # always there
_OPTIONAL_TEXTS = ("keypoint_skeleton", "skeleton", "gender")


class BadSample(ValueError):
    """A sample that is not as it should be. `reason` is without the key, so that equal faults are counted together."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason

    def __reduce__(self) -> tuple[type[BadSample], tuple[str, str]]:  # crosses from a worker to its parent
        return BadSample, (self.key, self.reason)


def encode_sample(
    sample: PoseSample, *, image_jpeg: bytes | None = None, jpeg_quality: int = JPEG_QUALITY
) -> dict[str, bytes]:
    """Extension -> bytes, in the order they are stored. `image_jpeg`: the image as it is already encoded."""
    members = {}
    if image_jpeg is None and sample.image is not None:
        image_jpeg = encode_jpeg(sample.image, jpeg_quality)
    if image_jpeg is not None:
        members["image.jpg"] = image_jpeg
    if sample.depth_m is not None:
        members["depth.png"] = encode_depth(sample.depth_m)
    if sample.keypoint_window is not None:
        members["window.npy"] = _encode_npy(sample.keypoint_window)
    members[META] = _encode_meta(sample, (*members, META))
    return members


def decode_sample(
    key: str, members: Mapping[str, bytes], fields: Collection[str] = tuple(MEMBER_OF_FIELD)
) -> PoseSample:
    """The record of one sample, with those of image, depth_m and keypoint_window that `fields` names and that exist.

    Needs of `members` only what `members_of(fields)` names. BadSample where something is not as it should be.
    """
    typed = _typed_meta(key, members)
    if typed is None:  # the long way says what is wrong with it
        meta = decode_meta(key, members)
        record, promised = _record(key, meta), meta.get("members", ())
    else:
        record, promised = typed.record(), typed.members
    changes: dict[str, Any] = {}
    for field in fields:
        data = _promised(key, members, promised, MEMBER_OF_FIELD[field])
        if data is not None:
            changes[field] = _decode_field(key, field, data, record)
    return record.with_(**changes)


def _decode_field(key: str, field: str, data: bytes, record: PoseSample) -> np.ndarray:
    if field == "depth_m":
        return decode_depth(key, data)
    if field == "keypoint_window":
        return _decode_window(key, data, record.keypoint_skeleton)
    image = decode_jpeg(key, data)
    if image.shape[1::-1] != record.image_size_wh:
        raise BadSample(key, "image.jpg is not of the size that meta.json says")
    return image


def members_of(fields: Collection[str]) -> tuple[str, ...]:
    """The extensions to read for these fields of the record; meta.json always."""
    return (*(extension for field, extension in MEMBER_OF_FIELD.items() if field in fields), META)


def check_sample(key: str, members: Mapping[str, bytes], *, decode: bool = False) -> dict[str, Any]:
    """`read_facts` of a valid sample; BadSample otherwise.

    Valid: the key is one of ours, the members that the metadata promises are there, the JSON fits the schema, JPEG and
    PNG begin and end as such. `decode` also decodes them.
    """
    check_key(key)
    facts = _checked_facts(key, members)
    if decode:
        decode_sample(key, members)
        return facts
    if "image.jpg" in members:
        _check_jpeg_ends(key, members["image.jpg"])
    if "depth.png" in members:
        _check_png_ends(key, members["depth.png"])
    if "window.npy" in members:
        _decode_window(key, members["window.npy"], facts["keypoint_skeleton"])
    return facts


def read_facts(key: str, members: Mapping[str, bytes]) -> dict[str, Any]:
    """What a set keeps in mind of a sample: its `subject`, `skeleton`, `keypoint_skeleton` and `provenance`; of the
    rest of meta.json nothing is looked at, but that it is JSON of a version that we can read. BadSample."""
    if META in members:
        try:
            facts = _FACTS.decode(members[META])
            if facts.schema_version <= SCHEMA_VERSION:
                return {name: getattr(facts, name) for name in FACTS}
        except msgspec.MsgspecError:
            pass  # not JSON, or of other types than ours: `decode_meta` says what it is
    meta = decode_meta(key, members)
    return {name: meta.get(name) for name in FACTS}


def glance(key: str, memory: bytearray, parts: Sequence[tuple[str, int, int]], at: int) -> dict[str, Any] | None:
    """`read_facts` of a sample that was checked when it was written, with a look at its frame alone: the promised
    members are there, JPEG and PNG begin and end as such. None where it is not so: `check_sample` says why.

    parts: (extension, offset, size) of its members in `memory`, from `at` on.
    """
    facts = None
    for extension, offset, size in parts:
        start, end = at + offset, at + offset + size
        if extension == META:
            try:
                facts = _FACTS.decode(memoryview(memory)[start:end])
            except msgspec.MsgspecError:
                return None
        elif extension == "image.jpg":
            if not (memory.startswith(b"\xff\xd8\xff", start) and memory.endswith(b"\xff\xd9", start, end)):
                return None
        elif extension == "depth.png":
            if not (memory.startswith(_PNG_START, start) and memory.endswith(_PNG_END, start, end)):
                return None
    if facts is None or facts.key != key or facts.schema_version > SCHEMA_VERSION:
        return None
    if len(facts.members) != len(parts) or {extension for extension, _, _ in parts} != set(facts.members):
        return None
    return {name: getattr(facts, name) for name in FACTS}


def _checked_facts(key: str, members: Mapping[str, bytes]) -> dict[str, Any]:
    """`read_facts` of metadata that fits the schema, with the members that it promises. BadSample."""
    typed = _typed_meta(key, members)
    if typed is not None and members.keys() >= set(typed.members):
        return {name: getattr(typed, name) for name in FACTS}
    # The long way says what is wrong; or it takes what a foreign writer spelled otherwise, numbers as text, say.
    plain = decode_meta(key, members)
    promised = plain.get("members", ())
    for extension in promised:
        _promised(key, members, promised, extension)
    _record(key, plain)
    return {name: plain.get(name) for name in FACTS}


FACTS = ("schema_version", "subject", "skeleton", "keypoint_skeleton", "provenance")


class _Facts(msgspec.Struct):
    """meta.json as far as the stages that move samples care."""

    schema_version: int
    key: Any = None
    members: tuple[str, ...] = ()
    subject: Any = None
    skeleton: Any = None
    keypoint_skeleton: Any = None
    provenance: Any = None


_Number: TypeAlias = float | None  # null is a NaN
_Point2: TypeAlias = tuple[_Number, _Number]
_Point3: TypeAlias = tuple[_Number, _Number, _Number]
_Row3: TypeAlias = tuple[float, float, float]
_Side: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class _CameraSchema(msgspec.Struct):
    K: tuple[_Row3, _Row3, _Row3]
    R: tuple[_Row3, _Row3, _Row3]
    t_m: _Row3
    distortion: tuple[float, float, float, float, float]

    def camera(self) -> Camera:
        return Camera(*(np.array(part, np.float64) for part in (self.K, self.R, self.t_m, self.distortion)))


class _Schema(msgspec.Struct):
    """meta.json as we write it: read and checked in a fraction of the time that looking at each field takes.

    What it accepts, `_record` accepts; tests/chunks/test_codec.py holds that.
    """

    schema_version: int
    key: str
    corpus: str
    subject: str
    action: str
    camera_id: str
    image_size_wh: tuple[_Side, _Side]
    frame_index: int
    valid: bool
    provenance: dict[str, Any]
    members: tuple[str, ...] = ()
    synthetic: bool | None = None
    skeleton: str | None = None
    keypoint_skeleton: str | None = None
    gender: str | None = None
    window_fps: _Number = None
    head_size_px: _Number = None
    fps: _Number = None
    keypoints_px: tuple[_Point2, ...] | None = None
    keypoint_score: tuple[_Number, ...] | None = None
    joints_px: tuple[_Point2, ...] | None = None
    joints_cam_m: tuple[_Point3, ...] | None = None
    joint_score: tuple[_Number, ...] | None = None
    joint_in_view: tuple[bool, ...] | None = None
    box_px: tuple[_Number, _Number, _Number, _Number] | None = None
    smpl_pose_rad: tuple[_Point3, ...] | None = None
    smpl_betas: tuple[_Number, ...] | None = None
    smpl_trans_m: _Point3 | None = None
    camera: _CameraSchema | None = None

    def record(self) -> PoseSample:
        """Of metadata that fits."""
        values: dict[str, Any] = {name: getattr(self, name) for name in (*_TEXTS, *_OPTIONAL_TEXTS, *_NUMBERS)}
        for name in _ARRAYS:
            if (rows := getattr(self, name)) is not None:
                values[name] = np.array(rows, np.float32)
        return PoseSample(
            key=self.key,
            image_size_wh=self.image_size_wh,
            frame_index=self.frame_index,
            valid=self.valid,
            synthetic=bool(self.synthetic),
            provenance=self.provenance,
            joint_in_view=None if self.joint_in_view is None else np.array(self.joint_in_view, bool),
            camera=None if self.camera is None else self.camera.camera(),
            **values,
        )

    def fits(self, key: str) -> bool:
        """The key is this one, the version ours, the lengths those of the skeletons."""
        labels, cues = _JOINTS.get(self.skeleton), _JOINTS.get(self.keypoint_skeleton)
        if self.schema_version > SCHEMA_VERSION or self.key != key or labels is None or cues is None:
            return False
        if (self.keypoints_px is None) != (self.keypoint_score is None):
            return False
        for rows, length in (
            (self.joints_px, labels), (self.joints_cam_m, labels), (self.joint_score, labels),
            (self.joint_in_view, labels), (self.keypoints_px, cues), (self.keypoint_score, cues),
            (self.smpl_pose_rad, 24), (self.smpl_betas, 10),
        ):  # fmt: skip
            if rows is not None and len(rows) != length:
                return False
        return True


_JOINTS: dict[str | None, int] = {None: -1} | {name: len(skeleton) for name, skeleton in SKELETONS.items()}
_FACTS, _SCHEMA = msgspec.json.Decoder(_Facts), msgspec.json.Decoder(_Schema)


def _typed_meta(key: str, members: Mapping[str, bytes]) -> _Schema | None:
    """meta.json that fits the schema; None of any other."""
    if META not in members:
        return None
    try:
        meta = _SCHEMA.decode(members[META])
    except msgspec.MsgspecError:
        return None
    return meta if meta.fits(key) else None


def check_key(key: str) -> None:
    """BadSample where a key holds what WebDataset or a tar cannot take."""
    if not _KEY.fullmatch(key):
        raise BadSample(key, "its key has characters other than letters, digits and _+=@-")


def decode_meta(key: str, members: Mapping[str, bytes]) -> dict[str, Any]:
    """meta.json as it stands, with a schema version we can read."""
    if META not in members:
        raise BadSample(key, "meta.json is missing")
    try:
        meta = orjson.loads(members[META])
    except orjson.JSONDecodeError:
        raise BadSample(key, "meta.json is not JSON") from None
    if not isinstance(meta, dict):
        raise BadSample(key, "meta.json is not an object")
    version = meta.get("schema_version")
    if not isinstance(version, int):
        raise BadSample(key, "meta.json has no schema_version")
    if version > SCHEMA_VERSION:
        raise BadSample(
            key, f"schema_version {version} is newer than this program's {SCHEMA_VERSION}; update humanpose3d"
        )
    return meta


def _encode_meta(sample: PoseSample, members: tuple[str, ...]) -> bytes:
    meta: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "members": list(members)}
    for name, value in vars(sample).items():
        if name in MEMBER_OF_FIELD or value is None:
            continue
        if name in _ARRAYS:
            value = np.ascontiguousarray(value, dtype=np.float32)
        meta[name] = value.to_dict() if isinstance(value, Camera) else value
    # orjson writes float32 with the fewest digits that give the same float32 back, and NaN as null.
    return orjson.dumps(meta, option=orjson.OPT_SERIALIZE_NUMPY)


def with_fields(key: str, members: Mapping[str, bytes], **fields: Any) -> dict[str, bytes]:
    """The members of the same sample with some of the record's fields in meta.json replaced, by None taken away; all
    else as it was. BadSample where the metadata cannot be read."""
    assert fields.keys() <= PoseSample.__dataclass_fields__.keys() - MEMBER_OF_FIELD.keys()
    meta = decode_meta(key, members)
    for name, value in fields.items():
        if value is None:
            meta.pop(name, None)
        else:
            meta[name] = np.ascontiguousarray(value, np.float32) if name in _ARRAYS else value
    return {**members, META: orjson.dumps(meta, option=orjson.OPT_SERIALIZE_NUMPY)}


def _record(key: str, meta: dict[str, Any]) -> PoseSample:
    """The record that meta.json tells of; BadSample names the field that does not fit."""
    if meta.get("key", key) != key:
        raise BadSample(key, "meta.json has another key")
    values = _plain_fields(key, meta)
    joints = {
        "J": len(SKELETONS[values["skeleton"]]) if values["skeleton"] else None,
        "Jin": len(SKELETONS[values["keypoint_skeleton"]]) if values["keypoint_skeleton"] else None,
    }
    for name, shape in _ARRAYS.items():
        if meta.get(name) is not None:
            expected = tuple(joints[side] if isinstance(side, str) else side for side in shape)
            values[name] = _array(key, name, meta[name], expected)
    if ("keypoints_px" in values) != ("keypoint_score" in values):
        raise BadSample(key, "keypoints_px and keypoint_score come together")
    return PoseSample(
        key=key,
        image_size_wh=_size_wh(key, meta.get("image_size_wh")),
        joint_in_view=_in_view(key, meta.get("joint_in_view"), joints["J"]),
        camera=_camera(key, meta.get("camera")),
        **values,
    )


def _plain_fields(key: str, meta: dict[str, Any]) -> dict[str, Any]:
    """The fields that are one text, number or object."""
    values: dict[str, Any] = {name: _typed(key, meta, name, str) for name in _TEXTS}
    values |= {name: _typed(key, meta, name, str, optional=True) for name in _OPTIONAL_TEXTS}
    for name in ("skeleton", "keypoint_skeleton"):
        if values[name] is not None and values[name] not in SKELETONS:
            raise BadSample(key, f"{name} '{values[name]}' is not one of {', '.join(sorted(SKELETONS))}")
    for name in _NUMBERS:
        number = _typed(key, meta, name, (int, float), optional=True)
        values[name] = None if number is None else float(number)
    values["frame_index"] = _typed(key, meta, "frame_index", int)
    values["valid"] = _typed(key, meta, "valid", bool)
    values["synthetic"] = bool(_typed(key, meta, "synthetic", bool, optional=True))
    values["provenance"] = _typed(key, meta, "provenance", dict)
    return values


def _size_wh(key: str, value: Any) -> tuple[int, int]:
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) and side >= 0 for side in value)):
        raise BadSample(key, "image_size_wh is not two whole numbers")
    return value[0], value[1]


def _in_view(key: str, value: Any, joints: int | None) -> np.ndarray | None:
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == joints and all(isinstance(seen, bool) for seen in value)):
        raise BadSample(key, "joint_in_view does not fit its skeleton")
    return np.array(value, dtype=bool)


def _camera(key: str, value: Any) -> Camera | None:
    if value is None:
        return None
    try:
        return Camera.from_dict(value)
    except (ValueError, TypeError, KeyError):
        raise BadSample(key, "camera is not K, R, t_m and distortion") from None


def _typed(key: str, meta: dict[str, Any], name: str, kind: Any, *, optional: bool = False) -> Any:
    value = meta.get(name)
    if value is None and optional:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadSample(key, f"meta.json: {name} is {'missing' if value is None else 'of another type'}")
    return value


def _array(key: str, name: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=np.float32)  # null becomes NaN
    except (ValueError, TypeError):
        raise BadSample(key, f"meta.json: {name} is not an array of numbers") from None
    if array.shape != shape:
        raise BadSample(key, f"meta.json: {name} has another shape than its skeleton or the format asks for")
    return array


def _promised(key: str, members: Mapping[str, bytes], promised: Collection[str], extension: str) -> bytes | None:
    """A member; None where there is none and none was promised."""
    if extension in members:
        return members[extension]
    if extension in promised:
        raise BadSample(key, f"{extension} is missing")
    return None


def encode_jpeg(image: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """uint8 [H W 3] RGB -> JPEG bytes."""
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420"
    )


def decode_jpeg(key: str, data: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """JPEG bytes -> uint8 [H W 3] RGB. A picture that ends early is an error, not a grey patch.

    out: uint8 [h w 3], contiguous, filled and returned instead: decoded by libjpeg at the smallest of its scales that
    is not below h x w, and from there, where the two differ, resized by area.
    """
    try:
        if out is None:
            return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
        height, width = out.shape[:2]
        stored_height, stored_width, *_ = simplejpeg.decode_jpeg_header(data)
        if _dct_size(stored_height, stored_width, height, width) == (height, width):
            simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, strict=True, buffer=out)
            return out
        image = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, strict=True)
        return cv2.resize(image, (width, height), dst=out, interpolation=cv2.INTER_AREA)
    except ValueError:
        raise BadSample(key, "image.jpg cannot be decoded") from None


def _dct_size(height: int, width: int, min_height: int, min_width: int) -> tuple[int, int]:
    """Height and width of a JPEG decoded at the smallest scale, an eighth to one, that is not below those."""
    for eighths in range(1, 8):
        scaled = -(-height * eighths // 8), -(-width * eighths // 8)
        if scaled[0] >= min_height and scaled[1] >= min_width:
            return scaled
    return height, width


def encode_depth(depth_m: np.ndarray) -> bytes:
    """float32 [h w] metres -> 16-bit PNG in millimetres; 0 stays unknown, as do NaN and what lies behind the lens."""
    millimetres = np.rint(np.nan_to_num(depth_m, nan=0.0, posinf=65.535, neginf=0.0) * 1000.0)
    # Filter Up on every row and level 1: what `_inflate_png` reads ten times as fast as a general decoder.
    options = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP, cv2.IMWRITE_PNG_COMPRESSION, 1]
    done, data = cv2.imencode(".png", np.clip(millimetres, 0, 65535).astype(np.uint16), options)
    assert done
    return data.tobytes()


def decode_depth(key: str, data: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """16-bit PNG in millimetres -> float32 [h w] metres, 0 = unknown. out: float32 [h w], filled and returned."""
    millimetres = _inflate_png(data)
    if millimetres is None:
        _check_png_ends(key, data)
        millimetres = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if millimetres is None or millimetres.ndim != 2 or millimetres.dtype.newbyteorder("=") != np.uint16:
        raise BadSample(key, "depth.png is not a 16-bit grey PNG")
    if out is not None and out.shape != millimetres.shape:
        raise BadSample(key, "depth.png is not of the size that was asked for")
    # One pass: each number is turned to this machine's byte order, widened and divided.
    return np.divide(millimetres, np.float32(1000.0), out=out, dtype=np.float32, casting="unsafe")


def _inflate_png(data: bytes) -> np.ndarray | None:
    """Big-endian uint16 [h w] of a 16-bit grey PNG whose rows are all filtered Up (ours) or all Sub (OpenCV's default).

    None for others, which cv2 reads.
    """
    if data[:8] != _PNG_START or data[12:16] != b"IHDR" or data[24:29] != b"\x10\x00\x00\x00\x00":
        return None
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    packed = _png_data(data)
    if packed is None:
        return None
    try:
        rows = np.frombuffer(isal_zlib.decompress(packed, bufsize=height * (2 * width + 1) + 1), np.uint8)
    except IsalError:  # type: ignore[misc]  # a class, which its stub takes for an instance
        return None
    if rows.size != height * (2 * width + 1) or not rows.size:
        return None
    rows = rows.reshape(height, 2 * width + 1)
    filters = rows[:, 0]
    if (filters == _PNG_UP).all():
        return np.add.accumulate(rows[:, 1:], axis=0, dtype=np.uint8).view(">u2")
    return _sum_along_rows(rows[:, 1:]).view(">u2") if (filters == _PNG_SUB).all() else None


def _png_data(data: bytes) -> bytes | None:
    """The joined IDATs, each with a right checksum; None where the PNG has other chunks among or after them."""
    parts, position = [], 33
    while data[position + 4 : position + 8] == b"IDAT":
        length = int.from_bytes(data[position : position + 4], "big")
        part = data[position + 4 : position + 8 + length]
        if isal_zlib.crc32(part) != int.from_bytes(data[position + 8 + length : position + 12 + length], "big"):
            return None
        parts.append(part[4:])
        position += 12 + length
    return b"".join(parts) if data[position:] == _PNG_END else None


def _sum_along_rows(rows: np.ndarray) -> np.ndarray:
    """uint8 [h 2w] of two-byte pixels, each the difference to its left neighbour -> the pixels; byte by byte, mod 256.

    In log2(w) additions of the whole picture to itself, shifted: half the time of `np.add.accumulate` along the rows,
    which adds one number at a time.
    """
    sums, other = rows.copy(), np.empty_like(rows, order="C")
    shift = 2
    while shift < rows.shape[1]:
        # Over the ends of rows as well: one long addition is faster than one a row. The starts are put right after.
        np.add(sums.ravel()[shift:], sums.ravel()[:-shift], out=other.ravel()[shift:])
        other[:, :shift] = sums[:, :shift]
        sums, other = other, sums
        shift *= 2
    return sums


def _encode_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)
    return buffer.getvalue()


def _decode_window(key: str, data: bytes, keypoint_skeleton: str | None) -> np.ndarray:
    try:
        window = _load_npy(data)
    except (ValueError, EOFError, OSError):
        raise BadSample(key, "window.npy cannot be read") from None
    joints = len(SKELETONS[keypoint_skeleton]) if keypoint_skeleton else -1
    if not isinstance(window, np.ndarray) or window.dtype != np.float32 or window.shape[1:] != (joints, 3):
        raise BadSample(key, "window.npy is not float32 [T, joints, 3]")
    return window


def _load_npy(data: bytes) -> np.ndarray:
    """`np.load`, which takes most of its time to parse a header that all members of a set share."""
    start = _NPY_START + int.from_bytes(data[_NPY_START - 2 : _NPY_START], "little")
    form = _npy_form(data[:start])
    if form is None:
        return np.load(io.BytesIO(data), allow_pickle=False)
    dtype, shape = form
    return np.frombuffer(data, dtype, math.prod(shape), offset=start).reshape(shape).copy()


@lru_cache(maxsize=64)
def _npy_form(header: bytes) -> tuple[np.dtype, tuple[int, ...]] | None:
    """(type, shape) of the usual kind of header: version 1.0, rows in C's order, no objects. Else None; ValueError."""
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        return None
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    return None if is_fortran or dtype.hasobject else (dtype, shape)


def _check_jpeg_ends(key: str, data: bytes) -> None:
    if data[:3] != b"\xff\xd8\xff" or not data.rstrip(b"\x00").endswith(b"\xff\xd9"):
        raise BadSample(key, "image.jpg is not a whole JPEG")


def _check_png_ends(key: str, data: bytes) -> None:
    if not (data.startswith(_PNG_START) and data.endswith(_PNG_END)):
        raise BadSample(key, "depth.png is not a whole PNG")
