"""Plain windows over all documents joined."""

from __future__ import annotations

import numpy as np

from research.batch import Example
from research.data.packing import check_length
from research.data.rows import row_at
from research.data.shards import TokenShards


class Windows:
    """Windows of `length` tokens over all documents joined, one every `stride` tokens; all of a window is segment 1.

    With the stride `length - 1` (0 stands for it) every token after the first is predicted exactly once; only the last
    window may end in padding.

    Raises:
      ValueError: `length` is below 2, or the stride would leave tokens out.
    """

    def __init__(self, shards: TokenShards, *, length: int, stride: int = 0) -> None:
        check_length(length)
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
        return row_at(self, index)

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
