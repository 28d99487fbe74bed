"""The cost calculator: its sums by hand, its requests as a drive counts them, its measurement on this machine."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from humanpose3d.chunks.rechunk import rechunk
from humanpose3d.planning import Measured, chunk_files, costs, files_read, plan
from humanpose3d.remotes import open_store
from humanpose3d.remotes.drive import RcloneStore
from tests.conftest import S3Remote
from tests.records import random_samples
from tests.sets import write_set

MEASURED = Measured(
    preprocess_s=0.5, chunk_s=0.02, split_s=1e-4, rechunk_s=2e-4, frame_bytes=3e5, sidecar_bytes=1e5, sample_bytes=5e4
)


def test_costs_are_the_measured_ones_multiplied() -> None:
    rows = {row.stage: row for row in costs(MEASURED, 1_000_000, gpus=4, workers=8)}
    assert [rows[stage].seconds for stage in ("preprocess", "chunk", "split", "rechunk")] == pytest.approx(
        [125_000, 2_500, 100, 200]
    )
    assert rows["preprocess"].read_bytes == 3e11 and rows["preprocess"].written_bytes == 1e11
    assert rows["chunk"].read_bytes == 4e11 and rows["chunk"].written_bytes == 5e10
    assert rows["chunk"].requests == 3 * 200 + 2, "200 chunks of 5000"
    assert rows["split"].requests == 200 + 1 + 3 * 500 + 2, "500 of 2000"
    assert rows["rechunk"].requests == 500 + 1 + 3 * 125 + 2, "125 of 8000"


def test_the_requests_are_those_that_a_drive_sees(s3_remote: S3Remote, tmp_path: Any, monkeypatch: Any) -> None:
    write_set(tmp_path / "set", random_samples(np.random.default_rng(0), 30), chunk_size=10)
    for path in (path for path in (tmp_path / "set").iterdir() if path.is_file()):
        open_store(f"{s3_remote.location}/set").put(path, path.name)
    seen: Counter[str] = Counter()
    for name in ("put", "get", "read_bytes"):
        monkeypatch.setattr(RcloneStore, name, _counting(name, getattr(RcloneStore, name), seen))
    rechunk(
        input_dir=f"{s3_remote.location}/set", output_dir=f"{s3_remote.location}/out", chunk_size=5, seed=0,
        shuffle=True, keep_extracted_originals=False, compress="none", temp_dir=tmp_path, workers=2, max_bad=0.0,
    )  # fmt: skip
    report = 1  # rechunk_report.json
    assert seen["put"] - report == chunk_files(30, 5)
    assert seen["get"] + seen["read_bytes"] == files_read(30, 10)


def _counting(name: str, method: Any, seen: Counter[str]) -> Any:
    def counted(*args: Any, **settings: Any) -> Any:
        seen[name] += 1
        return method(*args, **settings)

    return counted


def test_this_machine_is_measured_at_every_stage(tiny_pose_model: str, tiny_depth_model: str) -> None:
    report = plan(
        frames=1e6, gpus=2, workers=3, frame_size=96, yolo_model=tiny_pose_model, depth_model=tiny_depth_model,
        no_depth=False, device="cpu", precision="32", batch_size=2, seconds=1.0,
    )  # fmt: skip
    measured = report.facts["measured"]
    assert all(value > 0 for value in measured.values())
    assert measured["sample_bytes"] < 1e5 and measured["chunk_s"] < 1
    lines = report.summary.splitlines()
    assert lines[0].startswith("1000000 frames, 2 devices") and len(lines) == 7
    assert [line.split()[0] for line in lines[2:]] == ["preprocess", "chunk", "split", "rechunk", "all"]
    assert any("this CPU's rate" in note for note in report.notes)
