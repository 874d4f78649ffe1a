"""Rows into batches: an endless training stream in an order given by (seed, index) alone, and one pass to evaluate."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import grain
import numpy as np

from research.batch import Example, Source
from research.data.rows import Mixture, read_rows

PREFETCH = 2  # batches kept ready by the one background thread


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


def eval_batches(
    examples: Source,
    *,
    batch_size: int,
    rows: slice = slice(None),
    prefetch: int = PREFETCH,
) -> Iterator[Example]:
    """One pass over a split in order, with `example_mask` in every batch, of which only `rows` are read.

    The last batch is filled up with repeats of the last row, their `example_mask` false: real tokens, so that no
    attention row is wholly masked.

    Raises:
      ValueError: no rows, or a batch size below 1.
    """
    size = len(examples)
    if not size:
        raise ValueError("the split has no rows to evaluate; give it more text or a smaller length")
    own = range(_positive(batch_size))[rows]

    def read(first: int) -> Example:
        ids = [first + row for row in own]
        batch = read_rows(examples, np.minimum(np.array(ids, np.int64), size - 1))
        return batch | {"example_id": _example_ids(ids), "example_mask": np.array(ids) < size}

    return _read_ahead(read, range(0, size, batch_size), prefetch)


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
