"""Who may import whom: each row uses only the rows above it, and the data tools do without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "humanpose3d"
ROWS = [
    {"skeletons", "camera", "rotations", "model_config", "config"},
    {"sample", "reports", "residuals", "joint_definitions", "smoothing", "bvh"},
    {"files", "warp"},
    {"engines"},
    {"video", "checks"},
    {"sources", "sidecars", "remotes", "studio", "images", "webcam"},
    {"shards"},
    {"chunks", "models", "visualize", "frames"},
    {"loss", "metrics", "runs"},
    {"estimators", "dataset", "tasks"},
    {"pipeline"},
    {"tracks"},
    {"takes"},
    {"training_sets"},
    {"starting", "evaluate"},
    {"preprocess", "train", "inference", "fit_body", "inspect", "installation"},
    {"planning"},
    {"cli"},
    {"__main__"},
]
ROW = {room: number for number, rooms in enumerate(ROWS) for room in rooms}
WITHOUT_TORCH = set().union(*ROWS[:6]) | {"chunks", "frames", "shards", "inspect", "runs", "cli"}


def modules():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written out in full"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "humanpose3d"
                else [node.module]
            )
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("humanpose3d.")}
    return rooms


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_the_rows_above_its_own(path):
    room = room_of(path)
    assert room in ROW, f"{path} is in no room of the plan; add it to ROWS and to the README's tree"
    wrong = {other for other in imported_rooms(path) if other != room and ROW[other] >= ROW[room]}
    assert not wrong, f"{path} imports {wrong}, which stand in its own row or below"


def test_data_tools_start_without_torch():
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in modules()]
    light = [name.removesuffix(".__init__") for name in names if name.split(".")[1] in WITHOUT_TORCH]
    heavy = "[name for name in ('torch', 'ultralytics', 'transformers', 'webdataset') if name in sys.modules]"
    code = f"import sys; import {', '.join(light)}; print(*{heavy})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.stdout.strip(), run.stderr) == ("", "")


def test_no_room_is_called_utils():
    assert not [path for path in modules() if path.stem in ("utils", "helpers")]
