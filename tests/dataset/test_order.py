"""The order of an epoch: complete, reproducible, the same for any processes, found without walking."""

import pickle
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from humanpose3d.dataset.order import BatchOrder, Place, SampleOrder, slice_size

sizes = st.lists(st.integers(1, 12), min_size=1, max_size=14)


@st.composite
def orders(draw: st.DrawFn, groups: bool = True, shuffle: bool = True) -> SampleOrder:
    chunk_samples = draw(sizes)
    return SampleOrder(
        chunk_samples,
        seed=draw(st.integers(-5, 2**40)),
        groups=draw(st.integers(1, len(chunk_samples))) if groups else 1,
        window_chunks=draw(st.integers(1, 5)),
        shuffle=shuffle and draw(st.booleans()),
    )


def everything(order: SampleOrder) -> list[Place]:
    return sorted(
        (Place(chunk, sample) for chunk, count in enumerate(order.chunk_samples) for sample in range(count)),
        key=lambda place: (place.chunk, place.sample),
    )


def epoch_of(order: SampleOrder, epoch: int) -> list[Place]:
    return [
        order.place(epoch, group, offset)
        for group in range(order.groups)
        for offset in range(int(order.group_samples[group]))
    ]


@given(orders(), st.integers(0, 1000))
def test_every_sample_comes_exactly_once_an_epoch(order, epoch):
    assert sorted(epoch_of(order, epoch), key=lambda place: (place.chunk, place.sample)) == everything(order)


@given(orders(), st.integers(0, 50), st.data())
def test_a_position_is_found_without_what_came_before(order, epoch, data):
    group = data.draw(st.integers(0, order.groups - 1))
    offset = data.draw(st.integers(0, int(order.group_samples[group]) - 1))
    walked = epoch_of(order, epoch)[int(order.group_samples[:group].sum()) + offset]
    fresh = pickle.loads(pickle.dumps(order))
    assert fresh.place(epoch, group, offset) == walked


@given(sizes)
def test_without_shuffling_the_order_is_the_stored_one(chunk_samples):
    order = SampleOrder(chunk_samples, seed=3, shuffle=False, window_chunks=2)
    assert epoch_of(order, 0) == epoch_of(order, 7) == everything(order)


def test_epochs_and_seeds_differ():
    order, other = (SampleOrder([50, 50, 50], seed=seed) for seed in (1, 2))
    assert epoch_of(order, 0) != epoch_of(order, 1)
    assert epoch_of(order, 0) != epoch_of(other, 0)


def test_samples_of_several_chunks_are_mixed_and_those_of_far_chunks_are_not():
    order = SampleOrder([100] * 12, seed=0, window_chunks=4)
    chunks = [place.chunk for place in epoch_of(order, 0)]
    assert len(set(chunks[:40])) == 4
    assert set(chunks[:400]) == set(int(chunk) for chunk in order.window_chunk_list(0, 0, 0))
    assert set(chunks[:400]).isdisjoint(chunks[400:])


@given(st.integers(2, 40), st.integers(2, 6))
def test_no_chunk_is_alone_in_its_window(chunks, window_chunks):
    order = SampleOrder([1] * chunks, seed=0, window_chunks=window_chunks)
    sizes = [len(order.window_chunk_list(0, 0, window)) for window in range(order.windows(0, 0))]
    assert sum(sizes) == chunks and max(sizes) <= window_chunks
    assert max(sizes) - min(sizes) <= 1 and (min(sizes) > 1 or window_chunks == 2)


def test_an_empty_chunk_is_passed_over():
    assert len(epoch_of(SampleOrder([3, 0, 2], seed=0), 0)) == 5


def test_the_order_never_changes_between_versions():
    # A checkpoint's position means this order: when this fails, resuming old runs reads other samples.
    order = SampleOrder([3, 4, 5, 6], seed=42, window_chunks=2)
    assert [(place.chunk, place.sample) for place in epoch_of(order, 1)][:6] == [
        (0, 0),
        (0, 2),
        (3, 2),
        (3, 4),
        (3, 1),
        (3, 5),
    ]


@given(orders(), st.integers(0, 20), st.data())
def test_stand_ins_are_all_others_of_the_window_once(order, epoch, data):
    group = data.draw(st.integers(0, order.groups - 1))
    offset = data.draw(st.integers(0, int(order.group_samples[group]) - 1))
    place = order.place(epoch, group, offset)
    chunks = order.window_chunk_list(epoch, group, order.window_of(epoch, group, offset))
    stand_ins = list(order.replacements(epoch, group, offset))
    others = {each for each in everything(order) if each.chunk in chunks} - {place}
    assert len(stand_ins) == len(others) and set(stand_ins) == others


@given(orders(), st.integers(0, 20))
def test_two_broken_samples_of_a_window_get_different_stand_ins(order, epoch):
    for group in range(order.groups):
        firsts: dict[int, list[Place]] = {}
        for offset in range(int(order.group_samples[group])):
            for stand_in in order.replacements(epoch, group, offset):
                firsts.setdefault(order.window_of(epoch, group, offset), []).append(stand_in)
                break
        assert all(len(set(places)) == len(places) for places in firsts.values())


@settings(max_examples=200)
@given(orders(), st.integers(1, 6), st.integers(1, 64), st.integers(0, 9))
def test_processes_one_after_the_other_are_one_process(order, share, world_size, epoch):
    global_batch = share * order.groups * world_size
    batches = BatchOrder(order, global_batch=global_batch, drop_last=False)
    for batch in range(batches.batches):
        slices = [batches.slots(epoch, batch, rank, world_size) for rank in range(world_size)]
        assert len({len(part) for part in slices}) == 1
        assert list(chain.from_iterable(slices)) == batches.slots(epoch, batch)
        for rank, part in enumerate(slices):
            assert {slot.group for slot in part} == set(batches.groups_of(rank, world_size))


@settings(max_examples=200)
@given(orders(), st.integers(0, 10**6), st.data())
def test_any_processes_that_share_the_batch_train_on_every_sample_at_most_once_an_epoch(order, epoch, data):
    """From a random batch on with one number of processes, and before it with another."""
    smallest = int(order.group_samples.min())
    global_batch = order.groups * data.draw(st.integers(1, smallest))
    worlds = [number for number in range(1, 65) if global_batch % number == 0]
    batches = BatchOrder(order, global_batch=global_batch, drop_last=True)
    resumed = data.draw(st.integers(0, batches.batches))
    before, after = data.draw(st.sampled_from(worlds)), data.draw(st.sampled_from(worlds))
    seen = []
    for batch in range(batches.batches):
        world_size = before if batch < resumed else after
        slots = [slot for rank in range(world_size) for slot in batches.slots(epoch, batch, rank, world_size)]
        assert len(slots) == global_batch
        seen += [order.place(slot.epoch, slot.group, slot.offset) for slot in slots]
    assert len(set(seen)) == len(seen) == batches.batches * global_batch
    # With one group less than a batch is left out; with more, the fuller groups wait for the emptiest.
    assert batches.batches == smallest // batches.share


@given(orders(), st.integers(1, 6))
def test_an_evaluation_counts_every_sample_exactly_once(order, share):
    batches = BatchOrder(order, global_batch=share * order.groups, drop_last=False)
    slots = list(chain.from_iterable(batches.slots(0, batch) for batch in range(batches.batches)))
    counted = [order.place(0, slot.group, slot.offset) for slot in slots if slot.counted]
    assert sorted(counted, key=lambda place: (place.chunk, place.sample)) == everything(order)
    assert len(slots) == batches.batches * share * order.groups


@given(orders(groups=False), st.integers(1, 12))
def test_training_drops_only_the_last_partial_batch(order, global_batch):
    if order.samples < global_batch:
        with pytest.raises(ValueError, match="lower the batch size"):
            BatchOrder(order, global_batch=global_batch, drop_last=True)
        return
    batches = BatchOrder(order, global_batch=global_batch, drop_last=True)
    slots = list(chain.from_iterable(batches.slots(0, batch) for batch in range(batches.batches)))
    assert [slot.offset for slot in slots] == list(range(order.samples - order.samples % global_batch))
    assert all(slot.counted for slot in slots)


@given(st.integers(2, 8), st.integers(1, 3))
def test_a_process_with_its_own_group_reads_only_that_groups_chunks(groups, epochs):
    order = SampleOrder([10] * (3 * groups), seed=5, groups=groups)
    batches = BatchOrder(order, global_batch=2 * groups, drop_last=True)
    seen = [
        {
            order.place(epoch, slot.group, slot.offset).chunk
            for epoch in range(epochs)
            for batch in range(batches.batches)
            for slot in batches.slots(epoch, batch, rank, groups)
        }
        for rank in range(groups)
    ]
    assert all(len(chunks) == 3 for chunks in seen)
    assert len(set(chain.from_iterable(seen))) == 3 * groups


@given(st.lists(st.integers(1, 100), min_size=4, max_size=40))
def test_groups_get_nearly_equal_shares(chunk_samples):
    order = SampleOrder(chunk_samples, seed=0, groups=4)
    assert order.group_samples.max() - order.group_samples.min() <= max(chunk_samples)


def test_what_cannot_be_shared_evenly_is_refused():
    with pytest.raises(ValueError, match="cannot be shared evenly by 3"):
        slice_size(10, 3)
    with pytest.raises(ValueError, match="multiple of stream_groups"):
        BatchOrder(SampleOrder([5, 5, 5], seed=0, groups=3), global_batch=10, drop_last=True)
    with pytest.raises(ValueError, match="only 2 chunks"):
        SampleOrder([5, 5], seed=0, groups=3)
    with pytest.raises(IndexError):
        SampleOrder([5], seed=0).place(0, 0, 5)


def test_a_huge_epoch_is_planned_within_200_megabytes():
    code = """
import resource, time
import numpy as np
from humanpose3d.dataset.order import BatchOrder, SampleOrder
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
order = SampleOrder(np.full(100_000, 10_000), seed=1, groups=4)
batches = BatchOrder(order, global_batch=256, drop_last=True)
for batch in (0, batches.batches // 2, batches.batches - 1):
    for slot in batches.slots(3, batch):
        order.place(3, slot.group, slot.offset)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.monotonic() - start)
"""
    grown_kib, seconds = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.split()
    assert int(grown_kib) < 200 * 1024
    assert float(seconds) < 20  # 0.1 s here; only a plan that walks the epoch takes this long


def test_all_orders_of_a_window_are_about_equally_likely():
    counts = np.zeros((4, 4))
    for seed in range(2000):
        order = SampleOrder([4], seed=seed)
        for offset in range(4):
            counts[offset, order.place(0, 0, offset).sample] += 1
    assert np.abs(counts - 500).max() < 100  # 5 sigma
