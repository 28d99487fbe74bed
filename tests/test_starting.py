"""Where a training begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from humanpose3d.config import TrainConfig
from humanpose3d.remotes import open_store
from humanpose3d.starting import _labels
from tests.dataset.chunk_sets import write_set


def test_labels_looked_at_before_a_training_come_into_its_own_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_set(tmp_path / "set", 4, 2, compress="gz", image=False, depth=False)
    config = TrainConfig(chunks_dir=str(folder), cache_dir=tmp_path / "cache")
    assert _labels(config, open_store(folder))[0, 0].joints_cam_m is not None
    assert list((tmp_path / "cache" / "chunks").glob("*.tar")) and not (tmp_path / "dataset_cache").exists()
