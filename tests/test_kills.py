"""A dozen `kill -9` at random moments of real stages; benchmarks/kills.py does hundreds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.kills import STAGES, Rig, Size, hashes, quotas, rig, torment

SMALL = Size(subjects=("S1", "S9"), frames=1, image_size=64, copies=2, chunk_size=50, photographs=1)
KILLS = {"chunk, two workers": 2, "split": 3, "rechunk on a remote": 4, "index": 3}


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("kills"), SMALL) as made:
        yield made


@pytest.mark.parametrize("name", KILLS)
def test_a_stage_killed_at_random_moments_ends_with_the_same_bytes_and_leaves_nothing(
    surroundings: Rig, name: str
) -> None:
    [stage] = [stage for stage in STAGES if stage.name == name]
    told: list[str] = []
    tally = torment(surroundings, stage, KILLS[name], random.Random(name), told.append)
    assert not tally.faults
    assert tally.kills == KILLS[name] == len(told)
    assert tally.restarts + tally.daemon_kills == tally.kills


def test_a_difference_is_found(surroundings: Rig, tmp_path: Path) -> None:
    """The harness itself: it sees a changed, a missing and an additional file."""
    folder = surroundings.work / "set"
    before = hashes(folder)
    assert before and not [name for name in before if name.endswith("_report.json")]
    index = folder / "index.json"
    data = index.read_bytes()
    index.write_bytes(data + b"\n")
    (folder / ".left.part").touch()
    try:
        changed = {name for name, _ in before.items() ^ hashes(folder).items()}
        assert changed == {"index.json", ".left.part"}
    finally:
        index.write_bytes(data)
        (folder / ".left.part").unlink()


@pytest.mark.parametrize("kills", [11, 200, 537])
def test_every_stage_gets_its_share_of_the_kills(kills: int) -> None:
    counts = quotas(kills, STAGES)
    assert sum(counts) == kills and min(counts) >= 1
