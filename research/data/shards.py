"""Tokenised documents, memory-mapped."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class TokenShards(Sequence[np.ndarray]):
    """The tokens of documents in order; item i is document i, int32.

    Holds the folder only and maps the files when they are first asked for, so that it can be sent to other processes.
    """

    def __init__(self, directory: Path):
        self.directory = Path(directory)

    def __reduce__(self):
        return TokenShards, (self.directory,)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        index %= len(self)
        return self.tokens[self.offsets[index] : self.offsets[index + 1]].astype(np.int32)

    @functools.cached_property
    def tokens(self) -> np.ndarray:
        """All documents joined, [num_tokens]: uint16 or uint32, mapped from the file."""
        dtype = np.dtype(json.loads((self.directory / "meta.json").read_text())["dtype"])
        if not self.num_tokens:
            return np.zeros(0, dtype=dtype)  # an empty file cannot be mapped
        return np.memmap(self.directory / "tokens.bin", dtype=dtype, mode="r")

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """Where each document begins in `tokens`, and where the last ends: int64 [num_documents + 1]."""
        return np.load(self.directory / "offsets.npy")

    @functools.cached_property
    def document_bytes(self) -> np.ndarray:
        """UTF-8 bytes of each document's raw text: int64 [num_documents]."""
        return np.load(self.directory / "bytes.npy")

    @property
    def num_tokens(self) -> int:
        return int(self.offsets[-1])

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of all raw text, for bits per byte."""
        return int(self.document_bytes.sum())
