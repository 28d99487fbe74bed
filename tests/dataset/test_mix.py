"""A mix of sets: weights kept everywhere, each set complete epoch by epoch, and the guarantees of a single set."""

import itertools
import pickle
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from humanpose3d.chunks.layout import read_index
from humanpose3d.chunks.read import open_chunk
from humanpose3d.dataset.chunked_dataset import BrokenWindow, StreamingChunkedDataset, StreamingLoader
from humanpose3d.dataset.mix import DatasetMix, MixItem, parse_mix
from humanpose3d.dataset.order import PATTERN, MixOrder, SampleOrder, _interleaved, weights_to_parts
from humanpose3d.remotes import LocalStore
from tests.dataset.chunk_sets import Drive, write_set

CHUNK = 5
WEIGHTS = (0.7, 0.3)
weight_lists = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8)


# --- the pattern ------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30))
def test_weights_become_whole_parts_at_least_one_each(weights):
    parts = weights_to_parts(weights)
    exact = np.array(weights) / sum(weights) * PATTERN
    assert sum(parts) == PATTERN and min(parts) >= 1
    if exact.min() >= 1:
        assert np.abs(parts - exact).max() <= 1 + 1e-6


def test_round_weights_become_the_parts_one_expects():
    assert weights_to_parts([0.4, 0.6]) == [4000, 6000] == weights_to_parts([2, 3])
    assert weights_to_parts([1, 1, 1]) == [3334, 3333, 3333]
    assert weights_to_parts([1, 1e-9]) == [9999, 1]


@settings(max_examples=60, deadline=None)
@given(weight_lists)
def test_every_prefix_of_the_pattern_is_within_one_sample_of_the_weights(weights):
    parts = np.array(weights_to_parts(weights))
    drawn = np.cumsum(_interleaved(parts.tolist())[:, None] == np.arange(len(parts)), axis=0)
    lengths = np.arange(1, PATTERN + 1)[:, None]
    assert (np.abs(drawn * PATTERN - lengths * parts) < PATTERN).all(), "exact, in whole numbers"
    assert (drawn[-1] == parts).all()


def test_the_pattern_never_changes_between_versions():
    # A checkpoint's position means this pattern: when this fails, resuming old runs reads other samples.
    assert _interleaved(weights_to_parts([0.5, 0.3, 0.2]))[:10].tolist() == [0, 1, 0, 2, 0, 1, 0, 1, 0, 2]
    assert (_interleaved([PATTERN]) == 0).all()


# --- the order --------------------------------------------------------------------------------------------------------


@st.composite
def mixes(draw: st.DrawFn) -> MixOrder:
    groups = draw(st.integers(1, 3))
    chunk_lists = st.lists(st.integers(1, 9), min_size=groups, max_size=8)
    orders = [
        SampleOrder(each, seed=draw(st.integers(0, 2**40)), groups=groups, window_chunks=draw(st.integers(1, 4)))
        for each in draw(st.lists(chunk_lists, min_size=1, max_size=4))
    ]
    share = draw(st.integers(1, max(1, sum(order.samples for order in orders) // groups)))
    weights = draw(st.lists(st.floats(0.01, 1), min_size=len(orders), max_size=len(orders)))
    return MixOrder(orders, weights_to_parts(weights), global_batch=share * groups)


def walk(mix: MixOrder, batches: int) -> list:
    """The slots of the first batches, over as many epochs as it takes."""
    return [mix.slots(*divmod(number, mix.batches)) for number in range(batches)]


@settings(max_examples=150, deadline=None)
@given(mixes(), st.integers(1, 400))
def test_each_set_comes_complete_in_epochs_of_its_own(mix, samples):
    by_part: dict[tuple[int, int], list] = {}
    for slot in chain.from_iterable(walk(mix, -(-samples // mix.global_batch))):
        by_part.setdefault((slot.set, slot.group), []).append(slot)
        assert slot.counted
    for (number, group), slots in by_part.items():
        order = mix.orders[number]
        size = int(order.group_samples[group])
        # One after the other without a gap, from the very first, over the ends of the mix's epochs and of its own.
        assert [(slot.epoch, slot.offset) for slot in slots] == [divmod(each, size) for each in range(len(slots))]
        for epoch in range(len(slots) // size):
            places = {order.place(epoch, group, slot.offset) for slot in slots if slot.epoch == epoch}
            assert len(places) == size, "every sample once"


@settings(max_examples=150, deadline=None)
@given(mixes(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_every_batch_is_mixed_as_the_weights_say(mix, epoch, batch):
    drawn = np.bincount([slot.set for slot in mix.slots(epoch, batch % mix.batches)], minlength=len(mix.orders))
    assert (np.abs(drawn - mix.global_batch * mix._parts / PATTERN) < 2).all()
    so_far = epoch * mix.batches * mix.share
    for number, group in itertools.product(range(len(mix.orders)), range(mix.groups)):
        assert abs(mix._drawn(number, group, so_far) - so_far * mix._parts[number] / PATTERN) < 2


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 64), st.integers(0, 500))
def test_any_number_of_processes_that_divides_the_batch_sees_the_same_batches(data, world_size, epoch):
    groups = data.draw(st.sampled_from([each for each in (1, 2, 4) if world_size % each == 0]))
    orders = [SampleOrder([40] * 6, seed=seed, groups=groups) for seed in (1, 2, 3)]
    share = data.draw(st.integers(1, 3))
    mix = MixOrder(orders, weights_to_parts([5, 2, 1]), global_batch=world_size * share)
    batch = data.draw(st.integers(0, mix.batches - 1))
    fresh = pickle.loads(pickle.dumps(mix))
    parts = [fresh.slots(epoch, batch, rank, world_size) for rank in range(world_size)]
    assert {len(part) for part in parts} == {share}
    assert list(chain.from_iterable(parts)) == mix.slots(epoch, batch)
    for rank, part in enumerate(parts):
        assert {slot.group for slot in part} <= set(mix.groups_of(rank, world_size))


@settings(max_examples=100, deadline=None)
@given(mixes(), st.integers(0, 300), st.integers(0, 1000))
def test_the_windows_asked_for_are_those_that_a_batch_begins_in(mix, epoch, batch):
    batch %= mix.batches
    windows = mix.windows(epoch, batch, range(mix.groups))
    assert len(windows) == len(set(windows)) == mix.groups * len(mix.orders), "one of each set and group"
    seen = set()
    for slot in mix.slots(epoch, batch):
        if (slot.set, slot.group) in seen:
            continue
        seen.add((slot.set, slot.group))
        order = mix.orders[slot.set]
        [window] = [each for each in windows if (each.set, each.group) == (slot.set, slot.group)]
        assert (window.epoch, window.number) == (slot.epoch, order.window_of(slot.epoch, slot.group, slot.offset))
        assert order.place(slot.epoch, slot.group, slot.offset).chunk in mix.chunks(window)


def test_the_window_that_is_left_soonest_is_asked_for_first():
    slow, fast = (SampleOrder([10] * 8, seed=seed, window_chunks=2) for seed in (1, 2))
    mix = MixOrder([slow, fast], weights_to_parts([1, 9]), global_batch=4)
    assert [window.set for window in mix.windows(0, 0, [0])] == [1, 0]
    assert mix.after(mix.windows(0, 0, [0])[0])[1:] == (0, 0, 1)
    last = mix.windows(0, 0, [0])[0]._replace(number=3)
    assert mix.after(last)[1:] == (1, 0, 0), "the set's next epoch"


def test_a_mix_that_fills_no_batch_says_so():
    with pytest.raises(ValueError, match="5 samples in 1 group.* lower the batch size"):
        MixOrder([SampleOrder([2], seed=0), SampleOrder([3], seed=0)], [5000, 5000], global_batch=6)


# --- batches of real sets ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sets")
    bare = {"image": False, "depth": False}
    return {
        "big": write_set(folder / "big", 46, CHUNK, corpus="big", **bare),
        "small": write_set(folder / "small", 22, CHUNK, corpus="small", seed=1, **bare),
    }


def keys(samples, counted):
    return [f"{sample.corpus}:{sample.key}" for sample in samples]


def draw_action(sample, rng):
    """A transform: shows what the generator gives."""
    return sample.with_(action=f"{rng.random():.12f}")


def draws(samples, counted):
    return [(f"{sample.corpus}:{sample.key}", sample.action) for sample in samples]


def mix_of(sets, weights=WEIGHTS, **changes) -> DatasetMix:
    options = {"fields": (), "seed": 7} | changes
    return DatasetMix([StreamingChunkedDataset(source, name=name, **options) for name, source in sets.items()], weights)


def loader(sets, *, weights=WEIGHTS, global_batch=4, collate=keys, dataset_changes=None, **changes) -> StreamingLoader:
    source = mix_of(sets, weights, **(dataset_changes or {}))
    return StreamingLoader(source, global_batch=global_batch, collate=collate, **changes)


def batches_of(source: StreamingLoader, number: int) -> list:
    found: list = []
    while len(found) < number:
        found += itertools.islice(source, number - len(found))
    return found


def test_an_epoch_is_as_long_as_all_sets_and_the_next_goes_on(sets):
    source = loader(sets)
    assert len(source) == (46 + 22) // 4 and len(source.dataset) == 68
    found = list(chain.from_iterable(batches_of(source, 3 * len(source))))
    assert source.state_dict()["epoch"] == 3
    for name, size, weight in (("big", 46, 0.7), ("small", 22, 0.3)):
        own = [key for key in found if key.startswith(name)]
        assert abs(len(own) - weight * len(found)) < 1
        epochs = [own[first : first + size] for first in range(0, len(own) - size + 1, size)]
        assert len(epochs) == len(own) // size >= 2
        assert all(len(set(epoch)) == size for epoch in epochs)
        assert epochs[0] != epochs[1], "shuffled anew"


def test_a_mix_of_one_set_drops_nothing(sets):
    source = loader({"big": sets["big"]}, weights=[3])
    found = list(chain.from_iterable(batches_of(source, 23)))
    assert len(source) == 11 and len(set(found[:46])) == 46 == len(set(found[46:92]))


def test_nothing_changes_for_a_set_alone(sets):
    alone = StreamingLoader(StreamingChunkedDataset(sets["big"], fields=()), global_batch=4, collate=keys)
    assert alone.state_dict().keys() == {"epoch", "samples", "seed", "stream_groups", "data"}
    assert alone._order.orders[0].seed == 0


@pytest.mark.parametrize("workers", [(3, "threads"), (1, "processes")], ids=["threads", "a process"])
def test_workers_and_resuming_change_nothing(sets, workers):
    changes = {"collate": draws, "dataset_changes": {"transform": draw_action}}
    helping = {"num_workers": workers[0], "workers": workers[1]}
    whole = batches_of(loader(sets, **changes), 40)
    first = loader(sets, **helping, **changes)
    start = batches_of(first, 21)  # in the second epoch, with more prepared by workers than was handed out
    state = first.state_dict()
    first.close()
    assert (state["epoch"], state["samples"]) == (1, 4 * 4)
    second = loader(sets, **changes)
    second.load_state_dict(state)
    assert start + batches_of(second, 19) == whole


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 99),
    share=st.integers(1, 3),
    worlds=st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=4),
    groups=st.sampled_from([1, 2, 4]),
    weights=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
    epoch=st.integers(0, 1000),
    stops=st.integers(1, 5),
    data=st.data(),
)
def test_processes_may_change_at_every_resume(sets, seed, share, worlds, groups, weights, epoch, stops, data):
    def ranks(world_size):
        return [
            loader(sets, weights=weights, global_batch=4 * share, rank=rank, world_size=world_size,
                   stream_groups=groups, dataset_changes={"seed": seed})
            for rank in range(world_size)
        ]  # fmt: skip

    [alone] = ranks(1)
    batch = data.draw(st.integers(0, len(alone) - 1))
    state = alone.state_dict() | {"epoch": epoch, "samples": batch * 4 * share}
    alone.load_state_dict(state)
    whole, found = batches_of(alone, stops * len(worlds)), []
    for world_size in worlds:
        loaders = ranks(world_size)
        for each in loaders:
            each.load_state_dict(state)
        for _ in range(stops):
            found.append(list(chain.from_iterable(batches_of(each, 1)[0] for each in loaders)))
        [state] = {str(each.state_dict()): each.state_dict() for each in loaders}.values()
    assert found == whole


def test_two_sets_draw_different_random_numbers(sets):
    changes = {"collate": draws, "dataset_changes": {"transform": draw_action}}
    twice = {"one": sets["big"], "two": sets["big"]}
    source = mix_of(twice, transform=draw_action)
    drawn = [{each[0, place].key: each[0, place].action for place in range(46)} for each in source.sets]
    assert drawn[0].keys() == drawn[1].keys() and not set(drawn[0].values()) & set(drawn[1].values())
    assert [each[0, 0].key for each in source.sets] != [each[0, 1].key for each in source.sets]
    orders = [[each[0, place].key for place in range(46)] for each in source.sets]
    assert orders[0] != orders[1]
    # A set's samples and changes are its own, whatever it is mixed with.
    one, other = (
        list(chain.from_iterable(batches_of(each, 20)))
        for each in (loader(sets, **changes), loader({"big": sets["big"]}, weights=[1], **changes))
    )
    one = [pair for pair in one if pair[0].startswith("big")]
    assert one[:46] == other[:46]


# --- quarantine -------------------------------------------------------------------------------------------------------


def damage(folder: Path, chunk: int, sample: int) -> str:
    path = folder / f"train_{chunk:06d}.tar"
    table = open_chunk(path).table
    with path.open("r+b") as file:
        file.seek(int(table.offsets[sample, table.extensions.index("meta.json")]))
        file.write(b"#broken#")
    return table.key(sample)


def cut(folder: Path, chunk: int) -> None:
    path = folder / f"train_{chunk:06d}.tar"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def chunk_of(key: str) -> int:
    return int(key.split("-")[4]) // CHUNK


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 99),
    samples=st.sets(st.tuples(st.integers(0, 8), st.integers(0, CHUNK - 1)), max_size=4),
    chunk=st.none() | st.integers(0, 9),
    groups=st.sampled_from([1, 2]),
    world_size=st.sampled_from([1, 2, 4]),
    epoch=st.integers(0, 3),
)
def test_only_the_places_of_broken_samples_change(
    sets, tmp_path_factory, seed, samples, chunk, groups, world_size, epoch
):
    folder = tmp_path_factory.getbasetemp() / "mix-quarantine"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sets["big"], folder)
    broken = {f"big:{damage(folder, *each)}" for each in samples if each[0] != chunk}
    if chunk is not None:
        cut(folder, chunk)
    changes = {"stream_groups": groups, "dataset_changes": {"seed": seed}}
    healthy = loader(sets, **changes)
    ranks = [loader(sets | {"big": folder}, rank=rank, world_size=world_size, **changes) for rank in range(world_size)]
    for each in (healthy, *ranks):
        each.load_state_dict(each.state_dict() | {"epoch": epoch})
    before = list(healthy)
    after = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert len(after) == len(before) == len(healthy), "as many steps"
    for old, new in zip(chain(*before), chain(*after), strict=True):
        is_broken = old in broken or (old.startswith("big") and chunk_of(old) == chunk)
        assert (new != old) == is_broken
        assert new not in broken and new.split(":")[0] == old.split(":")[0], "a stand-in is of the same set"
    named = set().union(*(each.quarantined for each in ranks))
    all_names = {f"big/train_{chunk_of(key):06d}.tar:{key.split(':')[1]}" for key in broken}
    assert named <= all_names | {f"big/train_{chunk or 0:06d}.tar"}
    met = {key for key in chain(*before) if key in broken}
    assert {f"big:{name.split(':')[1]}" for name in named if ":" in name} >= met


def test_a_set_of_which_nothing_is_left_is_named(sets, tmp_path):
    shutil.copytree(sets["small"], tmp_path / "small")
    for chunk in range(5):
        cut(tmp_path / "small", chunk)
    source = loader(sets | {"small": tmp_path / "small"})
    with pytest.raises(BrokenWindow, match=f"nothing can be read from train_.* in {tmp_path / 'small'}"):
        list(source)
    assert source.quarantined and all(name.startswith("small/train_") for name in source.quarantined)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "message"),
    [({"weights": (0.5, 0.5)}, "saved in big=0.7 small=0.3, not in big=0.5 small=0.5"),
     ({"names": ("big", "tiny")}, "saved in big=0.7 small=0.3, not in big=0.7 tiny=0.3"),
     ({"dataset_changes": {"window_chunks": 2}}, "other data than big=.*46 samples in 10 chunks.*, small="),
     ({"swapped": True}, "other data than small=.*46 samples in 10 chunks"),
     ({"dataset_changes": {"seed": 8}}, "saved with seed 7, not 8"),
     ({"stream_groups": 2}, "saved with stream_groups 1, not 2"),
     ({"global_batch": 2}, "saved with global_batch 4, not 2")],
)  # fmt: skip
def test_a_position_in_another_mix_is_refused_in_one_line(sets, other, message):
    source = loader(sets)
    batches_of(source, 2)
    names, folders = other.pop("names", ("big", "small")), list(sets.values())
    if other.pop("swapped", False):
        folders = [folders[0], folders[0]]
    with pytest.raises(ValueError, match=message) as refused:
        loader(dict(zip(names, folders, strict=True)), **other).load_state_dict(source.state_dict())
    assert "\n" not in str(refused.value)


def test_a_position_of_a_mix_is_none_of_a_set_alone_and_the_other_way_round(sets):
    alone = StreamingLoader(StreamingChunkedDataset(sets["big"], fields=(), seed=7), global_batch=4, collate=keys)
    mixed = loader({"big": sets["big"]}, weights=[1])
    with pytest.raises(ValueError, match="saved in big=1, not in one set alone"):
        alone.load_state_dict(mixed.state_dict())
    with pytest.raises(ValueError, match="saved in one set alone, not in big=1"):
        mixed.load_state_dict(alone.state_dict())
    assert {type(value) for value in mixed.state_dict().values()} == {int, str}


def test_sets_that_cannot_be_mixed_are_refused(sets):
    big, small = (StreamingChunkedDataset(each, fields=(), name=name) for name, each in sets.items())
    with pytest.raises(ValueError, match="names of their own, not 'big', 'big'"):
        DatasetMix([big, big], WEIGHTS)
    with pytest.raises(ValueError, match="names of their own, not 'big', ''"):
        DatasetMix([big, StreamingChunkedDataset(sets["small"], fields=())], WEIGHTS)
    with pytest.raises(ValueError, match="as many weights"):
        DatasetMix([big, small], [1])
    with pytest.raises(ValueError, match="weights must be above 0, one for each set, not 1, -1"):
        DatasetMix([big, small], [1, -1])
    with pytest.raises(ValueError, match="the same seed"):
        DatasetMix([big, StreamingChunkedDataset(sets["small"], fields=(), name="small", seed=9)], WEIGHTS)
    with pytest.raises(ValueError, match="one cache folder"):
        DatasetMix([big, StreamingChunkedDataset(sets["small"], fields=(), name="small", cache_bytes=9)], WEIGHTS)
    with pytest.raises(ValueError, match="evaluate its sets one by one"):
        loader(sets, training=False)
    with pytest.raises(ValueError, match="small: stream_groups is 8, but there are only 5 chunks"):
        loader(sets, global_batch=8, stream_groups=8)


@pytest.mark.parametrize(
    "item",
    ["mpii", "mpii=data", "mpii=data:", "mpii=data:x", "mpii=data:0", "mpii=data:-1", "mpii=data:nan", "mpii=data:inf",
     "=data:1", "mp ii=data:1", "mpii=:1", "mpii=drive:mpii/shuffled"],
)  # fmt: skip
def test_a_bad_item_of_a_mix_is_named_with_an_example(item):
    with pytest.raises(ValueError, match="is not NAME=ROOT:WEIGHT; an example: --mix h36m=") as refused:
        parse_mix(["good=data:1", item])
    assert f"'{item}'" in str(refused.value) and "\n" not in str(refused.value)


def test_the_weight_of_a_mixs_item_stands_after_the_last_colon():
    assert parse_mix(["a=data/a:2", "b=drive:b/x=y:0.5", "c=drive::1e-1"]) == [
        MixItem("a", "data/a", 2.0),
        MixItem("b", "drive:b/x=y", 0.5),
        MixItem("c", "drive:", 0.1),
    ]
    with pytest.raises(ValueError, match="the name a is taken by data/a"):
        parse_mix(["a=data/a:2", "a=data/b:2"])


# --- remotes ----------------------------------------------------------------------------------------------------------


def largest(folder: Path) -> int:
    return max(entry.bytes for entry in read_index(LocalStore(folder)).chunks)


def test_sets_on_remotes_share_a_small_cache(sets, tmp_path):
    limit = 13 * max(map(largest, sets.values()))
    drives = {name: Drive(folder) for name, folder in sets.items()}
    source = loader(drives, dataset_changes={"cache_dir": tmp_path, "cache_bytes": limit}, num_workers=2)
    assert batches_of(source, 40) == batches_of(loader(sets), 40)
    source.close()
    assert all(drive.fetched for drive in drives.values())


def test_a_cache_must_hold_what_is_read_of_all_sets(sets, tmp_path):
    limit = 8 * max(map(largest, sets.values()))  # enough for either
    drives = {name: Drive(folder) for name, folder in sets.items()}
    with pytest.raises(ValueError, match="cannot hold the 13 chunks read at a time, .*--cache-gb"):
        mix_of(drives, cache_dir=tmp_path, cache_bytes=limit)
    # What lies on this machine needs no cache.
    mix_of(sets | {"small": drives["small"]}, cache_dir=tmp_path, cache_bytes=limit)


def test_a_process_fetches_only_the_chunks_of_its_groups(sets, tmp_path):
    fetched = []
    for rank in range(2):
        drives = {name: Drive(folder) for name, folder in sets.items()}
        cache = {"cache_dir": tmp_path / f"node{rank}"}
        source = loader(drives, rank=rank, world_size=2, stream_groups=2, dataset_changes=cache)
        batches_of(source, 40)
        source.close()
        fetched.append({(name, file) for name, drive in drives.items() for file in drive.fetched})
    assert not fetched[0] & fetched[1] and len(fetched[0] | fetched[1]) == 15
