"""Documents into rows of fixed length: planned once from their lengths, so that a row is a function of its index."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PLAN = "1"  # part of the name of every kept plan: another way to pack is another number


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
    check_length(length)
    lengths = np.asarray(lengths, np.int64)
    kept = lengths >= 2
    num_pieces = np.where(kept, -(-(lengths - 1) // (length - 1)), 0)
    document = np.repeat(np.arange(len(lengths)), num_pieces)
    start = counting(num_pieces) * (length - 1)
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


def alone(lengths: np.ndarray, *, length: int) -> RowTable:
    """A row for each document of `lengths` tokens, in their order; what does not fit is cut off. Raises as `plan`."""
    check_length(length)
    lengths = np.asarray(lengths, np.int64)
    document = np.flatnonzero(lengths >= 2)
    return RowTable(
        length=length,
        row_starts=np.arange(len(document) + 1),
        piece_document=document,
        piece_start=np.zeros(len(document), np.int64),
        piece_length=np.minimum(lengths[document], length),
        num_dropped=len(lengths) - len(document),
    )


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


def counting(counts: np.ndarray) -> np.ndarray:
    """0 … counts[0] - 1, then 0 … counts[1] - 1, and so on."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def check_length(length: int) -> None:
    if length < 2:
        raise ValueError(f"length={length} leaves nothing to predict; use 2 or more")
