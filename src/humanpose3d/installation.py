"""What is installed here, what is not, and what to do about it: `humanpose3d doctor-install`.

Looks and downloads nothing. What is missing is wrong only where a stage cannot do without it; the rest is a note.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from humanpose3d.remotes import configured_remotes, rclone_binary
from humanpose3d.reports import StageReport

OLDEST, NEWEST = (3, 11), (3, 13)
YOLO, DEPTH = "yolo11x-pose", "apple/DepthPro-hf"  # what preprocess.py and infer.py take by default
DEPTH_FILES = ("config.json", "model.safetensors")
ROOM_GB = 10.0  # below which a note is made of the disk
GIB = 2**30
IMPORT_REMEDY = "pip install -e . -c constraints.txt in humanpose3d's folder (of a lib*.so: README, Troubleshooting)"


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    state: Literal["ok", "note", "missing"]  # missing: something cannot run
    told: str
    remedy: str = ""


def examine(cache: Path) -> StageReport:
    """Print what is there, and what to do about what is not. Faults of the report are what is missing.

    cache: the folder that main.py would keep remote chunks in.
    """
    report = StageReport("doctor-install")
    findings = list(_findings(cache))
    width = max(len(each.what) for each in findings)
    for each in findings:
        print(f"{each.state:<8}{each.what:<{width}}  {each.told}")
        if each.state == "missing":
            report.fault(f"{each.what}: {each.told}; {each.remedy}")
        elif each.remedy:
            report.note(f"{each.what}: {each.remedy}")
    report.facts["findings"] = [vars(each) for each in findings]
    missing = sum(each.state == "missing" for each in findings)
    report.summary = "all that the stages need is here" if not missing else f"{missing} things are missing"
    return report


def _findings(cache: Path) -> Iterator[Finding]:
    yield _python()
    yield from _packages()
    for what, look in (
        ("GPU", _torch), ("rclone", _rclone), ("remotes", _remotes), ("YOLO weights", _yolo), ("DepthPro", _depth),
        ("our lifters", _own_checkpoints),
    ):  # fmt: skip
        try:
            yield look()
        except ImportError as error:
            yield Finding(what, "missing", f"cannot be looked at: {error}", IMPORT_REMEDY)
    yield _room(cache)


def _python() -> Finding:
    version = platform.python_version()
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return Finding("Python", "ok", f"{version}, {sys.executable}")
    return Finding("Python", "missing", version, "humanpose3d needs 3.11 to 3.13: make PYTHON=python3.12 ...")


def _packages() -> Iterator[Finding]:
    """Of those that we require, which are absent; and the versions of the heavy ones."""
    try:
        required = metadata.requires("humanpose3d") or []
    except metadata.PackageNotFoundError:
        yield Finding("humanpose3d", "missing", "not installed", "pip install -e . -c constraints.txt in its folder")
        return
    names = [re.split(r"[<>=!~;\[ ]", line)[0] for line in required if "extra ==" not in line]
    absent = []
    for name in names:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(name)
    if absent:
        told = f"without {', '.join(absent)}"
        yield Finding("packages", "missing", told, "pip install -e . -c constraints.txt in humanpose3d's folder")
    else:
        shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "ultralytics", "transformers"))
        yield Finding("packages", "ok", f"all {len(names)}; {shown}")


def _torch() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        memory = torch.cuda.get_device_properties(0).total_memory / GIB
        return Finding("GPU", "ok", f"{', '.join(names)}; {memory:.0f} GiB, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        return Finding("GPU", "ok", "Apple's")
    tiles = ", with tiles for 16 bits (AMX)" if torch.cpu._is_amx_tile_supported() else ""
    told = f"none that torch {torch.__version__} can use; {os.cpu_count()} CPU cores{tiles}"
    remedy = "with an NVIDIA card, update its driver, or install the torch build for it (pytorch.org)"
    return Finding("GPU", "note", told, remedy)


def _rclone() -> Finding:
    try:
        return Finding("rclone", "ok", str(rclone_binary()))
    except FileNotFoundError as error:
        return Finding("rclone", "missing", "none", str(error))


def _remotes() -> Finding:
    try:
        names = [name.rstrip(":") for name in configured_remotes()]
    except OSError as error:
        return Finding("remotes", "note", f"cannot be listed ({error})", "rclone listremotes tells why")
    if names:
        return Finding("remotes", "ok", ", ".join(names))
    return Finding("remotes", "note", "none", "only for chunks in the cloud: rclone config")


def _yolo() -> Finding:
    from humanpose3d.estimators.weights import cache_dir

    places = (Path(f"{YOLO}.pt"), cache_dir() / "weights" / f"{YOLO}.pt")
    for place in places:
        if place.is_file():
            return Finding("YOLO weights", "ok", str(place))
    return Finding(
        "YOLO weights", "note", f"{YOLO}.pt is not here", f"downloaded on first use; or put it at {places[1]}"
    )


def _depth() -> Finding:
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(DEPTH, name) for name in DEPTH_FILES]
    if all(isinstance(path, str) for path in paths):
        return Finding("DepthPro", "ok", str(Path(str(paths[0])).parent))
    remedy = "downloaded on first use; or give --depth-model a folder, or --no-depth"
    return Finding("DepthPro", "note", f"{DEPTH} is not in Hugging Face's cache", remedy)


def _own_checkpoints() -> Finding:
    from humanpose3d.models.checkpoint import PACKAGED, load_model

    try:
        for name in PACKAGED:
            load_model(name)
    except (OSError, ValueError) as error:
        return Finding("our lifters", "missing", str(error), "install humanpose3d again")
    return Finding("our lifters", "ok", ", ".join(PACKAGED))


def _room(cache: Path) -> Finding:
    there = next(path for path in (cache.absolute(), *cache.absolute().parents) if path.exists())
    free_gb = shutil.disk_usage(there).free / 1e9
    told = f"{free_gb:.0f} GB free in {there}"
    if free_gb < ROOM_GB:
        return Finding("disk", "note", told, "chunks of a remote are kept there: --cache-dir, --cache-gb")
    return Finding("disk", "ok", told)
