"""Sets of chunks: the same bytes every time, readable by the stock library, resumable, and never half there."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import webdataset
from PIL import Image

from humanpose3d.chunks.codec import BadSample, decode_sample, encode_sample
from humanpose3d.chunks.layout import BUILDING, INDEX, read_index
from humanpose3d.chunks.write import ChunkSetWriter
from humanpose3d.remotes import Store, open_store
from humanpose3d.sample import PoseSample
from tests.chunks.sets import hashes, samples_of, write_set


class Killed(BaseException):
    """Stands for a process that ends without a word."""


def writer_of(store: Store, folder: Path, *, plan: dict[str, Any] | None = None, **options: Any) -> ChunkSetWriter:
    settings: dict[str, Any] = {"prefix": "chunk", "chunk_size": 4, "compress": "none", "staging": folder / "staging"}
    return ChunkSetWriter(store, plan=plan or {"stage": "test"}, state=dict, **(settings | options))


@pytest.mark.parametrize("compress", ["none", "gz"])
def test_the_same_samples_give_the_same_bytes(tmp_path: Path, compress: str) -> None:
    for name in ("first", "second"):
        write_set(tmp_path / name, samples_of(11, window=3), chunk_size=4, compress=compress)
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")
    expected = {INDEX} | {f"chunk_00000{n}.tar" + (".gz" if compress == "gz" else "") for n in range(3)}
    idx = {f"chunk_00000{n}.idx" for n in range(3)} if compress == "none" else set()
    assert set(hashes(tmp_path / "first")) == expected | idx


def test_members_lie_side_by_side_in_the_documented_order(tmp_path: Path) -> None:
    write_set(tmp_path, samples_of(2, window=3))
    with tarfile.open(tmp_path / "chunk_000000.tar") as tar:
        members = tar.getmembers()
    assert [member.name.split(".", 1)[1] for member in members] == [
        "image.jpg",
        "depth.png",
        "window.npy",
        "meta.json",
    ] * 2
    assert all(len(member.name) < 100 and " " not in member.name for member in members)
    assert {(member.uid, member.gid, member.uname, member.gname, member.mtime) for member in members} == {
        (0, 0, "", "", 0)
    }
    assert (tmp_path / "chunk_000000.tar").read_bytes()[257:263] == b"ustar\x00"


@pytest.mark.parametrize("compress", ["none", "gz"])
def test_the_stock_webdataset_reads_our_chunks(tmp_path: Path, compress: str) -> None:
    samples = samples_of(5, window=3)
    write_set(tmp_path, samples, compress=compress)
    path = tmp_path / ("chunk_000000.tar" + (".gz" if compress == "gz" else ""))
    found = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [each["__key__"] for each in found] == [sample.key for sample in samples]
    for sample, each in zip(samples, found, strict=True):
        members = {name: data for name, data in each.items() if not name.startswith("_")}
        assert members == encode_sample(sample)
        depth_m = np.asarray(Image.open(io.BytesIO(each["depth.png"]))).astype(np.float32) / 1000
        np.testing.assert_allclose(depth_m, sample.depth_m, atol=1e-6)
        assert Image.open(io.BytesIO(each["image.jpg"])).size == sample.image_size_wh
        assert decode_sample(sample.key, members).subject == sample.subject


def test_stock_decoding_opens_the_json_and_the_window(tmp_path: Path) -> None:
    write_set(tmp_path, samples_of(2, window=3))
    for each in webdataset.WebDataset(str(tmp_path / "chunk_000000.tar"), shardshuffle=False).decode():
        assert each["window.npy"].shape == (3, 17, 3) and each["meta.json"]["skeleton"] == "h36m_17"


@pytest.mark.parametrize("compress", ["none", "gz"])
@pytest.mark.parametrize("killed_at", [0, 1, 4, 6, 8, 10])
def test_a_writer_killed_anywhere_ends_with_the_same_bytes(tmp_path: Path, killed_at: int, compress: str) -> None:
    samples = samples_of(11)
    seen: list[int] = []
    for name in ("whole", "cut"):
        for limit in (99,) if name == "whole" else (killed_at, 99):
            seen = []
            try:
                with writer_of(open_store(tmp_path / name), tmp_path, compress=compress) as writer:
                    for position, sample in enumerate(samples):
                        if writer.wants(position):
                            if position == limit:
                                # as kill -9: neither discard nor any other clean-up
                                writer._open = None
                                raise Killed
                            seen.append(position)
                            writer.write(position, sample.key, encode_sample(sample))
                    writer.finish()
            except Killed:
                with pytest.raises(ValueError, match="unfinished"):
                    read_index(open_store(tmp_path / name))
    # What a resumed run writes again is at most the chunk it was cut off in.
    assert seen[0] == killed_at // 4 * 4
    assert hashes(tmp_path / "whole") == hashes(tmp_path / "cut")


def test_a_process_killed_without_warning_leaves_a_set_that_can_be_finished(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from tests.chunks.sets import samples_of\n"
        "from tests.chunks.test_write import writer_of; from humanpose3d.chunks.codec import encode_sample\n"
        "from humanpose3d.remotes import open_store; folder = Path(os.environ['FOLDER'])\n"
        "with writer_of(open_store(folder / 'cut'), folder) as writer:\n"
        "    for position, sample in enumerate(samples_of(11)):\n"
        "        if position == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        writer.write(position, sample.key, encode_sample(sample))\n"
    )
    root = Path(__file__).parents[2]
    env = os.environ | {"FOLDER": str(tmp_path), "PYTHONPATH": f"{root}:{root / 'src'}"}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False, cwd=root).returncode == -9
    assert list((tmp_path / "cut").glob(".*.part"))
    for name in ("cut", "whole"):
        with writer_of(open_store(tmp_path / name), tmp_path) as writer:
            for position, sample in enumerate(samples_of(11)):
                if writer.wants(position):
                    writer.write(position, sample.key, encode_sample(sample))
            writer.finish()
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_a_finished_set_wants_nothing_more(tmp_path: Path) -> None:
    for expected in (True, False):
        with writer_of(open_store(tmp_path), tmp_path) as writer:
            assert writer.wants(0) == expected
            for position, sample in enumerate(samples_of(3)):
                if writer.wants(position):
                    writer.write(position, sample.key, encode_sample(sample))
            assert writer.finish().samples == 3


def test_a_finished_set_of_other_settings_is_not_touched(tmp_path: Path) -> None:
    write_set(tmp_path / "set", samples_of(3))
    before = hashes(tmp_path / "set")
    with pytest.raises(ValueError, match=r"finished set of other settings or other input \(samples\)"):
        write_set(tmp_path / "set", samples_of(4))
    assert hashes(tmp_path / "set") == before


def test_an_unfinished_set_of_other_settings_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(Killed), writer_of(open_store(tmp_path), tmp_path, plan={"seed": 1}):
        raise Killed
    with pytest.raises(ValueError, match=r"unfinished set of other settings or other input \(seed\)"):
        writer_of(open_store(tmp_path), tmp_path, plan={"seed": 2})


def test_a_second_start_is_refused_and_leaves_the_first_ones_files_alone(tmp_path: Path) -> None:
    write = (writer_of(open_store(tmp_path / name), tmp_path) for name in ("whole", "set"))
    for name, writer in zip(("whole", "set"), write, strict=True):
        with writer:
            for position, sample in enumerate(samples_of(7)):
                writer.write(position, sample.key, encode_sample(sample))
                if name == "set" and position in (1, 5):
                    with pytest.raises(BlockingIOError, match="another run is writing to .*set; wait for it, or give"):
                        writer_of(open_store(tmp_path / "set"), tmp_path)
            writer.finish()
    assert hashes(tmp_path / "set") == hashes(tmp_path / "whole")
    with writer_of(open_store(tmp_path / "set"), tmp_path) as again:
        assert again.is_done


def test_somebody_elses_chunks_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "train_0000.tar.gz").write_bytes(b"precious")
    with pytest.raises(ValueError, match="chunks that this command did not write"):
        writer_of(open_store(tmp_path), tmp_path)
    assert not (tmp_path / BUILDING).exists()


def test_a_finished_chunk_that_was_changed_stops_a_resume(tmp_path: Path) -> None:
    samples = samples_of(6)
    with pytest.raises(Killed), writer_of(open_store(tmp_path), tmp_path) as writer:
        for position, sample in enumerate(samples):
            writer.write(position, sample.key, encode_sample(sample))
        raise Killed
    (tmp_path / "chunk_000000.tar").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"chunk_000000\.tar is not as it was written"):
        writer_of(open_store(tmp_path), tmp_path)


def test_a_set_without_a_sample_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with writer_of(open_store(tmp_path), tmp_path) as writer:
        with pytest.raises(ValueError, match="no sample is left to write to .*: all were broken"):
            writer.finish("all were broken")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": "two.dots"}, "its key"),
        ({"key": "k" * 95}, "over 99 bytes"),
        ({"skeleton": "coco_17"}, "is not the set's"),
    ],
)
def test_a_sample_that_cannot_stand_in_a_chunk_is_refused_and_the_rest_goes_on(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    first, second, third = samples_of(3)
    with writer_of(open_store(tmp_path), tmp_path) as writer:
        writer.write(0, first.key, encode_sample(first))
        bad = second.with_(**changes)
        with pytest.raises(BadSample, match=reason):
            writer.write(1, bad.key, encode_sample(bad))
        with pytest.raises(BadSample, match="used twice"):
            writer.write(1, first.key, encode_sample(first))
        writer.write(2, third.key, encode_sample(third))
        assert writer.finish().samples == 2


def test_members_we_do_not_know_are_kept(tmp_path: Path) -> None:
    members = {"zebra.txt": b"z", **encode_sample(PoseSample("a")), "ant.txt": b"a"}
    with writer_of(open_store(tmp_path), tmp_path) as writer:
        writer.write(0, "a", members)
        writer.finish()
    with tarfile.open(tmp_path / "chunk_000000.tar") as tar:
        assert tar.getnames() == ["a.meta.json", "a.ant.txt", "a.zebra.txt"]


def test_chunks_go_to_a_remote_and_nothing_stays_behind(tmp_path: Path, s3_remote: Any) -> None:
    write_set(s3_remote.location, samples_of(11), chunk_size=4, staging=tmp_path / "staging")
    write_set(tmp_path / "local", samples_of(11), chunk_size=4)
    assert hashes(s3_remote.folder) == hashes(tmp_path / "local")
    assert not list((tmp_path / "staging").iterdir())


def test_a_full_disk_is_one_line_and_finished_chunks_stay(tmp_path: Path) -> None:
    samples = samples_of(11)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with writer_of(open_store(tmp_path), tmp_path) as writer:
        for position, sample in enumerate(samples[:5]):
            writer.write(position, sample.key, encode_sample(sample))
        huge = samples[5].with_(provenance={"text": "x" * 400_000})
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # what the system refuses beyond, as on a full disk
        try:
            with pytest.raises(OSError, match="cannot be written .*: finished chunks are kept"):
                for position in range(5, 9):
                    writer.write(position, f"k{position}", encode_sample(huge.with_(key=f"k{position}")))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    saved = orjson.loads((tmp_path / BUILDING).read_bytes())
    assert [entry["file"] for entry in saved["chunks"]] == ["chunk_000000.tar"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [BUILDING, "chunk_000000.idx", "chunk_000000.tar"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"file/set cannot be written \(Not a directory\); mend that"):
        writer_of(open_store(tmp_path / "file" / "set"), tmp_path)
