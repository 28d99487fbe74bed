"""Where the estimators' weights are: packaged with us, in our cache, or at a path. Also which device runs them.

Loading them is each estimator's; how the packaged ones were trained, the studio's.
"""

from __future__ import annotations

import hashlib
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

STUDIO = "studio"  # the name of the packaged networks, trained on the studio's people
PACKAGED = {"keypoints": "studio_pose.pt", "depth": "studio_depth"}


def packaged_weights(role: str) -> Path:
    """The packaged weights of 'keypoints' (a file) or 'depth' (a folder)."""
    path = Path(str(resources.files("humanpose3d"))) / "studio" / "weights" / PACKAGED[role]
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; install humanpose3d again, or name other weights")
    return path


def cache_dir() -> Path:
    """Our own folder for downloads: $HUMANPOSE3D_CACHE, else ~/.cache/humanpose3d. Not made here."""
    chosen = os.environ.get("HUMANPOSE3D_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "humanpose3d"


def is_path(model: str) -> bool:
    """Whether a model is named by a place on disk rather than by a bare name or a hub id 'owner/name'."""
    return Path(model).is_absolute() or model.startswith((".", "~")) or model.count("/") > 1 or "\\" in model


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pick_device(name: str) -> torch.device:
    """'auto' -> the GPU where there is one, else the CPU; any other name as torch knows it. ValueError where absent."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device '{name}' cannot be used here ({reason}); give --device auto or cpu") from None
    return device
