"""The rows of a packing plan, read from the token file."""

from __future__ import annotations

import numpy as np

from research.batch import Example
from research.data.packing import RowTable, counting
from research.data.rows import row_at
from research.data.shards import TokenShards


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
        return row_at(self, index)

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked: int32 [B L] each."""
        length = self.table.length
        starts = self.table.row_starts
        num_pieces = starts[indices + 1] - starts[indices]
        piece_row = np.repeat(np.arange(len(indices)), num_pieces)
        segment = counting(num_pieces)
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
