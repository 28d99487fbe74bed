"""The cues of one frame on disk: <stem>.json (people, focal length, provenance) and <stem>_depth.png (16-bit, mm).

Owns both formats: write, read, is_complete. Which frames there are is `preprocess.py`'s, whose keypoints the chunker's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson

from humanpose3d.files import write_whole
from humanpose3d.skeletons import get_skeleton

DEPTH_LIMIT_MM = 65535  # the largest 16-bit value: depths from 65.535 m on are stored as this
PNG_PARAMETERS = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
REMEDY = "delete it, or run preprocess.py again with --overwrite"


@dataclass(frozen=True, eq=False)
class Person:
    """One person as the 2D estimator found it, in the image's pixels. Confidences are the network's own, uncut."""

    box_px: np.ndarray  # float32 [4]: x0 y0 x1 y1
    score: float  # of the box
    keypoints_px: np.ndarray  # float32 [J 2]
    keypoint_score: np.ndarray  # float32 [J]
    heat: np.ndarray | None = None  # float16 [h h], the highest of its heat maps in the hourglass's view; not stored


@dataclass(frozen=True, eq=False)
class Sidecar:
    """The cues of one image. `depth_size`, `depth_min_m` and `depth_max_m` are filled in from `depth_m` on writing."""

    image_size_wh: tuple[int, int]
    people: list[Person]  # in the estimator's order: best box score first
    keypoint_skeleton: str = "coco_17"
    depth_m: np.ndarray | None = None  # float32 [h w], camera z, 0 = unknown; spans the image, maybe at fewer pixels
    depth_size: tuple[int, int] | None = None  # (w, h) of the depth map; None without depth
    depth_min_m: float | None = None  # over the known pixels; None where there are none
    depth_max_m: float | None = None
    focal_px: float | None = None  # estimated focal length, in this image's pixels
    estimators: dict[str, dict[str, Any]] = field(default_factory=dict)  # role -> name, version, sha256


def sidecar_paths(folder: Path, stem: str) -> tuple[Path, Path]:
    """(JSON, depth PNG) of the frame `stem` in `folder`."""
    return folder / f"{stem}.json", folder / f"{stem}_depth.png"


@dataclass(frozen=True)
class SidecarFiles:
    """What is in a frame's two files."""

    json: bytes
    depth_png: bytes | None  # None without depth


def encode_sidecar(sidecar: Sidecar) -> SidecarFiles:
    """The bytes of both files, wherever they are to go."""
    png = None if sidecar.depth_m is None else encode_depth_png(sidecar.depth_m)
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    return SidecarFiles(orjson.dumps(_to_json(sidecar), option=options), png)


def write_sidecar(path_stem: Path, sidecar: Sidecar | SidecarFiles) -> None:
    """Write <path_stem>.json, and <path_stem>_depth.png where there is depth; the folder must exist.

    The JSON goes last, each file under a temporary name first: a frame with a JSON is whole.
    """
    files = sidecar if isinstance(sidecar, SidecarFiles) else encode_sidecar(sidecar)
    json_path, png_path = sidecar_paths(path_stem.parent, path_stem.name)
    json_path.unlink(missing_ok=True)  # an older JSON must not vouch for the new PNG
    if files.depth_png is None:
        png_path.unlink(missing_ok=True)
    else:
        write_whole(png_path, files.depth_png)
    write_whole(json_path, files.json)


def read_sidecar(path_stem: Path, *, depth: bool = True) -> Sidecar:
    """The cues of a frame; `depth_m` stays None with `depth=False` and where the frame has none.

    FileNotFoundError where a file is missing, ValueError where one is broken; both name it and the remedy.
    """
    json_path, png_path = sidecar_paths(path_stem.parent, path_stem.name)
    try:
        content = json_path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{json_path} is missing; run preprocess.py on its image first") from None
    try:
        sidecar = _from_json(orjson.loads(content))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        reason = f"has no '{error.args[0]}'" if isinstance(error, KeyError) else f"is broken ({error})"
        raise ValueError(f"{json_path} {reason}; {REMEDY}") from None
    if not depth or sidecar.depth_size is None:
        return sidecar
    return Sidecar(**{**vars(sidecar), "depth_m": _read_depth(png_path, sidecar.depth_size)})


def is_complete(path_stem: Path, *, depth: bool) -> bool:
    """The frame's JSON is whole, and its depth PNG is there where `depth` is wanted. Decodes no picture."""
    json_path, png_path = sidecar_paths(path_stem.parent, path_stem.name)
    try:
        has_depth = _from_json(orjson.loads(json_path.read_bytes())).depth_size is not None
        return not depth or (has_depth and png_path.stat().st_size > 0)
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
        return False


def estimators_in(content: bytes) -> dict[str, dict[str, Any]]:
    """Whose work a sidecar's JSON is; {} where it does not say."""
    try:
        return dict(orjson.loads(content)["estimators"])
    except (KeyError, TypeError, ValueError):
        return {}


def encode_depth_png(depth_m: np.ndarray) -> bytes:
    """[h w] metres -> 16-bit grey PNG in millimetres. NaN and negative become 0 (unknown); 65.535 m saturates."""
    done, buffer = cv2.imencode(".png", _millimetres(depth_m), PNG_PARAMETERS)
    assert done
    return buffer.tobytes()


def decode_depth_png(png: bytes) -> np.ndarray:
    """16-bit grey PNG in millimetres -> float32 [h w] metres. ValueError for anything else."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED) if png else None
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise ValueError("not a 16-bit grey PNG")
    return pixels.astype(np.float32) / np.float32(1000.0)


def _millimetres(depth_m: np.ndarray) -> np.ndarray:
    """[h w] metres -> uint16 [h w]."""
    clean = np.nan_to_num(depth_m, nan=0.0, posinf=DEPTH_LIMIT_MM / 1e3, neginf=0.0)
    return np.rint(np.clip(clean * 1e3, 0, DEPTH_LIMIT_MM)).astype(np.uint16)


def _read_depth(png_path: Path, size_wh: tuple[int, int]) -> np.ndarray:
    try:
        depth_m = decode_depth_png(png_path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{png_path} is missing; run preprocess.py on its image again") from None
    except ValueError as error:
        raise ValueError(f"{png_path} is broken ({error}); {REMEDY}") from None
    if depth_m.shape != size_wh[::-1]:
        found = f"{depth_m.shape[1]}x{depth_m.shape[0]}"
        raise ValueError(f"{png_path} is {found} px, but its JSON says {size_wh[0]}x{size_wh[1]}; {REMEDY}")
    return depth_m


def _to_json(sidecar: Sidecar) -> dict[str, Any]:
    depth = sidecar.depth_m
    stored_mm = np.zeros(0) if depth is None else _millimetres(depth)
    known_mm = stored_mm[stored_mm > 0]
    return {
        "image_size": list(sidecar.image_size_wh),
        "depth_size": None if depth is None else [depth.shape[1], depth.shape[0]],
        "depth_min": float(known_mm.min()) / 1e3 if known_mm.size else None,
        "depth_max": float(known_mm.max()) / 1e3 if known_mm.size else None,
        "focal_px": sidecar.focal_px,
        "keypoint_skeleton": sidecar.keypoint_skeleton,
        "people": [
            {
                "box": _plain(person.box_px),
                "score": float(person.score),
                "keypoints": _plain(person.keypoints_px),
                "confidences": _plain(person.keypoint_score),
            }
            for person in sidecar.people
        ],
        "estimators": sidecar.estimators,
    }


def _plain(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)


def _from_json(data: dict[str, Any]) -> Sidecar:
    width, height = (int(side) for side in data["image_size"])
    depth_size = data["depth_size"]
    joints = len(get_skeleton(data["keypoint_skeleton"]))
    return Sidecar(
        image_size_wh=(width, height),
        people=[
            Person(
                box_px=_array(person["box"], (4,), "box"),
                score=float(person["score"]),
                keypoints_px=_array(person["keypoints"], (joints, 2), "keypoints"),
                keypoint_score=_array(person["confidences"], (joints,), "confidences"),
            )
            for person in data["people"]
        ],
        keypoint_skeleton=data["keypoint_skeleton"],
        depth_size=None if depth_size is None else (int(depth_size[0]), int(depth_size[1])),
        depth_min_m=data["depth_min"],
        depth_max_m=data["depth_max"],
        focal_px=data["focal_px"],
        estimators=data["estimators"],
    )


def _array(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    array = np.array(values, dtype=np.float32)  # null, which JSON has for NaN, becomes NaN
    if array.shape != shape:
        raise ValueError(f"'{name}' has shape {list(array.shape)}, not {list(shape)}")
    return array
