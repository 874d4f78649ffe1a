"""Rows into batches: an endless training stream in an order given by (seed, index) alone, and one pass to evaluate."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import grain
import numpy as np

from research.batch import Example, Source

PREFETCH = 2  # batches kept ready by the one background thread


class Joined(Sequence[Any]):
    """Several sequences read as one, one after the other."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.parts else 0

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect.bisect_right(self._ends, index)
        return self.parts[part][index - self._first(part)]

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked in that order."""
        part_of = np.searchsorted(self._ends, indices, side="right")
        stacked: Example = {}
        for part in np.unique(part_of):
            here = part_of == part
            for key, values in read_rows(self.parts[part], indices[here] - self._first(part)).items():
                if key not in stacked:
                    stacked[key] = np.empty((len(indices), *values.shape[1:]), values.dtype)
                stacked[key][here] = values
        return stacked

    def _first(self, part: int) -> int:
        return int(self._ends[part]) - len(self.parts[part])


class Mixture(Joined):
    """Sources that `TrainStream` draws from in proportion to `weights` (grain keeps them to about 1 %).

    Raises:
      ValueError: not one positive weight for each source, or a source without rows.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        if len(weights) != len(sources) or not all(weight > 0 for weight in weights):
            raise ValueError(f"weights={tuple(weights)} for {len(sources)} sources; give each source a positive weight")
        for index, source in enumerate(sources):
            if not len(source):
                raise ValueError(f"source {index} of the mixture has no rows; leave it out or give it more text")
        super().__init__(sources)
        self.weights = tuple(weights)


class TrainStream:
    """An endless stream in which row i of step t is example `t·batch_size + i`, on any number of processes.

    Each source is shuffled anew in every epoch. Only `rows` of each global batch are read: the part of this process.

    Raises:
      ValueError: no examples, a negative seed, or a batch size below 1.
    """

    def __init__(self, examples: Source, *, seed: int, batch_size: int, rows: slice = slice(None)) -> None:
        if not len(examples):
            raise ValueError("the training split has no rows; give it more text or a smaller length")
        if seed < 0:
            raise ValueError(f"seed={seed} is negative; use 0 or more")
        self._examples = examples
        self._batch_size = _positive(batch_size)
        self._rows = range(batch_size)[rows]
        self._order = _order(examples, seed)

    def batch_at(self, step: int) -> Example:
        """The batch of `step`, counted from 0, read again."""
        return self._read(step * self._batch_size)

    def batches(self, *, start: int = 0, prefetch: int = PREFETCH) -> Iterator[Example]:
        """Batches from the example `start` (examples seen so far) on; closing the iterator ends its thread."""
        return _read_ahead(self._read, count(start, self._batch_size), prefetch)

    def _read(self, first: int) -> Example:
        ids = [first + row for row in self._rows]
        batch = read_rows(self._examples, np.array([self._order[index] for index in ids], np.int64))
        return batch | {"example_id": _example_ids(ids)}


def train_stream(
    examples: Source,
    *,
    seed: int,
    batch_size: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    prefetch: int = PREFETCH,
) -> Iterator[Example]:
    """This process's rows of every global batch of `batch_size`, from the example `start` on, without end.

    `examples` may be a `Mixture`. `prefetch` batches are kept ready by one background thread (0: no thread).
    """
    rows = process_rows(batch_size, process_index=process_index, process_count=process_count)
    return TrainStream(examples, seed=seed, batch_size=batch_size, rows=rows).batches(start=start, prefetch=prefetch)


def eval_batches(
    examples: Source,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    prefetch: int = PREFETCH,
) -> Iterator[Example]:
    """One pass over a split in order, with `example_mask` in every batch.

    The last batch is filled up with repeats of the last row, their `example_mask` false: real tokens, so that no
    attention row is wholly masked.

    Raises:
      ValueError: no rows, or a batch size that does not divide over the processes.
    """
    size = len(examples)
    if not size:
        raise ValueError("the split has no rows to evaluate; give it more text or a smaller length")
    own = process_rows(batch_size, process_index=process_index, process_count=process_count)
    rows = range(_positive(batch_size))[own]

    def read(first: int) -> Example:
        ids = [first + row for row in rows]
        batch = read_rows(examples, np.minimum(np.array(ids, np.int64), size - 1))
        return batch | {"example_id": _example_ids(ids), "example_mask": np.array(ids) < size}

    return _read_ahead(read, range(0, size, batch_size), prefetch)


def process_rows(batch_size: int, *, process_index: int, process_count: int) -> slice:
    """The rows of each global batch that a process reads.

    Raises:
      ValueError: the batch does not divide over the processes.
    """
    if batch_size % process_count:
        raise ValueError(
            f"batch_size={batch_size} does not divide over {process_count} processes; use a multiple of {process_count}"
        )
    share = batch_size // process_count
    return slice(process_index * share, (process_index + 1) * share)


def read_rows(source: Source, indices: np.ndarray) -> Example:
    """The rows at `indices`, stacked; by the source's own `rows(indices)` where it has one."""
    fast = getattr(source, "rows", None)
    if fast is not None:
        return fast(indices)
    rows = [source[int(index)] for index in indices]
    return {key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0]}


def _order(examples: Source, seed: int) -> grain.MapDataset:
    """The row that each index of the stream stands for."""
    parts = examples.parts if isinstance(examples, Mixture) else (examples,)
    orders, first = [], 0
    for number, part in enumerate(parts):
        # grain shuffles epoch e by seed + e: neighbouring seeds would repeat each other's epochs, so hash them first.
        hashed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        orders.append(grain.MapDataset.range(first, first + len(part)).shuffle(seed=hashed).repeat())
        first += len(part)
    return grain.MapDataset.mix(orders, examples.weights) if isinstance(examples, Mixture) else orders[0]


def _read_ahead(read: Callable[[int], Example], firsts: Iterable[int], depth: int) -> Iterator[Example]:
    if depth == 0:
        yield from map(read, firsts)
        return
    # One thread, not grain's 16: those are many times slower for rows that are in memory already.
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        pending = deque()
        try:
            for first in firsts:
                pending.append(thread.submit(read, first))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for batch in pending:
                batch.cancel()


def _positive(batch_size: int) -> int:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is below 1; use 1 or more")
    return batch_size


def _example_ids(ids: Sequence[int]) -> np.ndarray:
    return (np.array(ids, np.uint64) % 2**32).astype(np.uint32)
