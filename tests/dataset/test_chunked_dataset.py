"""Streaming: the same samples in the same order for any processes, workers, interruptions and damage."""

import gzip
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from humanpose3d.chunks.layout import read_index
from humanpose3d.chunks.read import open_chunk
from humanpose3d.config import AugmentationConfig
from humanpose3d.dataset import cache as cache_module
from humanpose3d.dataset.augmentation import FitView, PoseAugmentor
from humanpose3d.dataset.chunked_dataset import BrokenWindow, StreamingChunkedDataset, StreamingLoader
from humanpose3d.dataset.collator import Human36MCollator
from humanpose3d.remotes import LocalStore
from tests.dataset.chunk_sets import Drive, write_set

SAMPLES, CHUNK = 46, 5  # ten chunks, the last with one sample: three windows

NONE = {"num_workers": 0}
THREAD, THREADS = ({"num_workers": number, "workers": "threads"} for number in (1, 3))
PROCESS, PROCESSES = ({"num_workers": number, "workers": "processes"} for number in (1, 2))


def named(workers: dict) -> str:
    return f"{workers['num_workers']} {workers.get('workers', '')}".strip()


def keys(samples, counted):
    """A collate function: what came, and what of it counts."""
    return [(sample.key, counts) for sample, counts in zip(samples, counted, strict=True)]


def draw(sample, rng):
    """A transform: shows what the generator gives."""
    return sample.with_(action=f"{rng.random():.12f}")


def draws(samples, counted):
    return [(sample.key, sample.action) for sample in samples]


@pytest.fixture(scope="module")
def chunk_set(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"), SAMPLES, CHUNK)


@pytest.fixture(scope="module")
def bare_set(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("bare"), SAMPLES, CHUNK, image=False, depth=False)


def dataset(folder, **changes) -> StreamingChunkedDataset:
    return StreamingChunkedDataset(folder, **({"fields": (), "seed": 7} | changes))


def loader(folder, *, global_batch=4, collate=keys, dataset_changes=None, **changes) -> StreamingLoader:
    source = dataset(folder, **(dataset_changes or {}))
    return StreamingLoader(source, global_batch=global_batch, collate=collate, **changes)


def batches_of(source: StreamingLoader, number: int) -> list:
    """The next batches, over as many epochs as it takes."""
    found: list = []
    while len(found) < number:
        found += itertools.islice(source, number - len(found))
    return found


def flat(batches) -> list[str]:
    return [key for batch in batches for key, _ in batch]


def copied(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(folder, to))


def damage(folder: Path, chunk: int, *samples: int, extension: str = "meta.json") -> set[str]:
    """Breaks one member of some samples in place; the samples' keys."""
    path = folder / f"train_{chunk:06d}.tar"
    table = open_chunk(path).table
    with path.open("r+b") as file:
        for sample in samples:
            file.seek(int(table.offsets[sample, table.extensions.index(extension)]))
            file.write(b"#broken#")
    return {table.key(sample) for sample in samples}


def chunk_of(key: str) -> int:
    return int(key.split("-")[4]) // CHUNK


def cut(folder: Path, chunk: int) -> str:
    path = folder / f"train_{chunk:06d}.tar"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    return path.name


# --- addressing -------------------------------------------------------------------------------------------------------


def test_every_sample_is_found_at_one_position(bare_set):
    stored = dataset(bare_set, shuffle=False)
    assert len(stored) == SAMPLES
    in_order = [stored[0, position].key for position in range(SAMPLES)]
    assert in_order == sorted(in_order)
    shuffled = [dataset(bare_set)[3, position].key for position in range(SAMPLES)]
    assert shuffled != in_order and sorted(shuffled) == in_order


def test_chosen_chunks_are_all_that_is_read(bare_set):
    some = dataset(bare_set, chunks=[2, 0], shuffle=False)
    assert [some[0, position].frame_index for position in range(len(some))] == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert len(dataset(bare_set, chunks=())) == SAMPLES


def test_the_sets_skeletons_are_known_before_a_sample_is_read(bare_set):
    assert (dataset(bare_set).skeleton, dataset(bare_set).keypoint_skeleton) == ("h36m_17", "coco_17")


def test_fields_that_were_not_asked_for_are_not_there(chunk_set):
    whole, bare = dataset(chunk_set, fields=("image", "depth_m"))[0, 0], dataset(chunk_set)[0, 0]
    assert whole.image.shape == (32, 32, 3) and whole.depth_m.shape == (16, 16)
    assert bare.image is None and bare.depth_m is None and bare.key == whole.key


def test_a_reader_of_keypoints_never_touches_a_jpeg(chunk_set, tmp_path):
    folder = copied(chunk_set, tmp_path / "set")
    broken = set().union(*(damage(folder, chunk, 0, extension="image.jpg") for chunk in range(3)))
    lifter, viewer = loader(folder), loader(folder, dataset_changes={"fields": ("image",)})
    assert broken & set(flat(lifter)) and not lifter.quarantined
    assert not broken & set(flat(viewer)) and viewer.quarantined


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_unknown_chunks_list_those_there_are(bare_set):
    with pytest.raises(ValueError, match=r"no chunk 11, 12; it has 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"):
        dataset(bare_set, chunks=[0, 12, 11])


def test_an_unknown_field_lists_the_known_ones(bare_set):
    with pytest.raises(ValueError, match="unknown fields depth; known: image, depth_m, keypoint_window"):
        dataset(bare_set, fields=("image", "depth"))


def test_an_empty_folder_and_an_unfinished_set_are_refused(bare_set, tmp_path):
    with pytest.raises(FileNotFoundError, match="no chunks"):
        dataset(tmp_path)
    folder = copied(bare_set, tmp_path / "set")
    (folder / "index.json").rename(folder / "building.json")
    with pytest.raises(ValueError, match="unfinished"):
        dataset(folder)


def test_a_cache_smaller_than_what_is_open_is_refused(bare_set, tmp_path):
    entries = read_index(LocalStore(bare_set)).chunks
    two_windows = sum(sorted(entry.bytes for entry in entries)[-8:])
    with pytest.raises(ValueError, match=r"cannot hold the 8 chunks read at a time, two windows .*--cache-gb"):
        dataset(Drive(bare_set), cache_dir=tmp_path, cache_bytes=two_windows - 1)
    dataset(Drive(bare_set), cache_dir=tmp_path, cache_bytes=two_windows)
    assert len(dataset(bare_set, cache_dir=tmp_path, cache_bytes=1000)) == SAMPLES, "nothing local is cached"


def test_a_cache_must_hold_the_chunks_of_all_groups_that_a_process_reads(bare_set, tmp_path):
    limit = 8 * max(entry.bytes for entry in read_index(LocalStore(bare_set)).chunks)
    cache = {"cache_dir": tmp_path, "cache_bytes": limit}
    with pytest.raises(ValueError, match="cannot hold the 10 chunks read at a time"):
        iter(loader(Drive(bare_set), stream_groups=2, dataset_changes=cache))
    source = loader(Drive(bare_set), stream_groups=2, rank=1, world_size=2, dataset_changes=cache)
    assert len(list(source)) == len(source)
    source.close()


def test_packed_chunks_count_with_what_is_in_them(tmp_path):
    packed = write_set(tmp_path / "packed", SAMPLES, CHUNK, compress="gz", image=False, depth=False)
    entries = read_index(LocalStore(packed)).chunks
    stored = sum(entry.bytes for entry in entries)
    unpacked = sum(len(gzip.decompress((packed / entry.file).read_bytes())) for entry in entries)
    assert unpacked > 2 * stored
    with pytest.raises(ValueError, match="cannot hold the 8 chunks read at a time"):
        dataset(packed, cache_dir=tmp_path, cache_bytes=2 * stored)
    dataset(packed, cache_dir=tmp_path, cache_bytes=unpacked)


def test_a_batch_that_processes_cannot_share_is_refused(bare_set):
    with pytest.raises(ValueError, match="cannot be shared evenly by 3"):
        loader(bare_set, global_batch=4, world_size=3)
    with pytest.raises(ValueError, match="lower the batch size"):
        loader(bare_set, global_batch=100)


# --- order ------------------------------------------------------------------------------------------------------------


def test_an_epoch_has_every_sample_once_but_the_last_partial_batch(bare_set):
    found = list(loader(bare_set, global_batch=5))
    assert len(found) == SAMPLES // 5 and {len(batch) for batch in found} == {5}
    assert len(set(flat(found))) == 45


@pytest.mark.parametrize("workers", [THREAD, THREADS, PROCESS, PROCESSES], ids=named)
def test_any_number_of_workers_gives_the_same_batches(chunk_set, workers):
    changes = {"collate": draws, "dataset_changes": {"transform": draw}}
    alone, helped = loader(chunk_set, **changes), loader(chunk_set, **workers, **changes)
    assert batches_of(alone, 25) == batches_of(helped, 25)  # over two ends of an epoch, the workers staying
    helped.close()


@pytest.mark.parametrize(
    ("before", "after"), [(NONE, THREADS), (THREADS, NONE), (THREAD, PROCESSES), (PROCESSES, THREADS)], ids=named
)
def test_resuming_goes_on_with_the_very_next_sample(chunk_set, before, after):
    changes = {"collate": draws, "dataset_changes": {"transform": draw}}
    whole = batches_of(loader(chunk_set, **changes), 30)
    first = loader(chunk_set, **before, **changes)
    start = batches_of(first, 14)  # in the second epoch, with more prepared by workers than was handed out
    state = first.state_dict()
    first.close()
    assert (state["epoch"], state["samples"]) == (1, 3 * 4)
    second = loader(chunk_set, **after, **changes)
    second.load_state_dict(state)
    assert start + batches_of(second, 16) == whole
    second.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 99),
    share=st.integers(1, 3),
    worlds=st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=4),
    groups=st.sampled_from([1, 2, 4]),
    epoch=st.integers(0, 1000),
    stops=st.integers(1, 6),
    data=st.data(),
)
def test_processes_may_change_at_every_resume(bare_set, seed, share, worlds, groups, epoch, stops, data):
    def ranks(world_size):
        return [
            loader(bare_set, global_batch=4 * share, rank=rank, world_size=world_size, stream_groups=groups,
                   dataset_changes={"seed": seed})
            for rank in range(world_size)
        ]  # fmt: skip

    def step(loaders):
        parts = [batches_of(each, 1)[0] for each in loaders]
        assert len({str(each.state_dict()) for each in loaders}) == 1
        return [pair for part in parts for pair in part]

    [alone] = ranks(1)
    batch = data.draw(st.integers(0, len(alone) - 1))
    state = alone.state_dict() | {"epoch": epoch, "samples": batch * 4 * share}
    alone.load_state_dict(state)
    whole, found = batches_of(alone, stops * len(worlds)), []
    for world_size in worlds:
        loaders = ranks(world_size)
        for each in loaders:
            each.load_state_dict(state)
        found += [step(loaders) for _ in range(stops)]
        state = loaders[0].state_dict()
    assert found == whole


def test_a_run_of_64_processes_goes_on_with_fewer_and_more(tmp_path):
    folder = write_set(tmp_path / "set", 150, 10, image=False, depth=False)
    whole = batches_of(loader(folder, global_batch=64), 5)
    found, state = [], None
    for world_size in (64, 1, 32, 8, 64):
        loaders = [loader(folder, global_batch=64, rank=rank, world_size=world_size) for rank in range(world_size)]
        for each in loaders:
            if state is not None:
                each.load_state_dict(state)
        found.append([pair for each in loaders for pair in batches_of(each, 1)[0]])
        state = loaders[-1].state_dict()
    assert found == whole


def test_the_position_rolls_over_as_the_last_batch_is_handed_out(bare_set):
    source = loader(bare_set)
    for number, _ in enumerate(source, 1):
        assert len(source) == 11
        expected = (1, 0) if number == 11 else (0, number * 4)
        assert (source.state_dict()["epoch"], source.state_dict()["samples"]) == expected


def test_seeking_does_not_replay(bare_set):
    source = loader(bare_set)
    state = source.state_dict() | {"epoch": 5000, "samples": 40}
    source.load_state_dict(state)
    assert len(list(source)) == 1
    assert source.state_dict()["epoch"] == 5001


@pytest.mark.parametrize(
    ("other", "message"),
    [({"dataset_changes": {"chunks": [0, 1, 2, 3]}}, "saved on other data"),
     ({"dataset_changes": {"window_chunks": 2}}, "saved on other data"),
     ({"dataset_changes": {"seed": 8}}, "saved with seed 7, not 8"),
     ({"stream_groups": 2}, "saved with stream_groups 1, not 2"),
     ({"global_batch": 3}, "no start of a batch of 3")],
)  # fmt: skip
def test_a_position_in_another_order_is_refused(bare_set, other, message):
    source = loader(bare_set)
    batches_of(source, 2)
    with pytest.raises(ValueError, match=message):
        loader(bare_set, **other).load_state_dict(source.state_dict())
    with pytest.raises(ValueError, match="no position in a data set: data, epoch"):
        source.load_state_dict({"seed": 7})


def test_a_position_is_plain_numbers_and_text(bare_set):
    assert {type(value) for value in loader(bare_set).state_dict().values()} == {int, str}


def test_a_stale_iterator_says_so(bare_set):
    source = loader(bare_set)
    first = iter(source)
    next(first)
    next(iter(source))
    with pytest.raises(RuntimeError, match="stale"):
        next(first)


def test_iterating_leaves_torchs_generator_alone(bare_set):
    before = torch.get_rng_state()
    list(loader(bare_set))
    assert torch.equal(before, torch.get_rng_state())


def test_what_a_transform_draws_depends_on_seed_epoch_and_sample(chunk_set):
    def drawn(seed, epoch, chunks=None):
        source = dataset(chunk_set, transform=draw, seed=seed, chunks=chunks)
        samples = [source[epoch, position] for position in range(len(source))]
        return {sample.key: sample.action for sample in samples}

    first = drawn(1, 0)
    assert len(set(first.values())) == SAMPLES
    assert first == drawn(1, 0)
    assert not set(first.values()) & (set(drawn(1, 1).values()) | set(drawn(2, 0).values()))
    assert drawn(1, 0, chunks=[3, 4]).items() <= first.items(), "not on what else is in the set"


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_evaluation_counts_every_sample_once_in_stored_order(bare_set, world_size):
    ranks = [
        loader(bare_set, rank=rank, world_size=world_size, training=False, dataset_changes={"shuffle": False})
        for rank in range(world_size)
    ]
    batches = [list(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert len(batches) == 12 and {len(batch) for batch in batches} == {4}
    counted = [key for batch in batches for key, counts in batch if counts]
    assert len(counted) == SAMPLES and counted == sorted(counted)


def test_an_evaluation_starts_anew_each_time(bare_set):
    source = loader(bare_set, training=False, num_workers=1)
    first = batches_of(source, 3)
    assert list(source)[:3] == first
    assert len(list(source)) == 12
    source.close()


def test_a_stand_in_does_not_count_in_an_evaluation(bare_set, tmp_path):
    folder = copied(bare_set, tmp_path / "set")
    [broken] = damage(folder, 4, 2)
    found = list(loader(folder, training=False, dataset_changes={"shuffle": False}))
    counted = [key for batch in found for key, counts in batch if counts]
    assert len(found) == 12 and len(counted) == SAMPLES - 1 and broken not in counted
    assert len(set(counted)) == len(counted)


def test_a_drawn_picture_trains_but_does_not_count_in_an_evaluation(tmp_path):
    folder = write_set(tmp_path / "drawn", 8, 4, image=False, depth=False, synthetic=True)
    for training in (True, False):
        found = list(loader(folder, training=training, dataset_changes={"shuffle": False}))
        assert {counts for batch in found for _, counts in batch} == {training}


# --- quarantine -------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 99),
    samples=st.sets(st.tuples(st.integers(0, 8), st.integers(0, CHUNK - 1)), max_size=4),
    chunks=st.sets(st.integers(0, 9), max_size=1),
    groups=st.sampled_from([1, 2]),
    world_size=st.sampled_from([1, 2, 4]),
    epoch=st.integers(0, 3),
)
def test_only_the_places_of_broken_samples_change(
    bare_set, tmp_path_factory, seed, samples, chunks, groups, world_size, epoch
):
    folder = copied(bare_set, tmp_path_factory.getbasetemp() / "quarantine")
    broken = set().union(*(damage(folder, *each) for each in samples if each[0] not in chunks))
    names = {cut(folder, chunk) for chunk in chunks}
    healthy = loader(bare_set, stream_groups=groups, dataset_changes={"seed": seed})
    ranks = [
        loader(folder, rank=rank, world_size=world_size, stream_groups=groups, dataset_changes={"seed": seed})
        for rank in range(world_size)
    ]
    for each in (healthy, *ranks):
        each.load_state_dict(each.state_dict() | {"epoch": epoch})
    before = list(healthy)
    after = [list(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert len(after) == len(before) == len(healthy), "as many steps"
    for (old, _), (new, _) in zip(itertools.chain(*before), itertools.chain(*after), strict=True):
        assert (new != old) == (old in broken or chunk_of(old) in chunks)
        assert new not in broken and chunk_of(new) not in chunks
    named = set().union(*(each.quarantined for each in ranks))
    assert named <= names | {f"train_{chunk_of(key):06d}.tar:{key}" for key in broken}
    met = {key for key in flat(before) if key in broken}
    assert {name.split(":")[1] for name in named - names} >= met


def test_a_stand_in_is_of_the_same_window(bare_set, tmp_path):
    folder = copied(bare_set, tmp_path / "set")
    broken = damage(folder, 3, *range(CHUNK))
    source = dataset(folder, window_chunks=2, shuffle=False)
    chunks = [source[0, position].frame_index // CHUNK for position in range(10, 20)]
    assert chunks == [2] * 10  # chunks 2 and 3 are a window
    assert {each.name.split(":")[1] for each in source.take_quarantined()} == broken and not source.take_quarantined()


@pytest.mark.parametrize("workers", [NONE, THREADS, PROCESSES], ids=named)
def test_what_is_left_out_is_named_once_with_its_reason(bare_set, tmp_path, workers, caplog):
    folder = copied(bare_set, tmp_path / "set")
    [broken] = damage(folder, 1, 1)
    name = cut(folder, 8)
    source = loader(folder, **workers)
    batches_of(source, 33)
    source.close()
    assert source.quarantined.keys() == {f"train_000001.tar:{broken}", name}
    assert source.quarantined[f"train_000001.tar:{broken}"] == "meta.json is not JSON"
    assert "index.json says" in source.quarantined[name]
    assert sum(record.message.startswith("left out") for record in caplog.records) == 2


def test_a_chunk_that_comes_back_is_read_in_the_next_epoch(bare_set, tmp_path):
    folder = copied(bare_set, tmp_path / "set")
    data = (folder / "train_000002.tar").read_bytes()
    cut(folder, 2)
    source = loader(folder)
    assert 2 not in {chunk_of(key) for key in flat(source)}
    (folder / "train_000002.tar").write_bytes(data)
    assert batches_of(source, 11) == batches_of(healthy_in_epoch(bare_set, 1), 11)


def healthy_in_epoch(folder, epoch) -> StreamingLoader:
    source = loader(folder)
    source.load_state_dict(source.state_dict() | {"epoch": epoch})
    return source


@pytest.mark.parametrize("workers", [NONE, THREADS, PROCESS], ids=named)
def test_a_window_with_nothing_left_ends_in_one_clear_line(bare_set, tmp_path, workers):
    folder = copied(bare_set, tmp_path / "set")
    for chunk in range(10):
        cut(folder, chunk)
    source = loader(folder, **workers)
    with pytest.raises(BrokenWindow, match="nothing can be read from train_") as error:
        next(iter(source))
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    assert len(source.quarantined) == 3
    source.close()


def test_attempts_are_bounded(tmp_path):
    folder = write_set(tmp_path / "set", 100, 100, image=False, depth=False)
    damage(folder, 0, *range(100))
    source = dataset(folder)
    with pytest.raises(BrokenWindow):
        _ = source[0, 0]
    assert len(source.take_quarantined()) == 64


@pytest.mark.parametrize("workers", [THREADS, PROCESS], ids=named)
def test_a_users_mistake_comes_out_of_a_worker_as_it_is(chunk_set, workers):
    collate = Human36MCollator("coco_17", "coco_17")
    source = loader(chunk_set, collate=collate, **workers, dataset_changes={"transform": FitView(32)})
    with pytest.raises(ValueError, match="joints are in skeleton 'h36m_17', but the model wants 'coco_17'") as error:
        next(iter(source))
    assert "\n" not in str(error.value)
    source.close()


# --- remotes and packed chunks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [NONE, THREADS, PROCESSES], ids=named)
def test_a_remote_gives_the_same_batches_through_a_small_cache(bare_set, tmp_path, workers):
    limit = 8 * max(entry.bytes for entry in read_index(LocalStore(bare_set)).chunks)
    drive = Drive(bare_set, log=tmp_path / "log")
    source = loader(drive, **workers, dataset_changes={"cache_dir": tmp_path / "cache", "cache_bytes": limit})
    assert batches_of(source, 22) == batches_of(loader(bare_set), 22)
    source.close()


@pytest.mark.parametrize("workers", [NONE, THREADS], ids=named)
@pytest.mark.parametrize("compress", ["none", "gz"])
def test_the_cache_never_takes_more_than_its_limit(tmp_path, workers, compress, monkeypatch):
    monkeypatch.setattr(cache_module, "HELD_S", 60.0)  # a busy machine's threads hold a chunk longer
    folder = write_set(tmp_path / "set", 80, CHUNK, compress=compress, image=False, depth=False)
    whole = dataset(Drive(folder))
    largest = max(whole.entries, key=whole.cache.size)
    limit = 8 * whole.cache.size(largest) + whole.cache.needed(largest)
    used = []

    class Watched(Drive):
        def get(self, name, path, **options):
            super().get(name, path, **options)
            cache = tmp_path / "cache"
            reserved = {file.parent.name: file for file in cache.glob("fetching/*/reserved")}
            files = reserved | {file.stem: file for file in cache.glob("chunks/*.tar")}  # a chunk that has come, once
            used.append(sum(file.stat().st_size for file in files.values() if file.exists()))

    source = loader(Watched(folder), **workers, dataset_changes={"cache_dir": tmp_path / "cache", "cache_bytes": limit})
    assert len(batches_of(source, 3 * len(source))) == 3 * len(source)
    source.close()
    about = 1.05 if compress == "gz" else 1.0  # what is in a .tar.gz is known by the mean of all
    assert len(used) > 16 and max(used) <= about * limit


def test_prefetching_stays_ahead_of_the_reader(bare_set, tmp_path):
    source = loader(Drive(bare_set), dataset_changes={"cache_dir": tmp_path})
    iterator = iter(source)
    next(iterator)
    from tests.dataset.test_cache import cached, wait_until

    wait_until(lambda: len(cached(tmp_path)) == 6)  # the window being read and the next one
    list(iterator)
    wait_until(lambda: len(cached(tmp_path)) == 10)
    source.close()


def test_the_first_batch_waits_for_nothing_but_its_window(bare_set, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cache_module.Prefetcher, "want", lambda _, wishes: asked.append(len(list(wishes))))
    source = loader(Drive(bare_set), dataset_changes={"cache_dir": tmp_path})
    iterator = iter(source)
    assert asked == [3]  # the window that is read
    next(iterator)
    assert asked == [3, 6]  # and the next one
    source.close()


def test_a_process_fetches_only_the_chunks_of_its_groups(bare_set, tmp_path):
    drives = [Drive(bare_set) for _ in range(2)]
    for rank, drive in enumerate(drives):
        cache = {"cache_dir": tmp_path / f"node{rank}"}
        source = loader(drive, rank=rank, world_size=2, stream_groups=2, dataset_changes=cache)
        batches_of(source, 25)
        source.close()
    first, second = (set(drive.fetched) for drive in drives)
    assert len(first) == len(second) == 5 and not first & second


def test_a_set_with_packed_and_plain_chunks_is_read_as_one(bare_set, tmp_path):
    folder = copied(bare_set, tmp_path / "set")
    for path in (folder / "train_000001.tar", folder / "train_000004.tar"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()
    (folder / "index.json").unlink()
    source = loader(folder, dataset_changes={"cache_dir": tmp_path / "cache"})
    assert batches_of(source, 11) == batches_of(loader(bare_set), 11)
    assert len(list((tmp_path / "cache" / "chunks").glob("*.tar"))) == 2
    source.close()


def test_packed_chunks_give_the_same_batches(bare_set, tmp_path):
    packed = write_set(tmp_path / "packed", SAMPLES, CHUNK, compress="gz", image=False, depth=False)
    source = loader(packed, dataset_changes={"cache_dir": tmp_path / "cache"})
    assert batches_of(source, 11) == batches_of(loader(bare_set), 11)


def test_a_chunk_gone_from_the_remote_is_quarantined(bare_set, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "RETRY_DELAYS_S", (0.01,))
    folder = copied(bare_set, tmp_path / "set")
    (folder / "train_000005.tar").unlink()
    source = loader(Drive(folder), dataset_changes={"cache_dir": tmp_path / "cache"})
    assert len(list(source)) == 11
    assert list(source.quarantined) == ["train_000005.tar"]


# --- the whole road, and what it costs --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [THREADS, PROCESSES], ids=named)
def test_batches_of_views_are_the_same_with_and_without_workers(chunk_set, workers):
    changes = {
        "collate": Human36MCollator("h36m_17", "coco_17"),
        "dataset_changes": {"fields": ("image", "depth_m"), "transform": PoseAugmentor(AugmentationConfig(), 24)},
    }
    helped = loader(chunk_set, **workers, **changes)
    for here, there in zip(loader(chunk_set, **changes), helped, strict=True):
        assert here.keys == there.keys
        for name, value in vars(here).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, getattr(there, name)), name
        assert here.image.shape == (4, 3, 24, 24) and here.joint_mask.all()
    helped.close()


PRIVATE_MEMORY = """
import re, sys
from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset
def private_kib():
    text = open("/proc/self/smaps_rollup").read()
    return sum(int(size) for size in re.findall(r"Private_(?:Dirty|Clean): +(\\d+)", text))
source = StreamingChunkedDataset(sys.argv[1], fields=("image",), shuffle=False)
source[0, 0]
before = private_kib()
for position in range(len(source)):
    source[0, position]
print(private_kib() - before)
"""


def test_private_memory_does_not_grow_with_a_chunk(tmp_path):
    if not Path("/proc/self/smaps_rollup").is_file():
        pytest.skip("no smaps_rollup on this system")
    folder = write_set(tmp_path / "set", 60, 60, size=640, depth=False, noise=True)
    [path] = folder.glob("*.tar")
    assert path.stat().st_size > 20e6
    done = subprocess.run([sys.executable, "-c", PRIVATE_MEMORY, str(folder)], capture_output=True, check=True)
    assert int(done.stdout) < 8_000  # one decoded picture is 1.2 MB, all of them 74 MB


def test_lightning_resumes_in_mid_epoch_and_at_its_end(bare_set, tmp_path):
    whole = lightning_run(bare_set, tmp_path / "whole", epochs=3)
    for stop in (4, 11, 15):
        out = tmp_path / f"stopped{stop}"
        first = lightning_run(bare_set, out, epochs=3, stop_after=stop)
        rest = lightning_run(bare_set, out, epochs=3, resume=out / "last.ckpt")
        assert first + rest == whole, f"stopped after {stop}"


def lightning_run(folder: Path, out: Path, *, epochs: int, stop_after: int = -1, resume: Path | None = None) -> list:
    """The batches a Trainer saw. `stop_after`: the run ends there with a checkpoint, as a killed one leaves it."""
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Killed(Exception):
        pass

    class Listener(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen: list = []

        def training_step(self, batch, batch_index):
            if len(self.seen) == stop_after:
                raise Killed
            self.seen.append([key for key, _ in batch])
            return (self.weight**2).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

        def on_save_checkpoint(self, checkpoint):
            checkpoint["position"] = source.state_dict()

        def on_load_checkpoint(self, checkpoint):
            source.load_state_dict(checkpoint["position"])

    source, module = loader(folder), Listener()
    saves = ModelCheckpoint(out, save_last=True, every_n_train_steps=1, save_top_k=0)
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[saves], use_distributed_sampler=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=out, accumulate_grad_batches=1,
    )  # fmt: skip
    try:
        trainer.fit(module, source, ckpt_path=resume, weights_only=True)
    except Killed:
        pass
    return module.seen
