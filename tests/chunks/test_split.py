"""Splitting by subject: bytes untouched, subjects spelled any way, a few chunks of disk, resumable."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from humanpose3d.chunks import split as split_module
from humanpose3d.chunks.codec import encode_sample
from humanpose3d.chunks.layout import INDEX, read_index
from humanpose3d.chunks.split import split_by_subject
from humanpose3d.remotes import LocalStore, open_store
from humanpose3d.reports import StageReport
from tests.chunks.sets import hashes, read_set, samples_of, write_set

SUBJECTS = ("S1", "S9", "S5", "S11")


def split(
    tmp_path: Path, source: str | Path, destination: str | Path, train: str, test: str, **changes: Any
) -> StageReport:
    settings: dict[str, Any] = {
        "new_chunk_size": 4, "temp_extraction_dir": tmp_path / "extract", "staging_dir": tmp_path / "staging",
        "compress": "none", "workers": 2, "max_bad": 0.01,
    }  # fmt: skip
    return split_by_subject(
        rclone_input_prefix=str(source), rclone_destination_prefix=str(destination), train_subjects=train,
        test_subjects=test, **(settings | changes),
    )  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_set(tmp_path / "chunks", samples_of(22, subjects=SUBJECTS), chunk_size=6)
    return tmp_path / "chunks"


def test_samples_go_to_their_subjects_part_untouched_and_in_order(tmp_path: Path, source: Path) -> None:
    report = split(tmp_path, source, tmp_path / "split", "S1,S5", "S9")
    samples = samples_of(22, subjects=SUBJECTS)
    for part, subjects in (("train", ("S1", "S5")), ("test", ("S9",))):
        expected = [(sample.key, encode_sample(sample)) for sample in samples if sample.subject in subjects]
        assert read_set(tmp_path / "split" / part, tmp_path / "x") == expected
        index = read_index(open_store(tmp_path / "split" / part))
        assert index.prefix == part and index.chunks[0].file == f"{part}_000000.tar"
        assert set(index.subjects) == set(subjects)
        assert [plan["stage"] for plan in index.provenance["history"]] == ["test", "split"]
    assert report.counts["train"] == 11 and report.counts["test"] == 6 and report.counts["dropped"] == 5
    assert "dropped 5 of S11" in report.summary
    assert (tmp_path / "split" / "split_report.json").exists()
    assert report.exit_code == 0


@pytest.mark.parametrize("spelling", ["S9,S11", "s9, s11", "9 11", "S09,11,"])
def test_a_subject_is_one_subject_however_it_is_spelled(tmp_path: Path, source: Path, spelling: str) -> None:
    split(tmp_path, source, tmp_path / "split", "", spelling)
    assert set(read_index(open_store(tmp_path / "split" / "test")).subjects) == {"S9", "S11"}
    assert not (tmp_path / "split" / "train").exists()


def test_requests_that_make_no_sense_are_refused_with_what_there_is(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ValueError, match="S9 cannot be in both"):
        split(tmp_path, source, tmp_path / "split", "S1,9", "S9")
    with pytest.raises(ValueError, match=r"no samples of S2, S8 in .*chunks; there are S1, S11, S5, S9"):
        split(tmp_path, source, tmp_path / "split", "S1,S2", "S8")
    with pytest.raises(ValueError, match="neither"):
        split(tmp_path, source, tmp_path / "split", "", "")
    for same in (source, f"{source}/", source / ".." / "chunks"):
        with pytest.raises(ValueError, match="cannot be written at the same time"):
            split(tmp_path, source, same, "S1", "S9")
    assert not (tmp_path / "split").exists()


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_subject_cannot_be_in_both_parts_by_two_runs_either(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, is_cut: bool, shards: int
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    shard = {"shard": f"1/{shards}"}
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt) if is_cut else nullcontext():
        if is_cut:
            patched.setattr(split_module, "_move", stop)
        split(tmp_path, source, tmp_path / "split", "S1,S5", "", **shard)
    with pytest.raises(ValueError, match="S5 went into .*split/train in an earlier run, and nobody may be"):
        split(tmp_path, source, tmp_path / "split", "", "9,s05", **shard)
    assert not (tmp_path / "split" / "test").exists()
    split(tmp_path, source, tmp_path / "split", "", "9", **shard)
    split(tmp_path, source, tmp_path / "split", "S1,S5", "", **shard)  # the first goes on, or finds all done


def test_a_split_of_a_split_does_not_write_into_its_source(tmp_path: Path, source: Path) -> None:
    split(tmp_path, source, tmp_path / "split", "S1,S5", "S9")
    with pytest.raises(ValueError, match="cannot be written at the same time"):
        split(tmp_path, tmp_path / "split" / "train", tmp_path / "split", "S1", "S5")


@pytest.mark.parametrize("compress", ["none", "gz"])
def test_remote_to_remote_gives_the_bytes_of_folder_to_folder(tmp_path: Path, s3_remote: Any, compress: str) -> None:
    samples = samples_of(22, subjects=SUBJECTS)
    for location in (f"{s3_remote.location}/chunks", tmp_path / "chunks"):
        write_set(location, samples, chunk_size=6, compress=compress, staging=tmp_path / "staging")
    split(tmp_path, f"{s3_remote.location}/chunks", f"{s3_remote.location}/split", "1,5", "9", compress=compress)
    split(tmp_path, tmp_path / "chunks", tmp_path / "split", "1,5", "9", compress=compress)
    assert hashes(s3_remote.folder / "split") == hashes(tmp_path / "split")
    for folder in ("extract", "staging"):
        assert not (tmp_path / folder).exists() or not list((tmp_path / folder).iterdir())


def test_chunks_with_dots_in_their_names_are_not_taken_for_each_other(tmp_path: Path, source: Path) -> None:
    samples = samples_of(22, subjects=SUBJECTS)
    write_set(tmp_path / "dotted", samples, chunk_size=6, compress="gz", prefix="set-1.0")
    split(tmp_path, tmp_path / "dotted", tmp_path / "from dotted", "1,5", "9")
    split(tmp_path, source, tmp_path / "split", "1,5", "9")
    for part in ("train", "test"):
        found, expected = (read_set(tmp_path / each / part, tmp_path / "x") for each in ("from dotted", "split"))
        assert found == expected


def test_disk_use_stays_at_a_few_chunks(tmp_path: Path, s3_remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(s3_remote.location + "/chunks", samples_of(48), chunk_size=4, compress="gz", staging=tmp_path / "staging")
    most, move = 0, split_module._move

    def measured(*arguments: Any) -> None:
        nonlocal most
        move(*arguments)
        most = max(most, sum(path.suffix != ".idx" for path in tmp_path.rglob("*") if path.is_file()))

    monkeypatch.setattr(split_module, "_move", measured)
    split(tmp_path, f"{s3_remote.location}/chunks", f"{s3_remote.location}/split", "S1", "S9")
    assert 2 <= most <= 5  # a source chunk, the next one (packed and being unpacked), and one of each part


def test_a_split_started_twice_is_refused_and_does_not_harm_the_first(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "packed", samples_of(22, subjects=SUBJECTS), chunk_size=6, compress="gz")
    split(tmp_path, source, tmp_path / "whole", "S1,S5", "S9")
    move, moved = split_module._move, []

    def meanwhile(*arguments: Any) -> None:
        moved.append(arguments[0])
        if len(moved) == 9:
            with pytest.raises(BlockingIOError, match="another run is writing to .*twice/train"):
                split(tmp_path, tmp_path / "packed", tmp_path / "twice", "S1,S5", "S9")
            assert list((tmp_path / "extract").rglob("*.tar"))
        move(*arguments)

    monkeypatch.setattr(split_module, "_move", meanwhile)
    split(tmp_path, tmp_path / "packed", tmp_path / "twice", "S1,S5", "S9")
    for part in ("train", "test"):
        found, expected = (read_set(tmp_path / each / part, tmp_path / "x") for each in ("twice", "whole"))
        assert found == expected


@pytest.mark.parametrize("killed_at", [1, 5, 9, 14, 21])
def test_a_split_killed_anywhere_ends_with_the_same_bytes(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    split(tmp_path, source, tmp_path / "whole", "S1,S5", "S9")
    move, moved = split_module._move, []

    def cut(*arguments: Any) -> None:
        moved.append(arguments[0])
        if len(moved) == killed_at:
            raise KeyboardInterrupt
        move(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(split_module, "_move", cut)
        with pytest.raises(KeyboardInterrupt):
            split(tmp_path, source, tmp_path / "cut", "S1,S5", "S9")
    split(tmp_path, source, tmp_path / "cut", "S1,S5", "S9")
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_a_split_killed_between_its_two_indexes_goes_on(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split(tmp_path, source, tmp_path / "whole", "S1,S5", "S9")
    write = LocalStore.write_bytes

    def cut(store: LocalStore, name: str, data: bytes) -> None:
        if name == INDEX and store.folder.name == "test":
            raise KeyboardInterrupt
        write(store, name, data)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "write_bytes", cut)
        with pytest.raises(KeyboardInterrupt):
            split(tmp_path, source, tmp_path / "cut", "S1,S5", "S9")
    assert (tmp_path / "cut" / "train" / INDEX).exists()
    report = split(tmp_path, source, tmp_path / "cut", "S1,S5", "S9")
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert report.counts["train"] == 11 and report.counts["test"] == 6


def test_a_split_done_is_not_done_again(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = split(tmp_path, source, tmp_path / "split", "S1", "S9")
    monkeypatch.setattr(split_module, "borrowed_chunk", None)
    assert split(tmp_path, source, tmp_path / "split", "S1", "S9").summary == first.summary


def test_a_sample_whose_metadata_is_broken_is_left_out_named_and_counted(tmp_path: Path) -> None:
    from tests.chunks.test_layout import write_foreign

    write_foreign(tmp_path / "chunks", 8)
    path = tmp_path / "chunks" / "foreign-0001.tar"
    data = path.read_bytes()
    start = data.index(b'{"schema_version"')
    path.write_bytes(data[:start] + b"!" + data[start + 1 :])
    report = split(tmp_path, tmp_path / "chunks", tmp_path / "split", "S1", "S9")
    assert report.skipped == {"meta.json is not JSON": ["h36m-S1-Walking-54138969-000004-p0"]}
    assert (report.counts["train"], report.counts["test"], report.inputs) == (3, 4, 8)
    assert report.exit_code == 1


def test_a_half_written_source_chunk_is_refused_and_finished_chunks_stay(tmp_path: Path, source: Path) -> None:
    split(tmp_path, source, tmp_path / "whole", "S1,S5", "S9")
    last = source / "chunk_000003.tar"
    data = last.read_bytes()
    last.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"chunk_000003\.tar has .* bytes where index.json says.*copy it again"):
        split(tmp_path, source, tmp_path / "split", "S1,S5", "S9")
    assert (tmp_path / "split" / "train" / "train_000001.tar").exists()
    last.write_bytes(data)
    split(tmp_path, source, tmp_path / "split", "S1,S5", "S9")
    assert hashes(tmp_path / "split") == hashes(tmp_path / "whole")


def test_ranges_and_parts_of_names_mean_all_their_subjects(tmp_path: Path) -> None:
    subjects = ("0-999", "1000-1999", "2000-2999", "train/golf_00", "train/golf_01", "test/walk_00")
    write_set(tmp_path / "chunks", samples_of(18, subjects=subjects), chunk_size=6)
    split(tmp_path, tmp_path / "chunks", tmp_path / "split", "0-1999,train", "2000-2999,walk_00")
    parts = {part: set(read_index(open_store(tmp_path / "split" / part)).subjects) for part in ("train", "test")}
    assert parts == {
        "train": {"0-999", "1000-1999", "train/golf_00", "train/golf_01"},
        "test": {"2000-2999", "test/walk_00"},
    }
    with pytest.raises(ValueError, match="train/golf_00 cannot be in both"):
        split(tmp_path, tmp_path / "chunks", tmp_path / "other", "train", "golf_00")
