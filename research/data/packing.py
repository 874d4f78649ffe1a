"""Documents into rows of fixed length: planned once from their lengths, so that a row is a function of its index."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from research.batch import Example
from research.data.shards import TokenShards


@dataclass(frozen=True)
class RowTable:
    """Which pieces of which documents each row of `length` tokens holds."""

    length: int
    row_starts: np.ndarray  # int64 [R + 1], row r holds the pieces row_starts[r] … row_starts[r + 1] - 1
    piece_document: np.ndarray  # int64 [P]
    piece_start: np.ndarray  # int64 [P], in tokens from the start of the document
    piece_length: np.ndarray  # int64 [P], at least 2
    num_dropped: int  # documents of fewer than two tokens: nothing in them can be predicted

    def __len__(self) -> int:
        return len(self.row_starts) - 1

    def save(self, path: Path) -> None:
        """Writes an `.npz` file whole or not at all: several processes may save the same table."""
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        with partial.open("wb") as file:
            np.savez(file, **vars(self))
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> RowTable:
        with np.load(path, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in saved.files}
        length, num_dropped = (int(arrays.pop(name)) for name in ("length", "num_dropped"))
        return cls(length=length, num_dropped=num_dropped, **arrays)


def plan(lengths: np.ndarray, *, length: int, seed: int = 0) -> RowTable:
    """Cuts documents of `lengths` tokens into pieces that fit a row, and packs the pieces.

    Pieces of one document overlap by one token, so that every token after a document's first is predicted exactly once.
    They are packed in a pseudo-random order, each into the open row that it fills best (best-fit: as good as first-fit
    in the worst case, and a row is found in constant time).

    Raises:
      ValueError: `length` is below 2.
    """
    _check_length(length)
    lengths = np.asarray(lengths, np.int64)
    kept = lengths >= 2
    num_pieces = np.where(kept, -(-(lengths - 1) // (length - 1)), 0)
    document = np.repeat(np.arange(len(lengths)), num_pieces)
    start = _counting(num_pieces) * (length - 1)
    piece_length = np.minimum(lengths[document] - start, length)

    order = np.random.default_rng(seed).permutation(len(document))
    row = _best_fit(piece_length[order], length)
    by_row = np.argsort(row, kind="stable")
    order = order[by_row]
    num_rows = int(row.max()) + 1 if len(row) else 0
    return RowTable(
        length=length,
        row_starts=np.searchsorted(row[by_row], np.arange(num_rows + 1)),
        piece_document=document[order],
        piece_start=start[order],
        piece_length=piece_length[order],
        num_dropped=int((~kept).sum()),
    )


class PackedRows:
    """Rows of `tokens`, `segment_ids` (1, 2, … per piece) and `positions`, each int32 [length], 0 where empty."""

    def __init__(self, shards: TokenShards, table: RowTable) -> None:
        self.table = table
        self._tokens = shards.tokens
        self._piece_first = np.asarray(shards.offsets)[table.piece_document] + table.piece_start

    def __len__(self) -> int:
        return len(self.table)

    @property
    def num_filled(self) -> int:
        """Token slots that hold a token."""
        return int(self.table.piece_length.sum())

    def __getitem__(self, index: int) -> Example:
        return _one(self, index)

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked: int32 [B L] each."""
        length = self.table.length
        starts = self.table.row_starts
        num_pieces = starts[indices + 1] - starts[indices]
        piece_row = np.repeat(np.arange(len(indices)), num_pieces)
        segment = _counting(num_pieces)
        pieces = np.repeat(starts[indices], num_pieces) + segment
        lengths = self.table.piece_length[pieces]

        before = np.cumsum(lengths) - lengths  # tokens in front of each piece, over all rows of the batch
        column = before - before[np.cumsum(num_pieces) - num_pieces][piece_row]
        position = np.arange(lengths.sum()) - np.repeat(before, lengths)
        slot = np.repeat(piece_row * length + column, lengths) + position
        values = {
            "tokens": self._tokens[np.repeat(self._piece_first[pieces], lengths) + position],
            "segment_ids": np.repeat(segment + 1, lengths),
            "positions": position,
        }
        batch = {}
        for key, value in values.items():
            batch[key] = np.zeros(len(indices) * length, np.int32)
            batch[key][slot] = value
            batch[key] = batch[key].reshape(len(indices), length)
        return batch


class Windows:
    """Windows of `length` tokens over all documents joined, one every `stride` tokens; all of a window is segment 1.

    With the stride `length - 1` (0 stands for it) every token after the first is predicted exactly once; only the last
    window may end in padding.

    Raises:
      ValueError: `length` is below 2, or the stride would leave tokens out.
    """

    def __init__(self, shards: TokenShards, *, length: int, stride: int = 0) -> None:
        _check_length(length)
        self.length = length
        self.stride = stride or length - 1
        if not 1 <= self.stride < length:
            raise ValueError(f"stride={stride} for length={length}; use 1 to {length - 1} to leave no token out")
        self._tokens = shards.tokens
        self._num_tokens = int(shards.offsets[-1])

    def __len__(self) -> int:
        if self._num_tokens < 2:
            return 0
        return 1 + -(-max(0, self._num_tokens - self.length) // self.stride)

    @property
    def num_filled(self) -> int:
        """Token slots that hold a token: all of them but for the end of the last window."""
        last = max(0, len(self) - 1)
        return last * self.length + min(self.length, self._num_tokens - last * self.stride) if len(self) else 0

    def __getitem__(self, index: int) -> Example:
        return _one(self, index)

    def rows(self, indices: np.ndarray) -> Example:
        """The windows at `indices`, stacked: int32 [B L] each."""
        column = np.arange(self.length)
        source = np.asarray(indices)[:, None] * self.stride + column
        real = source < self._num_tokens
        tokens = self._tokens[np.minimum(source, self._num_tokens - 1).reshape(-1)].reshape(source.shape)
        return {
            "tokens": np.where(real, tokens, 0).astype(np.int32),
            "segment_ids": real.astype(np.int32),
            "positions": np.where(real, column, 0).astype(np.int32),
        }


def _best_fit(lengths: np.ndarray, length: int) -> np.ndarray:
    """The row of each piece, int64 [P]; pieces are placed in the order given."""
    open_rows: list[list[int]] = [[] for _ in range(length + 1)]  # by the tokens that still fit
    has_open = 0  # bit c: open_rows[c] is not empty
    num_rows = 0
    rows = []
    for piece in lengths.tolist():
        fitting = has_open >> piece
        if fitting:
            space = piece + (fitting & -fitting).bit_length() - 1
            row = open_rows[space].pop()
            if not open_rows[space]:
                has_open ^= 1 << space
        else:
            space = length
            row = num_rows
            num_rows += 1
        rows.append(row)
        space -= piece
        if space >= 2:  # no piece is shorter
            open_rows[space].append(row)
            has_open |= 1 << space
    return np.array(rows, np.int64)


def _counting(counts: np.ndarray) -> np.ndarray:
    """0 … counts[0] - 1, then 0 … counts[1] - 1, and so on."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _one(source: PackedRows | Windows, index: int) -> Example:
    if not 0 <= index < len(source):
        raise IndexError(index)
    return {key: values[0] for key, values in source.rows(np.array([index])).items()}


def _check_length(length: int) -> None:
    if length < 2:
        raise ValueError(f"length={length} leaves nothing to predict; use 2 or more")
