"""Which corpora's formats the studio writes, and by whom."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from humanpose3d.reports import StageReport
from humanpose3d.studio.free_body import write_free_body

WRITERS = ("human36m", "mpi_inf_3dhp", "mpii", "freihand", "threedpw", "mocap")  # studio/<name>.py, write_<name>
BODY = "smpl"  # no corpus: a body in SMPL's file format


def write_corpus(
    *,
    corpus: str,
    out: Path,
    layout: str = "",
    subjects: tuple[str, ...] = (),
    frames_per_take: int = 0,
    size: int = 0,
    seed: int = 0,
    workers: int = 1,
) -> StageReport:
    """Studio people in that corpus's format. Empty or 0: the writer's own default. ValueError lists what there is."""
    if corpus == BODY:
        return write_free_body(out)
    if corpus not in WRITERS:
        raise ValueError(f"the studio does not write '{corpus}'; it writes {', '.join((*WRITERS, BODY))}")
    module = import_module(f"humanpose3d.studio.{corpus}")
    if layout and layout not in module.LAYOUTS:
        raise ValueError(f"the studio writes {corpus} as {', '.join(module.LAYOUTS)}, not as '{layout}'")
    chosen: dict[str, Any] = {"layout": layout, "subjects": subjects, "frames_per_take": frames_per_take, "size": size}
    given = {name: value for name, value in chosen.items() if value}
    return getattr(module, f"write_{corpus}")(out, seed=seed, workers=workers, **given)
