"""Moving samples in one piece: the same bytes as writing them anew, and checksums from those of the pieces."""

from __future__ import annotations

import io
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from humanpose3d.chunks.checksums import PieceChecksums, joined_crc32
from humanpose3d.chunks.codec import check_sample, encode_sample
from humanpose3d.chunks.layout import read_index
from humanpose3d.chunks.read import Chunk, open_chunk
from humanpose3d.chunks.transfer import (
    MEMBER_MODE,
    Arena,
    Piece,
    Pieces,
    SourceChunk,
    Taken,
    in_turns,
    member_header,
    one_ahead,
    stretches,
    take,
)
from humanpose3d.chunks.write import ChunkSetWriter
from humanpose3d.remotes import LocalStore, open_store
from tests.chunks.sets import samples_of, write_set


def piece_of(pieces: Pieces, chunk: Chunk, index: int) -> Piece | None:
    start, end = int(pieces.starts[index]), int(pieces.ends[index])
    return pieces.piece(index, bytearray(chunk.path.read_bytes()[start:end]), 0)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_the_checksum_of_the_whole_follows_from_its_pieces(parts: list[bytes]) -> None:
    crcs = np.array([zlib.crc32(part) for part in parts], dtype=np.uint32)
    assert joined_crc32(crcs, np.array([len(part) for part in parts])) == zlib.crc32(b"".join(parts))


def test_long_stretches_count_right() -> None:
    zeros = bytes(3_000_001)
    crcs = np.array([zlib.crc32(b"head"), zlib.crc32(zeros), zlib.crc32(b"tail")], dtype=np.uint32)
    assert joined_crc32(crcs, np.array([4, len(zeros), 4])) == zlib.crc32(b"head" + zeros + b"tail")


@pytest.mark.parametrize("name", ["a-S1-000000-p0.meta.json", "x" * 99, "ä.json"])
@pytest.mark.parametrize("size", [0, 1, 4095, 2**31])
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, MEMBER_MODE
    assert member_header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


def test_a_piece_is_the_sample_with_its_headers(tmp_path: Path) -> None:
    samples = samples_of(5)
    write_set(tmp_path, samples)
    chunk = open_chunk(tmp_path / "chunk_000000.tar")
    pieces = Pieces(chunk.table)
    assert pieces.tile
    for index, sample in enumerate(samples):
        piece = piece_of(pieces, chunk, index)
        assert piece is not None and piece.members() == encode_sample(sample) == chunk.read(index)
        assert check_sample(sample.key, piece.ends())["subject"] == sample.subject
        with tarfile.open(fileobj=io.BytesIO(bytes(piece.raw) + bytes(1024))) as tar:
            assert [member.name for member in tar] == [f"{sample.key}.{name}" for name, _, _ in piece.parts]


def test_checksums_are_known_once_every_piece_was_read_in_any_order(tmp_path: Path) -> None:
    write_set(tmp_path, samples_of(9))
    [entry] = read_index(open_store(tmp_path)).chunks
    chunk = open_chunk(tmp_path / entry.file)
    pieces = Pieces(chunk.table)
    checksums = PieceChecksums(chunk, pieces.starts, pieces.ends)
    for index in (3, 1, 0, 8, 2, 7, 5, 6):
        piece = piece_of(pieces, chunk, index)
        assert piece is not None
        checksums.add(index, index + 1, piece.raw)
    assert not checksums.are_those_of(entry)
    last = piece_of(pieces, chunk, 4)
    assert last is not None
    checksums.add(4, 5, last.raw)
    assert checksums.are_those_of(entry)
    checksums.add(4, 5, bytes(last.raw[:-1]) + b"x")
    assert not checksums.are_those_of(entry)


def test_a_sample_of_another_writer_is_not_taken_as_it_lies(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "a.tar"), encoder=False) as writer:  # with an owner and a time
        for sample in samples_of(3):
            writer.write({"__key__": sample.key} | encode_sample(sample))
    chunk = open_chunk(tmp_path / "a.tar")
    assert piece_of(Pieces(chunk.table), chunk, 1) is None


def source_of(folder: Path) -> SourceChunk:
    [entry] = read_index(open_store(folder)).chunks
    return SourceChunk(open_chunk(folder / entry.file), entry, checked=False)


def test_samples_are_taken_in_the_order_asked_for_and_lie_one_after_the_other(tmp_path: Path) -> None:
    samples = samples_of(9)
    write_set(tmp_path, samples)
    source, arena = source_of(tmp_path), Arena()
    order = [3, 4, 5, 0, 8, 7, 1, 2, 6]
    taken = take([(source, index) for index in order], arena, check_sample)
    assert [one.key for one in taken] == [samples[index].key for index in order]
    assert [one.members() for one in taken] == [encode_sample(samples[index]) for index in order]
    raw = b"".join(bytes(one.content.raw) for one in taken)  # type: ignore[union-attr]
    assert bytes(arena.memory[: len(raw)]) == raw
    source.verify()


def test_a_chunk_that_ends_early_is_a_bad_sample(tmp_path: Path) -> None:
    write_set(tmp_path, samples_of(3))
    source = source_of(tmp_path)
    source.chunk.path.write_bytes(source.chunk.path.read_bytes()[: int(source.pieces.starts[2]) + 100])
    taken = take([(source, 1), (source, 2)], Arena(), check_sample)
    assert taken[0].fault is None and taken[1].fault is not None
    assert taken[1].fault.reason == "the chunk ends in it"
    with pytest.raises(ValueError, match="bytes where index.json says"):
        source.verify()


@given(st.lists(st.integers(0, 700_000), max_size=40))
def test_stretches_are_all_numbers_in_order_and_none_is_much_too_long(sizes: list[int]) -> None:
    found = list(stretches(range(len(sizes)), sizes.__getitem__))
    assert [number for some in found for number in some] == list(range(len(sizes)))
    assert all(sum(sizes[number] for number in some[:-1]) < 1 << 20 for some in found)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_work_is_shared_and_committed_in_order(threads: int) -> None:
    committed: list[int] = []

    def prepare(item: int, arena: Arena) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    in_turns(threads, range(50), prepare, committed.append)
    assert committed == [item * item for item in range(50)]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("where", ["prepare", "commit", "items"])
def test_the_first_error_ends_all_and_nothing_after_it_is_committed(threads: int, where: str) -> None:
    committed: list[int] = []

    def fail(place: str, item: int) -> int:
        if place == where and item == 7:
            raise KeyboardInterrupt
        return item

    with pytest.raises(KeyboardInterrupt):
        in_turns(
            threads,
            (fail("items", item) for item in range(20)),
            lambda item, arena: fail("prepare", item),
            lambda item: committed.append(fail("commit", item)),
        )
    assert committed == list(range(len(committed))) and len(committed) <= 7


def test_the_next_is_opened_while_this_one_is_used_and_all_are_closed() -> None:
    events: list[str] = []

    @contextmanager
    def opened(number: int) -> Iterator[int]:
        events.append(f"open {number}")
        try:
            yield number
        finally:
            events.append(f"close {number}")

    assert list(one_ahead(opened(number) for number in range(3))) == [0, 1, 2]
    assert sorted(events) == sorted(f"{what} {number}" for what in ("open", "close") for number in range(3))
    events.clear()
    with closing(one_ahead(opened(number) for number in range(9))) as numbers:
        assert next(numbers) == 0
    assert sorted(events) == ["close 0", "close 1", "open 0", "open 1"]


def test_a_picture_cut_short_is_seen_at_its_ends() -> None:
    def end(picture: bytes) -> bytes:
        return Piece(bytearray(picture), 0, len(picture), [("image.jpg", 0, len(picture))]).ends()["image.jpg"]

    whole = b"\xff\xd8\xff" + bytes(200) + b"\xff\xd9"
    for picture in (whole, whole + bytes(300)):
        assert end(picture).rstrip(b"\0").endswith(b"\xff\xd9")
    assert not end(whole[:-2] + b"ab").endswith(b"\xff\xd9")


@pytest.mark.parametrize("compress", ["none", "gz"])
def test_writing_a_piece_gives_the_bytes_of_writing_its_members(tmp_path: Path, compress: str) -> None:
    samples = samples_of(7)
    write_set(tmp_path / "source", samples)
    chunk = open_chunk(tmp_path / "source/chunk_000000.tar")
    pieces = Pieces(chunk.table)
    for way in ("members", "pieces"):
        with ChunkSetWriter(
            LocalStore(tmp_path / way), prefix="train", chunk_size=3, compress=compress, plan={"stage": "test"},
            staging=tmp_path, state=dict,
        ) as writer:  # fmt: skip
            for index, sample in enumerate(samples):
                piece = piece_of(pieces, chunk, index)
                assert piece is not None
                if way == "pieces":
                    writer.take_over(index, Taken(sample.key, piece, check_sample(sample.key, piece.ends()), None))
                else:
                    writer.write(index, sample.key, piece.members())
            writer.finish()
    files = sorted(path.name for path in (tmp_path / "members").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "pieces").iterdir())
    for name in files:
        assert (tmp_path / "members" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes(), name


def test_our_tar_is_the_one_webdatasets_writer_makes(tmp_path: Path) -> None:
    samples = samples_of(4)
    write_set(tmp_path, samples)
    with (tmp_path / "theirs.tar").open("wb") as file:
        writer = webdataset.TarWriter(file, user="", group="", mtime=0, encoder=False)
        for sample in samples:
            for extension, data in encode_sample(sample).items():  # one call a member: it sorts what it gets at once
                writer.write({"__key__": sample.key, extension: data})
        writer.close()
    assert (tmp_path / "chunk_000000.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()
