"""From the stored members of samples to a batch: for our own records, and for sets that somebody else wrote.

What is read when is `chunked_dataset.py`'s, who does the work `workers.py`'s.
"""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson
import torch

from humanpose3d.chunks.codec import BadSample, decode_sample, members_of
from humanpose3d.sample import PoseSample

MOST_SPARE_BLOCKS = 8  # of one size that a `BatchMemory` keeps while nobody uses them

Transform = Callable[[PoseSample, np.random.Generator], PoseSample]
Collate = Callable[[list[PoseSample], list[bool]], Any]  # samples, and which of them count in an evaluation


@dataclass(frozen=True, slots=True)
class StoredSample:
    """One sample as it lies in a chunk."""

    key: str
    members: Mapping[str, bytes]  # extension -> bytes: of those a decoder asks for, the ones that exist
    seeds: tuple[int, ...]  # the loader's seed, the epoch, the chunk's number and the sample's in it

    def rng(self) -> np.random.Generator:
        """For random changes: what it gives depends on the seed, the epoch and the sample alone."""
        return np.random.default_rng([part % 2**64 for part in self.seeds])

    def member(self, extension: str) -> bytes:
        """BadSample where it is missing."""
        if extension not in self.members:
            raise BadSample(self.key, f"{extension} is missing")
        return self.members[extension]

    def json(self, extension: str) -> Any:
        """A member's JSON. BadSample where it is none."""
        try:
            return orjson.loads(self.member(extension))
        except orjson.JSONDecodeError:
            raise BadSample(self.key, f"{extension} is not JSON") from None


class Decoder(Protocol):
    """Stored samples -> a batch.

    Several threads decode into one batch at a time, each into rows of its own. A BadSample raised by `decode` leaves
    the sample out, counted and named, and another is decoded into the same row; other errors end the epoch.
    """

    @property
    def extensions(self) -> Collection[str]:
        """The members it needs; others are never read."""

    def new_batch(self, size: int) -> Any:
        """What `decode` fills: room for that many samples."""

    def decode(self, sample: StoredSample, batch: Any, row: int) -> bool:
        """Writes all of a row; whether the sample may count in an evaluation. BadSample where it is broken."""

    def finish(self, batch: Any, counted: Sequence[bool]) -> Any:
        """The batch as the loader hands it out. counted: which rows count in an evaluation."""


class PoseDecoder:
    """Our own records: decoded, transformed and collated."""

    def __init__(self, fields: Collection[str], transform: Transform | None, collate: Collate | None) -> None:
        assert collate is not None
        self.fields, self.transform, self.collate = tuple(fields), transform, collate
        self.extensions = members_of(fields)

    def new_batch(self, size: int) -> list[PoseSample | None]:
        return [None] * size

    def decode(self, sample: StoredSample, batch: list[PoseSample | None], row: int) -> bool:
        batch[row] = record = decode_record(sample, self.fields, self.transform)
        return not record.synthetic

    def finish(self, batch: list[PoseSample], counted: Sequence[bool]) -> Any:
        whole = self.collate(batch, list(counted))
        # Worker processes cannot: there the DataLoader does it, once the batch has arrived.
        return whole.pin_memory() if is_pinning() and hasattr(whole, "pin_memory") else whole


def decode_record(sample: StoredSample, fields: Collection[str], transform: Transform | None) -> PoseSample:
    """One of our own records, transformed. BadSample."""
    record = decode_sample(sample.key, sample.members, fields)
    if transform is None:
        return record
    try:
        return transform(record, sample.rng())
    except Exception as error:
        error.add_note(f"in sample {sample.key}")
        raise


@dataclass(frozen=True)
class ArrayBatch:
    """An `ArrayDecoder`'s batch in the making: the same memory as tensors and as arrays."""

    tensors: dict[str, torch.Tensor]
    arrays: dict[str, np.ndarray]


class ArrayDecoder(ABC):
    """A decoder for any WebDataset: name the arrays of a sample in `rows`, and write them in `decode_row`.

    The batch is a dict of tensors [B, ...], made once and decoded into: page-locked memory where CUDA waits, else
    memory that goes round. `Frames` in benchmarks/streaming.py is an example.
    """

    extensions: Collection[str]
    rows: Mapping[str, tuple[tuple[int, ...], Any]]  # name -> (shape, dtype) of one sample's array

    @abstractmethod
    def decode_row(self, sample: StoredSample, row: dict[str, np.ndarray]) -> None:
        """Writes into the arrays of `row`, all of them. BadSample where the sample is broken."""

    def new_batch(self, size: int) -> ArrayBatch:
        memory = self.__dict__.setdefault("_memory", BatchMemory())
        tensors = {name: memory.tensor((size, *shape), dtype) for name, (shape, dtype) in self.rows.items()}
        return ArrayBatch(tensors, {name: tensor.numpy() for name, tensor in tensors.items()})

    def decode(self, sample: StoredSample, batch: ArrayBatch, row: int) -> bool:
        self.decode_row(sample, {name: array[row, ...] for name, array in batch.arrays.items()})
        return True

    def finish(self, batch: ArrayBatch, counted: Sequence[bool]) -> Any:
        return batch.tensors


class BatchMemory:
    """Memory for the tensors of batches, used again once nobody holds a tensor in it.

    New memory is mapped page by page as it is first written: 0.03 to 0.08 ms a sample of 256 px with depth.
    """

    def __init__(self) -> None:
        self._spare: dict[int, list[np.ndarray]] = defaultdict(list)

    def __reduce__(self) -> tuple[type[BatchMemory], tuple[()]]:  # a worker process has memory of its own
        return BatchMemory, ()

    def tensor(self, shape: tuple[int, ...], dtype: Any) -> torch.Tensor:
        """Its contents are what was there before. Page-locked where CUDA waits and this is not a worker process."""
        kind = np.dtype(dtype)
        if is_pinning():
            # Torch's own: it knows which copies to the device are still under way before it gives memory out again.
            return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, kind)).dtype, pin_memory=True)
        size = math.prod(shape) * kind.itemsize
        spare = self._spare[size]
        try:
            block = spare.pop()
        except IndexError:
            block = np.empty(size, np.uint8)
        # All views of it, tensors' too, keep the first array over a foreign buffer alive, and that one can be watched.
        array = np.frombuffer(block.data, kind)
        weakref.finalize(array, _put_back, spare, block).atexit = False
        return torch.from_numpy(array.reshape(shape))


def _put_back(spare: list[np.ndarray], block: np.ndarray) -> None:
    if len(spare) < MOST_SPARE_BLOCKS:
        spare.append(block)


def is_pinning() -> bool:
    """CUDA waits for the batches, and this is not a worker process."""
    return torch.cuda.is_available() and torch.utils.data.get_worker_info() is None
