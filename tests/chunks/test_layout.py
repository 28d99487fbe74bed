"""Names of chunks, index.json, and sets that somebody else wrote."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import webdataset

from humanpose3d.chunks.codec import encode_sample
from humanpose3d.chunks.layout import (
    BUILDING,
    INDEX,
    ChunkFile,
    ChunkIndex,
    chunk_file,
    index_chunks,
    parse_chunk_file,
    read_index,
)
from humanpose3d.remotes import open_store
from tests.chunks.sets import read_set, samples_of, write_set


def test_a_chunks_name_says_its_number_whatever_the_padding() -> None:
    assert parse_chunk_file("train_0000.tar.gz") == ChunkFile("train", 0, "gz")
    assert parse_chunk_file("chunk_000012.tar") == ChunkFile("chunk", 12, "none")
    assert parse_chunk_file("shard-7.tgz") == ChunkFile("shard", 7, "gz")
    assert parse_chunk_file("000003.tar") == ChunkFile("chunk", 3, "none")
    assert parse_chunk_file("h36m_s9_000003.tar") == ChunkFile("h36m_s9", 3, "none")
    for other in ("chunk_000000.idx", "chunk.tar", "index.json", "chunk_000000.tar.part"):
        assert parse_chunk_file(other) is None


def test_a_name_made_is_a_name_read() -> None:
    for compress in ("none", "gz"):
        assert parse_chunk_file(chunk_file("train", 1234567, compress)) == ChunkFile("train", 1234567, compress)


def test_the_index_tells_what_is_in_the_set(tmp_path: Path) -> None:
    index = write_set(tmp_path, samples_of(25, depth=False))
    assert index == read_index(open_store(tmp_path))
    assert index.samples == 25 and [entry.samples for entry in index.chunks] == [10, 10, 5]
    assert index.subjects == {"S1": 13, "S9": 12} and index.chunks[2].subjects == {"S1": 3, "S9": 2}
    assert (index.skeleton, index.keypoint_skeleton) == ("h36m_17", "coco_17")
    assert index.members == {"image.jpg": 25, "meta.json": 25}
    assert index.provenance["estimators"] == [{"keypoints": {"name": "test", "version": "1", "sha256": "0"}}]
    assert index.chunks[1].bytes == (tmp_path / "chunk_000001.tar").stat().st_size
    assert index.chunk(2) is index.chunks[2]
    with pytest.raises(ValueError, match="no chunk 3; there are 0-2"):
        index.chunk(3)


def test_an_unfinished_set_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, samples_of(3))
    (tmp_path / BUILDING).write_text("{}")
    for read in (read_index, index_chunks):
        with pytest.raises(ValueError, match="is unfinished; run the command that writes it again"):
            read(open_store(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", '{"chunks": []}', '{"schema_version": "1", "chunks": [{}]}'])
def test_an_index_that_is_none_is_refused_with_the_remedy(tmp_path: Path, text: str) -> None:
    write_set(tmp_path, samples_of(3))
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(ValueError, match=r"index\.json is not a whole index.*humanpose3d index"):
        read_index(open_store(tmp_path))


def test_an_index_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    text = write_set(tmp_path, samples_of(3)).to_json().replace(b'"schema_version": 1', b'"schema_version": 99')
    with pytest.raises(ValueError, match="schema_version 99, newer than"):
        ChunkIndex.from_json(text, "here")


def test_a_folder_without_chunks_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no chunks in .*nowhere; check the path"):
        read_index(open_store(tmp_path / "nowhere"))
    write_set(tmp_path / "train", samples_of(3), prefix="train")
    with pytest.raises(FileNotFoundError, match="give one of its folders train"):
        read_index(open_store(tmp_path))


def write_foreign(folder: Path, count: int, *, compress: bool = False) -> None:
    """A set by the stock ShardWriter."""
    folder.mkdir(parents=True, exist_ok=True)
    pattern = str(folder / ("foreign-%04d.tar" + (".gz" if compress else "")))
    with webdataset.ShardWriter(pattern, maxcount=4, verbose=0, encoder=False) as writer:
        for sample in samples_of(count):
            writer.write({"__key__": sample.key, **encode_sample(sample)})


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("where", ["folder", "remote"])
def test_a_set_of_the_stock_shard_writer_is_read_with_a_warning(
    tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, where: str, compress: bool
) -> None:
    write_foreign(tmp_path / "set", 10, compress=compress)
    location = str(tmp_path / "set") if where == "folder" else request.getfixturevalue("s3_remote").location
    if where == "remote":
        for file in (tmp_path / "set").iterdir():
            open_store(location).put(file, file.name)
    with caplog.at_level(logging.WARNING, logger="humanpose3d"):
        index = read_index(open_store(location))
    assert "has no index.json" in caplog.text
    assert (index.prefix, index.samples, index.subjects) == ("foreign", 10, {"S1": 5, "S9": 5})
    assert open_store(location).stat(INDEX) is None
    assert index_chunks(open_store(location)) == index
    caplog.clear()
    assert read_index(open_store(location)) == index and not caplog.text
    found = read_set(location, tmp_path / "borrowed")
    assert [key for key, _ in found] == [sample.key for sample in samples_of(10)]
    assert found[3][1] == encode_sample(samples_of(10)[3])


def test_two_chunks_of_one_number_are_refused(tmp_path: Path) -> None:
    write_foreign(tmp_path, 3)
    (tmp_path / "foreign_0.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"foreign-0000\.tar and foreign_0\.tar are both chunk 0"):
        read_index(open_store(tmp_path))


def test_chunks_of_several_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_foreign(tmp_path, 3)
    (tmp_path / "test_0.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="several sets \\(foreign, test\\)"):
        read_index(open_store(tmp_path))


def test_an_index_made_from_the_tars_is_the_writers(tmp_path: Path) -> None:
    index = write_set(tmp_path, samples_of(25))
    (tmp_path / INDEX).unlink()
    for idx in tmp_path.glob("*.idx"):
        idx.rename(tmp_path / f"{idx.name}.before")
    made = index_chunks(open_store(tmp_path))
    assert (made.chunks, made.members, made.skeleton) == (index.chunks, index.members, index.skeleton)
    for before in tmp_path.glob("*.before"):
        assert before.read_bytes() == (tmp_path / before.name.removesuffix(".before")).read_bytes()


def test_reading_chunks_needs_no_torch() -> None:
    code = (
        "import sys; from humanpose3d.chunks import build, codec, layout, read, rechunk, split, write; "
        "sys.exit('torch' in sys.modules or 'webdataset' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
