"""Our chunks in other programs' hands, and theirs in ours: stock webdataset, a reader of DALI's index, ShardWriter."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from humanpose3d.chunks.codec import decode_sample, encode_sample
from humanpose3d.chunks.layout import read_index
from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
from humanpose3d.remotes import LocalStore, open_store
from tests.chunks.sets import samples_of, write_set
from tests.chunks.test_rechunk import shuffle
from tests.chunks.test_split import split

SAMPLES = 40
Members = dict[str, bytes]


def originals(**subjects: Any) -> dict[str, Members]:
    return {sample.key: encode_sample(sample) for sample in samples_of(SAMPLES, window=3, **subjects)}


@pytest.fixture(params=["none", "gz"])
def stages(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A folder with chunks/, split/{train,test} and shuffled/{train,test} by the real stages; how they are packed."""
    write_set(tmp_path / "chunks", samples_of(SAMPLES, window=3), chunk_size=9, compress=request.param)
    split(tmp_path, tmp_path / "chunks", tmp_path / "split", "S1", "S9", compress=request.param)
    shuffle(tmp_path, tmp_path / "split", tmp_path / "shuffled", compress=request.param)
    return tmp_path, request.param


def by_webdataset(folder: Path) -> list[tuple[str, Members]]:
    """All samples of a folder's tars, as the stock package gives them."""
    urls = [str(path) for path in sorted(folder.glob("*.tar*"))]
    return [
        (sample["__key__"], {name: data for name, data in sample.items() if not name.startswith("_")})
        for sample in webdataset.WebDataset(urls, shardshuffle=False)
    ]


@pytest.mark.parametrize("stage", ["split", "shuffled"])
def test_stock_webdataset_reads_what_split_and_rechunk_write(stages: tuple[Path, str], stage: str) -> None:
    folder, _ = stages
    found = {part: by_webdataset(folder / stage / part) for part in ("train", "test")}
    for part, subject in (("train", "S1"), ("test", "S9")):
        assert len(found[part]) == SAMPLES // 2
        assert {decode_sample(key, members).subject for key, members in found[part]} == {subject}
    assert dict(found["train"] + found["test"]) == originals()


def test_stock_webdataset_decodes_and_shuffles_a_rechunked_set_by_its_pattern(stages: tuple[Path, str]) -> None:
    folder, compress = stages
    last = len(list((folder / "shuffled" / "train").glob("*.tar*"))) - 1
    pattern = f"{folder}/shuffled/train/train_{{000000..{last:06d}}}.tar" + (".gz" if compress == "gz" else "")
    found = {
        sample["__key__"]: sample
        for sample in webdataset.WebDataset(pattern, shardshuffle=100).shuffle(100).decode("rgb8")
    }
    assert len(found) == SAMPLES // 2
    for sample in found.values():
        assert sample["image.jpg"].dtype == np.uint8 and sample["image.jpg"].shape == (32, 32, 3)
        assert sample["meta.json"]["subject"] == "S1" and sample["window.npy"].shape == (3, 17, 3)


def dali_components(idx: Path) -> list[dict[str, tuple[int, int, str]]]:
    """Each sample's components, extension -> (offset, size, name), as DALI's webdataset reader parses its index:
    a line `v1.2 <samples>`, then a line a sample, of as many `extension offset size name` as it has components."""
    header, *lines = idx.read_text().splitlines()
    version, count = header.split(" ")
    assert version == "v1.2" and int(count) == len(lines)
    samples = []
    for line in lines:
        words = line.split(" ")
        assert len(words) % 4 == 0 and words
        samples.append(
            {words[at]: (int(words[at + 1]), int(words[at + 2]), words[at + 3]) for at in range(0, len(words), 4)}
        )
    return samples


@pytest.mark.parametrize("stages", ["none"], indirect=True)
def test_a_reader_of_dalis_index_finds_every_member_of_a_rechunked_set(stages: tuple[Path, str]) -> None:
    folder, _ = stages
    found: dict[str, Members] = {}
    for tar in sorted((folder / "shuffled").glob("*/*.tar")):
        data, named = tar.read_bytes(), []
        for components in dali_components(tar.with_suffix(".idx")):
            for extension, (offset, size, name) in components.items():
                key, dot, rest = name.partition(".")
                assert dot and rest == extension and offset % 512 == 0
                found.setdefault(key, {})[extension] = data[offset : offset + size]
                named.append(name)
        with tarfile.open(tar) as opened:
            assert named == opened.getnames()
    assert found == originals()


@pytest.mark.parametrize("compress", ["", ".gz"])
@pytest.mark.parametrize("where", ["folder", "remote"])
def test_chunks_of_the_stock_shard_writer_stream_once_indexed(
    tmp_path: Path, request: pytest.FixtureRequest, where: str, compress: str
) -> None:
    (tmp_path / "set").mkdir()
    pattern = str(tmp_path / "set" / f"theirs-%05d.tar{compress}")
    with webdataset.ShardWriter(pattern, maxcount=7, verbose=0, encoder=False) as writer:
        for key, members in originals().items():
            writer.write({"__key__": key, **members})
    location = str(tmp_path / "set")
    if where == "remote":
        location = request.getfixturevalue("s3_remote").location
        for file in (tmp_path / "set").iterdir():
            open_store(location).put(file, file.name)
    indexed = subprocess.run(
        [sys.executable, "-m", "humanpose3d", "index", location], capture_output=True, text=True, timeout=120
    )
    assert indexed.returncode == 0 and f"indexed 6 chunks, {SAMPLES} samples" in indexed.stdout
    dataset = StreamingChunkedDataset(location, seed=5, cache_dir=tmp_path / "cache", cache_bytes=1e9)
    loader = StreamingLoader(dataset, global_batch=8, collate=lambda samples, counted: samples, num_workers=2)
    came = {sample.key: sample for batch in loader for sample in batch}
    loader.close()
    assert len(came) == SAMPLES and not loader.quarantined
    for key, members in originals().items():
        ours = decode_sample(key, members)
        for name in ("image", "depth_m", "keypoint_window", "joints_cam_m"):
            np.testing.assert_array_equal(getattr(came[key], name), getattr(ours, name))


def test_a_dali_index_of_foreign_chunks_is_written_by_index(tmp_path: Path) -> None:
    with webdataset.ShardWriter(str(tmp_path / "theirs-%05d.tar"), maxcount=7, verbose=0, encoder=False) as writer:
        for key, members in originals().items():
            writer.write({"__key__": key, **members})
    assert subprocess.run([sys.executable, "-m", "humanpose3d", "index", str(tmp_path)], timeout=120).returncode == 0
    for entry in read_index(LocalStore(tmp_path)).chunks:
        tar = tmp_path / entry.file
        with tarfile.open(tar) as opened:
            places = [(member.offset_data, member.size, member.name) for member in opened.getmembers()]
        listed = [place for components in dali_components(tar.with_suffix(".idx")) for place in components.values()]
        assert listed == places
