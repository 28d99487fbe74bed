"""--shard i/n: every task is one shard's, and the last report gathers them all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from humanpose3d.remotes import LocalStore
from humanpose3d.reports import StageReport
from humanpose3d.shards import Shard, write_shard_report


def test_every_task_is_dealt_to_one_shard() -> None:
    dealt = [list(Shard(number, 3).deal(range(10))) for number in (1, 2, 3)]
    assert sorted(sum(dealt, [])) == list(range(10)) and max(map(len, dealt)) - min(map(len, dealt)) <= 1


@pytest.mark.parametrize("count", [0, 2, 10])
def test_every_stretch_is_one_shards(count: int) -> None:
    stretches = [shard.stretch(count) for shard in Shard(1, 3).all]
    assert [number for stretch in stretches for number in stretch] == list(range(count))
    assert max(map(len, stretches)) - min(map(len, stretches)) <= 1


def test_a_shards_file_is_its_own_and_tells_whose_it_is() -> None:
    assert Shard(3, 8).name("building.json") == "building.3-of-8.json" and Shard().name("a.json") == "a.json"
    assert Shard.of_name("building.3-of-8.json", "building.json") == Shard(3, 8)
    assert Shard.of_name("building.json", "building.json") is Shard.of_name("split.3-of-8.json", "a.json") is None


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "a/b", "1/0", "-1/4", "1/4/2"])
def test_a_shard_that_cannot_be_is_one_clear_line(text: str) -> None:
    with pytest.raises(ValueError, match=f"--shard {text}: write i/n"):
        Shard.parse(text)
    assert Shard.parse("4/4") == Shard(4, 4)


def test_the_last_report_gathers_them_all(tmp_path: Path) -> None:
    for number in (2, 1):
        report = StageReport("preprocess", inputs=10)
        report.count("frames", 10 - number)
        report.skip(f"image {number}", "unreadable image")
        is_last = write_shard_report(LocalStore(tmp_path), report, Shard(number, 2))
        assert is_last == (number == 1)
    whole = json.loads((tmp_path / "preprocess_report.json").read_bytes())
    assert whole["inputs"] == 20 and whole["counts"] == {"frames": 17} and whole["shards"] == 2
    assert whole["skipped"] == {"unreadable image": {"count": 2, "inputs": ["image 1", "image 2"]}}
