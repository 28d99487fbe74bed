"""--shard i/n of the stages that write sets: all together write the bytes of one run, in whatever order they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from humanpose3d.chunks import parts, transfer
from humanpose3d.chunks.layout import INDEX, read_index
from humanpose3d.remotes import open_store
from humanpose3d.shards import Shard
from tests.chunks.sets import hashes as all_hashes
from tests.chunks.sets import samples_of, write_set
from tests.chunks.test_layout import write_foreign
from tests.chunks.test_rechunk import killed_at_sample, rewrite, shuffle
from tests.chunks.test_split import SUBJECTS, split

PROJECT = Path(__file__).parents[2]
Stage = Callable[..., Any]


def hashes(folder: Path) -> dict[str, str]:
    """Of all files but the reports, each shard's own too."""
    return {name: value for name, value in all_hashes(folder).items() if "_report." not in name}


def split_parts(tmp_path: Path, source: str | Path, target: str | Path, **changes: Any) -> Any:
    return split(tmp_path, source, target, "S1,S5", "S9", **changes)


STAGES = pytest.mark.parametrize("stage", [shuffle, split_parts])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_set(tmp_path / "chunks", samples_of(40, subjects=SUBJECTS), chunk_size=9)
    return tmp_path / "chunks"


@STAGES
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (5, 4, 9, 1, 2, 3, 8, 6, 7)])
def test_shards_in_any_order_write_the_bytes_of_one_run(
    tmp_path: Path, source: Path, stage: Stage, order: tuple[int, ...]
) -> None:
    whole = stage(tmp_path, source, tmp_path / "whole")
    reports = [stage(tmp_path, source, tmp_path / "parts", shard=f"{number}/{len(order)}") for number in order]
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")
    assert not list((tmp_path / "parts").rglob("building*"))
    assert "all have ended" in reports[-1].summary and "not all ended" in reports[0].summary
    written = orjson.loads((tmp_path / "parts" / f"{whole.stage}_report.json").read_bytes())
    assert written["counts"] == whole.counts and written["inputs"] == whole.inputs and written["shards"] == len(order)
    assert stage(tmp_path, source, tmp_path / "parts", shard=f"1/{len(order)}").counts == reports[order.index(1)].counts


@pytest.mark.parametrize("chunk_size", [3, 7])
def test_shards_leave_out_and_report_what_one_run_does(tmp_path: Path, chunk_size: int) -> None:
    write_foreign(tmp_path / "chunks", 30)
    data = (tmp_path / "chunks" / "foreign-0001.tar").read_bytes()
    (tmp_path / "chunks" / "foreign-0009.tar").write_bytes(data)  # keys used twice

    def damage(name: str, data: bytes) -> bytes | None:
        if name.endswith("png") and int(name.split("-")[4]) % 7 == 3:
            return None
        return b"!" + data if name.endswith("json") and int(name.split("-")[4]) % 5 == 2 else data

    for path in (tmp_path / "chunks").iterdir():
        rewrite(path, damage)
    shuffled = {"chunk_size": chunk_size, "max_bad": 1.0}
    for target, shards in (("whole", Shard(1, 1)), ("parts", Shard(1, 3))):
        for shard in reversed(shards.all):
            shuffle(tmp_path, tmp_path / "chunks", tmp_path / target / "shuffled", shard=str(shard), **shuffled)
            split(
                tmp_path, tmp_path / "chunks", tmp_path / target / "split", "S1", "S9", new_chunk_size=chunk_size,
                shard=str(shard),
            )  # fmt: skip
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")
    for name in ("shuffled/rechunk_report.json", "split/split_report.json"):
        together, whole = (orjson.loads((tmp_path / each / name).read_bytes()) for each in ("parts", "whole"))
        assert together["counts"] == whole["counts"] and whole["skipped"]
        assert {reason: sorted(of["inputs"]) for reason, of in together["skipped"].items()} == {
            reason: sorted(of["inputs"]) for reason, of in whole["skipped"].items()
        }


@STAGES
@pytest.mark.parametrize("killed_at", [1, 6, 13])
def test_a_shard_that_was_cut_off_goes_on_and_leaves_the_others_alone(
    tmp_path: Path, source: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    stage(tmp_path, source, tmp_path / "whole")
    stage(tmp_path, source, tmp_path / "parts", shard="1/2")
    before = hashes(tmp_path / "parts")
    monkeypatch.setattr(transfer, "STRETCH_SAMPLES", 2)
    with killed_at_sample(monkeypatch, killed_at):
        stage(tmp_path, source, tmp_path / "parts", shard="2/2")
    assert before.items() <= hashes(tmp_path / "parts").items()
    with pytest.raises(ValueError, match="is unfinished .*; run them again"):
        read_index(open_store(next((tmp_path / "parts").rglob("building.2-of-2.json")).parent))
    stage(tmp_path, source, tmp_path / "parts", shard="2/2")
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")


def test_a_shard_killed_without_warning_goes_on_beside_one_that_works(tmp_path: Path, source: Path) -> None:
    shuffle(tmp_path, source, tmp_path / "whole", chunk_size=2)
    code = (
        "import os, signal, sys; from humanpose3d.cli import rechunk\n"
        "from humanpose3d.chunks.write import StretchWriter\n"
        "whole, shard = StretchWriter._move, sys.argv[1]\n"
        "def move(writer, path, file):\n"
        "    if file in sys.argv[2:]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    whole(writer, path, file)\n"
        "StretchWriter._move = move\n"
        "sys.exit(rechunk(['--input-dir=chunks', '--output-dir=parts', '--chunk-size=2', f'--shard={shard}']))\n"
    )
    env = os.environ | {"PYTHONPATH": str(PROJECT / "src")}

    def start(shard: str, *deadly: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", code, shard, *deadly], env=env, cwd=tmp_path)

    first, second = start("1/2", "chunk_000004.tar"), start("2/2", "chunk_000013.idx")
    assert (first.wait(120), second.wait(120)) == (-signal.SIGKILL, -signal.SIGKILL)
    both = start("1/2"), start("2/2")  # at once: they end at about the same time
    assert [process.wait(120) for process in both] == [0, 0]
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")


def test_two_that_end_at_once_write_the_same_index(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffle(tmp_path, source, tmp_path / "whole")
    finish = parts.make_index
    at_once = threading.Barrier(2, timeout=30)

    def together(found: Any) -> Any:
        if len(found) > 1:
            at_once.wait()  # both have found that all have ended
        return finish(found)

    monkeypatch.setattr(parts, "make_index", together)

    def run(shard: str) -> None:
        shuffle(tmp_path / shard[0], source, tmp_path / "parts", shard=shard)

    for shard in ("1/2", "2/2"):  # all but their ends
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr("humanpose3d.chunks.write.finish_shards", _cut)
            run(shard)
    threads = [threading.Thread(target=_finish, args=(tmp_path / "parts",), name=f"shard {n}") for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")


def test_the_index_command_ends_what_all_shards_have_written(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shuffle(tmp_path, source, tmp_path / "whole")
    shuffle(tmp_path, source, tmp_path / "parts", shard="1/2")
    assert main_index(tmp_path / "parts") == 2
    assert "is unfinished (its 2 shards have not all ended, not begun: 2); run them again" in capsys.readouterr().err
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("humanpose3d.chunks.write.finish_shards", _cut)
        shuffle(tmp_path, source, tmp_path / "parts", shard="2/2")
    assert (tmp_path / "parts" / "building.2-of-2.json").exists() and not (tmp_path / "parts" / INDEX).exists()
    assert main_index(tmp_path / "parts") == 0
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")


def main_index(folder: Path) -> int:
    from humanpose3d.cli import index

    return index([str(folder)])


@STAGES
def test_a_shard_of_other_settings_is_refused_before_it_writes(tmp_path: Path, source: Path, stage: Stage) -> None:
    setting = {"new_chunk_size": 5} if stage is split_parts else {"seed": 1}
    stage(tmp_path, source, tmp_path / "parts", shard="1/3")
    before = hashes(tmp_path / "parts")
    with pytest.raises(ValueError, match=r"unfinished set of other settings or other input \((seed|chunk_size)\)"):
        stage(tmp_path, source, tmp_path / "parts", shard="2/3", **setting)
    with pytest.raises(ValueError, match="is being written by 3 shards, and --shard 2/4 is of 4; take as many, or"):
        stage(tmp_path, source, tmp_path / "parts", shard="2/4")
    with pytest.raises(ValueError, match="is being written by shards; go on with --shard i/3, or delete it"):
        stage(tmp_path, source, tmp_path / "parts")
    assert hashes(tmp_path / "parts") == before
    stage(tmp_path, source, tmp_path / "whole")
    with pytest.raises(ValueError, match=r"finished set of other settings or other input \((seed|chunk_size)\)"):
        stage(tmp_path, source, tmp_path / "whole", shard="2/3", **setting)


def test_shards_that_began_at_once_with_other_settings_make_no_set(tmp_path: Path, source: Path) -> None:
    shuffle(tmp_path, source, tmp_path / "other", shard="1/2", seed=1)
    shuffle(tmp_path, source, tmp_path / "parts", shard="2/2")
    for path in (tmp_path / "other").iterdir():
        path.rename(tmp_path / "parts" / path.name)
    with pytest.raises(ValueError, match=r"shards 1 and 2 of 2 have other settings or other input \(seed\)"):
        parts.finish_shards(open_store(tmp_path / "parts"))
    assert not (tmp_path / "parts" / INDEX).exists()


def test_a_chunk_that_is_gone_is_named_with_the_shard_to_run_again(tmp_path: Path, source: Path) -> None:
    shuffle(tmp_path, source, tmp_path / "whole")
    shuffle(tmp_path, source, tmp_path / "parts", shard="1/2")
    (tmp_path / "parts" / "chunk_000001.tar").unlink()
    with pytest.raises(ValueError, match=r"chunk_000001.tar is not as it was written; delete building.1-of-2.json"):
        shuffle(tmp_path, source, tmp_path / "parts", shard="2/2")
    (tmp_path / "parts" / "building.1-of-2.json").unlink()
    shuffle(tmp_path, source, tmp_path / "parts", shard="1/2")
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")


def test_damage_of_a_source_chunk_is_found_by_every_shard(tmp_path: Path, source: Path) -> None:
    chunk = sorted(source.glob("*.tar"))[1]
    data = bytearray(chunk.read_bytes())
    data[data.index(b"\xff\xd8\xff") + 200] ^= 0xFF  # inside a JPEG: its ends are well
    chunk.write_bytes(data)
    for shard in ("1/2", "2/2"):
        with pytest.raises(ValueError, match=f"{chunk.name} does not have the checksum that index.json says"):
            shuffle(tmp_path, source, tmp_path / "parts", shard=shard)


@STAGES
@pytest.mark.parametrize("compress", ["none", "gz"])
def test_remote_to_remote_shards_write_the_bytes_of_one_run(
    tmp_path: Path, s3_remote: Any, stage: Stage, compress: str
) -> None:
    samples = samples_of(22, subjects=SUBJECTS)
    for location in (f"{s3_remote.location}/chunks", tmp_path / "chunks"):
        write_set(location, samples, chunk_size=6, compress=compress, staging=tmp_path / "staging")
    stage(tmp_path, tmp_path / "chunks", tmp_path / "out", compress=compress)
    for shard in ("2/2", "1/2"):
        stage(tmp_path, f"{s3_remote.location}/chunks", f"{s3_remote.location}/out", compress=compress, shard=shard)
    assert hashes(s3_remote.folder / "out") == hashes(tmp_path / "out")
    for folder in ("extract", "staging", "temp"):
        assert not (tmp_path / folder).exists() or not list((tmp_path / folder).iterdir())


def _cut(*_: Any) -> None:
    raise KeyboardInterrupt


def _finish(folder: Path) -> None:
    parts.finish_shards(open_store(folder))
