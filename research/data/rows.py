"""Rows read from one source, or from several joined or mixed."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import numpy as np

from research.batch import Example, Source


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


class WithArray(Sequence[Any]):
    """The rows of a source, each with one more array: `values[i]`, under `key`."""

    def __init__(self, source: Source, key: str, values: np.ndarray) -> None:
        assert len(values) == len(source)
        self._source, self._key, self._values = source, key, values

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index):
        return row_at(self, index)

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked."""
        return {**read_rows(self._source, indices), self._key: self._values[indices]}


class FirstRows(Sequence[Any]):
    """The first `size` rows of a source."""

    def __init__(self, source: Source, size: int) -> None:
        self._source, self._size = source, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index):
        if not 0 <= index < self._size:
            raise IndexError(index)
        return self._source[index]

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked."""
        return read_rows(self._source, indices)


def read_rows(source: Source, indices: np.ndarray) -> Example:
    """The rows at `indices`, stacked; by the source's own `rows(indices)` where it has one."""
    fast = getattr(source, "rows", None)
    if fast is not None:
        return fast(indices)
    rows = [source[int(index)] for index in indices]
    return {key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0]}


def text_columns(tokens: np.ndarray, lengths: np.ndarray) -> Example:
    """`tokens`, `segment_ids` (1 where real) and `positions`, each int32 [B L], of rows that hold one text each.

    The texts begin at column 0 and have `lengths` [B] tokens.
    """
    column = np.arange(tokens.shape[1], dtype=np.int32)
    real = column < lengths[:, None]
    return {
        "tokens": tokens.astype(np.int32),
        "segment_ids": real.astype(np.int32),
        "positions": np.where(real, column, 0),
    }


def row_at(source: Source, index: int) -> Example:
    """One row of a source that reads several at once."""
    if not 0 <= index < len(source):
        raise IndexError(index)
    return {key: values[0] for key, values in read_rows(source, np.array([index])).items()}
