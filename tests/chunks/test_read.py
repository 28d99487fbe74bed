"""Chunks read in place: ours, other programs', and damaged ones."""

from __future__ import annotations

import gzip
import io
import pickle
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humanpose3d.chunks.codec import BadSample, encode_sample
from humanpose3d.chunks.layout import read_index
from humanpose3d.chunks.read import OffsetTable, borrowed_chunk, idx_path, open_chunk, split_name
from humanpose3d.remotes import open_store
from humanpose3d.remotes.daemon import SWITCH
from tests.chunks.sets import samples_of, write_set


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    write_set(tmp_path / "set", samples_of(6, window=3))
    return tmp_path / "set" / "chunk_000000.tar"


def test_any_sample_is_read_in_place(tar: Path) -> None:
    samples = samples_of(6, window=3)
    chunk = open_chunk(tar)
    assert len(chunk) == 6
    for index in (5, 0, 3):
        assert chunk.key(index) == samples[index].key
        assert chunk.read(index) == encode_sample(samples[index])
    assert list(chunk.read(2, ("meta.json", "nothing"))) == ["meta.json"]


def test_a_chunk_without_its_idx_reads_the_same(tar: Path) -> None:
    with_idx = [open_chunk(tar).read(index) for index in range(6)]
    idx_path(tar).unlink()
    assert [open_chunk(tar).read(index) for index in range(6)] == with_idx


def test_an_idx_of_another_tar_is_not_believed(tar: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "other", samples_of(6, depth=False))
    idx_path(tar).write_bytes((tmp_path / "other" / "chunk_000000.idx").read_bytes())
    assert open_chunk(tar).read(5) == encode_sample(samples_of(6, window=3)[5])


def test_the_idx_is_what_dalis_own_tool_would_write(tar: Path) -> None:
    listing = subprocess.run(["tar", "--list", "--block-number", "--file", tar], capture_output=True, check=True)
    lines = ["v1.2 6"]
    sizes = {member.name: member.size for member in tarfile.open(tar)}
    for line in listing.stdout.decode().splitlines():
        block, name = line.removeprefix("block ").split(": ")
        if "*" in name:
            continue  # the end of the archive
        key, extension = name.split(".", 1)
        field = f"{extension} {(int(block) + 1) * 512} {sizes[name]} {name}"
        if lines[-1].split(" ")[-1].split(".")[0] == key:
            lines[-1] += f" {field}"
        else:
            lines.append(field)
    assert idx_path(tar).read_text().splitlines() == lines


def test_a_saved_table_loads_as_it_was(tar: Path, tmp_path: Path) -> None:
    table = OffsetTable.scan(tar)
    table.save(tmp_path / "copy.idx")
    loaded = OffsetTable.load(tmp_path / "copy.idx")
    np.testing.assert_array_equal(table.offsets, loaded.offsets)
    np.testing.assert_array_equal(table.sizes, loaded.sizes)
    assert (table.keys.tolist(), table.extensions) == (loaded.keys.tolist(), loaded.extensions)


def test_a_chunk_travels_to_another_process(tar: Path) -> None:
    chunk = open_chunk(tar)
    chunk.read(0)
    assert pickle.loads(pickle.dumps(chunk)).read(1) == chunk.read(1)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_of_other_programs_are_read(tmp_path: Path, form: int) -> None:
    long = "k" * 120  # over a header's 100 bytes: each format has its own way around
    (tmp_path / "files").mkdir()
    names = [f"{long if form != tarfile.USTAR_FORMAT else 'short'}.a", ".hidden", "other.x.y", "other.z"]
    for name in names:
        (tmp_path / "files" / name).write_bytes(name.encode() * 300)
    path = tmp_path / "foreign.tar"
    with tarfile.open(path, "w", format=form) as tar:
        tar.add(tmp_path / "files", arcname=".", recursive=False)
        for name in names:
            tar.add(tmp_path / "files" / name, arcname=f"./{name}")
    chunk = open_chunk(path)
    assert [chunk.key(index) for index in range(len(chunk))] == [names[0][:-2], "other"]
    assert chunk.read(1) == {"x.y": b"other.x.y" * 300, "z": b"other.z" * 300}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_where_the_standard_library_finds_them(tmp_path: Path, form: int) -> None:
    path = tmp_path / "foreign.tar"
    with tarfile.open(path, "w", format=form) as tar:
        # plain; with a prefix, or a header of its own; not in ASCII; of exactly a header's 100 bytes; empty
        for name in ("plain.a", f"{'folder/' * 20}deep.a", "größe.a", f"{'n' * 98}.a", "empty.a"):
            info = tarfile.TarInfo(name)
            info.size = 0 if name == "empty.a" else 700
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    table = OffsetTable.scan(path)
    with tarfile.open(path) as tar:
        told = [(member.name, member.offset_data, member.size) for member in tar]
    assert [
        (f"{table.key(number)}.a", int(table.offsets[number, 0]), int(table.sizes[number, 0]))
        for number in range(len(table))
    ] == told


def test_a_key_ends_at_the_first_dot_of_the_file_name() -> None:
    assert split_name("./a.b/c.image.jpg") == ("a.b/c", "image.jpg")
    assert split_name("c") == ("c", "")


@pytest.mark.parametrize("lost", [1, 512, 5000, 50_000])
def test_a_half_written_tar_is_refused_by_name(tar: Path, lost: int) -> None:
    idx_path(tar).unlink()
    end = OffsetTable.scan(tar).end
    with tar.open("r+b") as file:
        file.truncate(max(end - lost, 100))
    with pytest.raises(ValueError, match=r"chunk_000000\.tar is half-written.*humanpose3d index"):
        len(open_chunk(tar))


def test_a_tar_cut_between_two_members_is_refused_too(tar: Path) -> None:
    idx_path(tar).unlink()
    start_of_third = int(OffsetTable.scan(tar).offsets[2].min()) - 512
    with tar.open("r+b") as file:
        file.truncate(start_of_third)
    with pytest.raises(ValueError, match="half-written"):
        len(open_chunk(tar))


def test_a_damaged_header_in_mid_file_is_not_taken_for_the_end(tar: Path) -> None:
    idx_path(tar).unlink()
    with tar.open("r+b") as file:
        file.seek(int(OffsetTable.scan(tar).offsets[2].min()) - 512)
        file.write(b"garbage")
    with pytest.raises(ValueError, match="half-written or damaged at byte"):
        len(open_chunk(tar))


def test_a_tar_that_shrinks_under_the_reader_gives_a_bad_sample(tar: Path) -> None:
    chunk = open_chunk(tar)
    assert len(chunk) == 6
    with tar.open("r+b") as file:
        file.truncate(int(chunk.table.offsets[4].min()) + 3)
    with pytest.raises(BadSample, match="is cut short"):
        chunk.read(4)


def test_a_missing_chunk_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.tar is missing"):
        open_chunk(tmp_path / "nothing.tar")


@pytest.mark.parametrize("daemon", ["1", "0"])
@pytest.mark.parametrize("compress", ["none", "gz"])
def test_a_chunk_that_a_remote_has_lost_is_named_as_the_user_writes_it_with_what_to_do(
    tmp_path: Path, s3_remote: Any, monkeypatch: pytest.MonkeyPatch, compress: str, daemon: str
) -> None:
    write_set(s3_remote.location, samples_of(3), compress=compress, staging=tmp_path / "staging")
    entry = read_index(open_store(s3_remote.location)).chunks[0]
    open_store(s3_remote.location).delete(entry.file)
    monkeypatch.setenv(SWITCH, daemon)
    with pytest.raises(FileNotFoundError) as caught, borrowed_chunk(open_store(s3_remote.location), entry, tmp_path):
        pass
    assert str(caught.value) == (
        f"{s3_remote.location}/{entry.file} is missing; copy it there, or index what is left with 'humanpose3d index'"
    )


@pytest.mark.parametrize("compress", ["none", "gz"])
@pytest.mark.parametrize("where", ["folder", "remote"])
def test_a_chunk_is_borrowed_and_nothing_stays(
    tmp_path: Path, request: pytest.FixtureRequest, where: str, compress: str
) -> None:
    location = str(tmp_path / "set") if where == "folder" else request.getfixturevalue("s3_remote").location
    write_set(location, samples_of(3), compress=compress, staging=tmp_path / "staging")
    store, folder = open_store(location), tmp_path / "borrowed"
    entry = read_index(store).chunks[0]
    with borrowed_chunk(store, entry, folder) as chunk:
        assert chunk.read(1) == encode_sample(samples_of(3)[1])
    assert not folder.exists() or not list(folder.iterdir())


@pytest.mark.parametrize("compress", ["none", "gz"])
def test_a_chunk_that_contradicts_its_index_is_refused(tmp_path: Path, compress: str) -> None:
    store = open_store(tmp_path / "set")
    entry = write_set(tmp_path / "set", samples_of(3), compress=compress).chunks[0]
    path = store.local_path(entry.file)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{entry.file} does not have the checksum.*copy it again"):
        with borrowed_chunk(store, entry, tmp_path / "borrowed"):
            pass
    path.write_bytes(data[:-700])
    with pytest.raises(ValueError, match=f"{entry.file} has .* bytes where index.json says"):
        with borrowed_chunk(store, entry, tmp_path / "borrowed"):
            pass


def test_a_half_written_gz_of_somebody_else_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "set", samples_of(3))
    packed = gzip.compress((tmp_path / "set" / "chunk_000000.tar").read_bytes())
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a_0000.tar.gz").write_bytes(packed[:-100])
    with pytest.raises(ValueError, match=r"a_0000\.tar\.gz is half-written or damaged"):
        read_index(open_store(tmp_path / "foreign"))
