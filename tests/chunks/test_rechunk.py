"""The global shuffle: every valid sample once, anywhere, untouched, the same with the same seed, resumable."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humanpose3d.chunks import pool, transfer
from humanpose3d.chunks.codec import encode_sample
from humanpose3d.chunks.layout import read_index
from humanpose3d.chunks.read import tar_bytes
from humanpose3d.chunks.rechunk import global_order, rechunk
from humanpose3d.remotes import open_store
from humanpose3d.reports import StageReport
from tests.chunks.sets import hashes, read_set, samples_of, write_set
from tests.chunks.test_layout import write_foreign
from tests.chunks.test_split import split


def shuffle(tmp_path: Path, source: str | Path, target: str | Path, **changes: Any) -> StageReport:
    settings: dict[str, Any] = {
        "chunk_size": 7, "seed": 42, "shuffle": True, "keep_extracted_originals": False, "compress": "none",
        "temp_dir": tmp_path / "temp", "workers": 2, "max_bad": 0.01,
    }  # fmt: skip
    return rechunk(input_dir=str(source), output_dir=str(target), **(settings | changes))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_set(tmp_path / "chunks", samples_of(40), chunk_size=9)
    return tmp_path / "chunks"


def test_every_sample_comes_out_once_with_its_bytes(tmp_path: Path, source: Path) -> None:
    report = shuffle(tmp_path, source, tmp_path / "out")
    found = read_set(tmp_path / "out", tmp_path / "x")
    assert dict(found) == {sample.key: encode_sample(sample) for sample in samples_of(40)} and len(found) == 40
    index = read_index(open_store(tmp_path / "out"))
    assert [entry.samples for entry in index.chunks] == [7, 7, 7, 7, 7, 5]
    assert (index.prefix, index.subjects) == ("chunk", {"S1": 20, "S9": 20})
    assert report.counts == {"samples": 40, "chunks": 6} and report.exit_code == 0


def test_the_order_is_global_and_the_seeds_alone(tmp_path: Path, source: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        shuffle(tmp_path, source, tmp_path / name, seed=seed)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") != hashes(tmp_path / "c")
    origin = {sample.key: number // 9 for number, sample in enumerate(samples_of(40))}
    first_chunk = [origin[key] for key, _ in read_set(tmp_path / "a", tmp_path / "x")[:7]]
    assert len(set(first_chunk)) >= 3


def test_the_order_of_a_seed_never_changes() -> None:
    assert global_order(8, 42).tolist() == [4, 1, 3, 6, 0, 7, 2, 5]
    assert sorted(global_order(1000, 7)) == list(range(1000))


def test_all_places_are_equally_likely() -> None:
    places = np.array([np.argsort(global_order(6, seed))[0] for seed in range(3000)])
    assert np.abs(np.bincount(places, minlength=6) / 3000 - 1 / 6).max() < 0.03


def test_a_parent_of_parts_is_mirrored_with_their_prefixes(tmp_path: Path, source: Path) -> None:
    split(tmp_path, source, tmp_path / "split", "S1", "S9")
    report = shuffle(tmp_path, tmp_path / "split", tmp_path / "out")
    for part in ("train", "test"):
        index = read_index(open_store(tmp_path / "out" / part))
        assert index.samples == 20 and index.chunks[0].file == f"{part}_000000.tar"
        assert [plan["stage"] for plan in index.provenance["history"]] == ["test", "split", "rechunk"]
    assert report.counts["samples"] == 40
    assert (tmp_path / "out" / "rechunk_report.json").exists()


def test_remote_to_remote_gives_the_bytes_of_folder_to_folder(tmp_path: Path, s3_remote: Any) -> None:
    for location in (f"{s3_remote.location}/chunks", tmp_path / "chunks"):
        write_set(location, samples_of(20), chunk_size=6, compress="gz", staging=tmp_path / "staging")
        split(tmp_path, location, str(location).replace("chunks", "split"), "S1", "S9", compress="gz")
        shuffle(tmp_path, str(location).replace("chunks", "split"), str(location).replace("chunks", "out"))
    assert hashes(s3_remote.folder / "out") == hashes(tmp_path / "out")
    assert not list((tmp_path / "temp").iterdir())


@pytest.mark.parametrize("killed_at", [1, 7, 8, 25, 40])
def test_a_rechunk_killed_anywhere_ends_with_the_same_bytes(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    shuffle(tmp_path, source, tmp_path / "whole")
    monkeypatch.setattr(transfer, "STRETCH_SAMPLES", 3)
    with killed_at_sample(monkeypatch, killed_at):
        shuffle(tmp_path, source, tmp_path / "cut")
    shuffle(tmp_path, source, tmp_path / "cut")
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


@contextmanager
def killed_at_sample(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[None]:
    """What runs in it is stopped as it takes its `number`-th sample."""
    take, taken = transfer._taken, []

    def cut(*arguments: Any) -> Any:
        taken.append(arguments)
        if len(taken) == number:
            raise KeyboardInterrupt
        return take(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(transfer, "_taken", cut)
        yield


def test_a_resumed_rechunk_does_not_fetch_again_what_it_has(
    tmp_path: Path, s3_remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(s3_remote.location + "/chunks", samples_of(20), chunk_size=6, staging=tmp_path / "staging")
    fetch, fetched = pool.fetch_chunk, []

    def cut(store: Any, entry: Any, path: Path) -> None:
        fetched.append(entry.file)
        if len(fetched) == 3:
            raise KeyboardInterrupt
        fetch(store, entry, path)

    monkeypatch.setattr(pool, "fetch_chunk", cut)
    with pytest.raises(KeyboardInterrupt):
        shuffle(tmp_path, f"{s3_remote.location}/chunks", tmp_path / "out")
    shuffle(tmp_path, f"{s3_remote.location}/chunks", tmp_path / "out")
    assert fetched == [f"chunk_00000{n}.tar" for n in (0, 1, 2, 2, 3)]
    assert len(read_set(tmp_path / "out", tmp_path / "x")) == 20


def rewrite(path: Path, change: Any) -> None:
    """A tar with its members changed: `change(name, data)` gives the new data, or None to leave it out."""
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            data = change(member.name, data)
            if data is not None:
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def test_invalid_samples_are_left_out_named_and_counted(tmp_path: Path) -> None:
    write_foreign(tmp_path / "chunks", 12)
    keys = [sample.key for sample in samples_of(12)]

    def damage(name: str, data: bytes) -> bytes | None:
        if name == f"{keys[1]}.depth.png":
            return None
        if name == f"{keys[2]}.image.jpg":
            return data[:-30]
        if name == f"{keys[3]}.meta.json":
            return data.replace(b'"subject":"S9"', b'"subject":9')
        return data

    rewrite(tmp_path / "chunks" / "foreign-0000.tar", damage)
    report = shuffle(tmp_path, tmp_path / "chunks", tmp_path / "out")
    assert report.skipped == {
        "depth.png is missing": [keys[1]],
        "image.jpg is not a whole JPEG": [keys[2]],
        "meta.json: subject is of another type": [keys[3]],
    }
    assert (report.inputs, report.counts["samples"], report.exit_code) == (12, 9, 1)
    assert sorted(key for key, _ in read_set(tmp_path / "out", tmp_path / "x")) == sorted([keys[0], *keys[4:]])
    assert read_index(open_store(tmp_path / "out")).samples == 9


def test_samples_of_one_key_do_not_melt_into_one(tmp_path: Path) -> None:
    write_foreign(tmp_path / "chunks", 4)
    data = (tmp_path / "chunks" / "foreign-0000.tar").read_bytes()
    (tmp_path / "chunks" / "foreign-0001.tar").write_bytes(data)
    report = shuffle(tmp_path, tmp_path / "chunks", tmp_path / "out")
    assert report.skipped_counts == {"its key is used twice": 4} and report.counts["samples"] == 4


def test_a_report_of_a_resumed_run_names_what_the_first_one_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_foreign(tmp_path / "chunks", 12)
    for file in (tmp_path / "chunks").iterdir():
        rewrite(file, lambda name, data: None if "000001" in name and name.endswith("png") else data)
    whole = shuffle(tmp_path, tmp_path / "chunks", tmp_path / "whole", chunk_size=1)
    take, taken = pool.InPlace.take, []

    def cut(samples: Any, numbers: list[int], arena: Any) -> list[Any]:
        taken.extend(numbers)
        if len(taken) >= 12:
            raise KeyboardInterrupt
        return take(samples, numbers, arena)

    monkeypatch.setattr(transfer, "STRETCH_SAMPLES", 1)
    with monkeypatch.context() as patched:
        patched.setattr(pool.InPlace, "take", cut)
        with pytest.raises(KeyboardInterrupt):
            shuffle(tmp_path, tmp_path / "chunks", tmp_path / "cut", chunk_size=1)
    resumed = shuffle(tmp_path, tmp_path / "chunks", tmp_path / "cut", chunk_size=1)
    again = shuffle(tmp_path, tmp_path / "chunks", tmp_path / "cut", chunk_size=1)
    assert resumed.skipped == again.skipped == whole.skipped != {}
    assert resumed.counts == again.counts == whole.counts
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_extracted_originals_are_loose_files_beside_the_chunks(tmp_path: Path, source: Path) -> None:
    shuffle(tmp_path, source, tmp_path / "out", keep_extracted_originals=True)
    sample = samples_of(40)[17]
    loose = {path.name: path.read_bytes() for path in (tmp_path / "out" / "extracted").iterdir()}
    assert len(loose) == 40 * 3
    assert loose[f"{sample.key}.image.jpg"] == encode_sample(sample)["image.jpg"]
    assert read_index(open_store(tmp_path / "out")).samples == 40
    with pytest.raises(ValueError, match="needs a local folder"):
        shuffle(tmp_path, source, "drive:out", keep_extracted_originals=True)


def test_a_chunk_that_contradicts_its_index_is_refused(tmp_path: Path, source: Path) -> None:
    path = source / "chunk_000002.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"chunk_000002\.tar does not have the checksum"):
        shuffle(tmp_path, source, tmp_path / "out")


def test_input_and_output_are_two_places(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ValueError, match="cannot be written at the same time"):
        shuffle(tmp_path, source, source)


def test_a_folder_without_chunks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there are no chunks in"):
        shuffle(tmp_path, tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_too_small_for_the_chunks_is_said_before_they_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "chunks", samples_of(5), compress="gz")
    monkeypatch.setattr(pool.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(
        OSError, match="GB free, too little for a few chunks of this set.*name a roomier disk with --temp-dir"
    ):
        shuffle(tmp_path, tmp_path / "chunks", tmp_path / "out")


@pytest.mark.parametrize("compress", ["none", "gz"])
def test_a_remote_set_larger_than_the_disk_is_shuffled_in_passes_to_the_same_bytes(
    tmp_path: Path, s3_remote: Any, monkeypatch: pytest.MonkeyPatch, compress: str
) -> None:
    write_set(s3_remote.location + "/chunks", samples_of(60), chunk_size=5, compress=compress, staging=tmp_path / "s")
    shuffle(tmp_path, f"{s3_remote.location}/chunks", tmp_path / "whole")
    store = open_store(s3_remote.folder / "chunks")
    largest = max(tar_bytes(store, entry) for entry in read_index(store).chunks)
    monkeypatch.setattr(pool, "_free", lambda folder: 6 * largest)
    most, deal = 0, pool._deal

    def dealt(*arguments: Any) -> None:
        nonlocal most
        deal(*arguments)
        most = max(most, sum(path.stat().st_size for path in (tmp_path / "temp").rglob("*.tar")))

    monkeypatch.setattr(pool, "_deal", dealt)
    report = shuffle(tmp_path, f"{s3_remote.location}/chunks", tmp_path / "passes")
    assert report.counts["samples"] == 60 and hashes(tmp_path / "passes") == hashes(tmp_path / "whole")
    assert 0 < most <= 6 * largest
    assert not list((tmp_path / "temp").iterdir())


def test_a_set_beyond_memory_on_a_slow_disk_is_dealt_to_buckets_first_to_the_same_bytes(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffle(tmp_path, source, tmp_path / "whole")
    set_bytes = sum(entry.bytes for entry in read_index(open_store(source)).chunks)
    monkeypatch.setattr(pool, "available_memory", lambda: set_bytes)
    assert not pool._is_slow_to_seek(open_store(source), read_index(open_store(source)))  # it lies in memory
    monkeypatch.setattr(pool, "_is_slow_to_seek", lambda *_: True)
    spans = []
    made = pool._Bucket

    def bucket(path: Path, positions: range) -> Any:
        spans.append(positions)
        return made(path, positions)

    monkeypatch.setattr(pool, "_Bucket", bucket)
    shuffle(tmp_path, source, tmp_path / "buckets")
    assert hashes(tmp_path / "buckets") == hashes(tmp_path / "whole")
    assert len(spans) > 1 and [position for span in spans for position in span] == list(range(40))


@pytest.mark.parametrize("killed_at", [2, 11, 25, 60, 80])
def test_passes_killed_anywhere_end_with_the_same_bytes_and_the_same_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    write_foreign(tmp_path / "chunks", 40)
    data = (tmp_path / "chunks" / "foreign-0000.tar").read_bytes()
    (tmp_path / "chunks" / "foreign-0099.tar").write_bytes(data)  # keys used twice
    rewrite(
        tmp_path / "chunks" / "foreign-0001.tar",
        lambda name, data: data[:-30] if name.endswith("jpg") and int(name.split("-")[4]) % 3 == 0 else data,
    )
    whole = shuffle(tmp_path, tmp_path / "chunks", tmp_path / "whole")
    assert whole.skipped_counts["its key is used twice"] and whole.skipped_counts["image.jpg is not a whole JPEG"]
    monkeypatch.setattr(pool, "_is_slow_to_seek", lambda *_: True)
    monkeypatch.setattr(
        pool, "available_memory", lambda: sum(p.stat().st_size for p in (tmp_path / "chunks").iterdir())
    )
    monkeypatch.setattr(transfer, "STRETCH_SAMPLES", 2)
    with killed_at_sample(monkeypatch, killed_at):
        shuffle(tmp_path, tmp_path / "chunks", tmp_path / "cut")
    resumed = shuffle(tmp_path, tmp_path / "chunks", tmp_path / "cut")
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert resumed.skipped_counts == whole.skipped_counts


def test_without_a_shuffle_the_order_stays(tmp_path: Path, source: Path) -> None:
    shuffle(tmp_path, source, tmp_path / "out", shuffle=False)
    assert read_set(tmp_path / "out", tmp_path / "x") == read_set(source, tmp_path / "x")
    assert [entry.samples for entry in read_index(open_store(tmp_path / "out")).chunks] == [7] * 5 + [5]


def test_damage_found_while_copying_leaves_nothing_of_it(tmp_path: Path, source: Path) -> None:
    chunk = sorted(source.glob("*.tar"))[1]
    whole = bytearray(chunk.read_bytes())
    at = whole.index(b"\xff\xd8\xff") + 200  # inside a JPEG: its ends are well
    damaged = whole.copy()
    damaged[at] ^= 0xFF
    chunk.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{chunk.name} does not have the checksum that index.json says"):
        shuffle(tmp_path, source, tmp_path / "out")
    chunk.write_bytes(whole)
    shuffle(tmp_path, source, tmp_path / "out")
    shuffle(tmp_path, source, tmp_path / "straight")
    assert hashes(tmp_path / "out") == hashes(tmp_path / "straight")
