"""What a source of pictures or recordings holds: contents to decode, and rows that tell something of them."""

from __future__ import annotations

import bisect
import functools
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from research.data.splits import fingerprint

Kind = Literal["image", "audio"]

SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    "audio": (".wav", ".flac", ".ogg", ".mp3"),
}
UNITS: dict[Kind, str] = {"image": "pictures", "audio": "recordings"}


@dataclass(frozen=True)
class Media:
    """Contents in a fixed order, and rows, of which each shows one of them; several may show the same."""

    where: str  # for messages
    names: Sequence[str]  # of each content: its file, or where it stands
    read: Callable[[int], Any]  # a content: encoded bytes, or the array that its decoder takes
    columns: Mapping[str, Sequence[Any]]  # what is told of each row, None where nothing is
    contents: np.ndarray  # int64 [N], the content of each row
    digest: Callable[[], str]  # sha256 of the contents and of what is told
    parts: frozenset[tuple[str, ...]]  # files or rows of named splits, to see where two sources share some
    splits: tuple[str, ...] = ()  # named splits, of which this is one

    def __len__(self) -> int:
        return len(self.contents)

    @functools.cached_property
    def fingerprint(self) -> str:
        return self.digest()

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        name = self.names[self.contents[row]]
        same = np.flatnonzero(self.contents == self.contents[row])
        return f"{self.where}, {name}" + (f" (row {row + 1})" if len(same) > 1 else "")

    def column(self, field: str) -> Sequence[Any]:
        """Raises ValueError where no row has such a field; the fields present are listed."""
        if field not in self.columns:
            present = ", ".join(sorted(self.columns)) or "none"
            raise ValueError(f"{self.where}: no field {field!r}; the fields present are: {present}")
        return self.columns[field]


def join(parts: Sequence[Media], where: str) -> Media:
    """Several sources as one, one after the other."""
    if len(parts) == 1:
        return parts[0]
    ends = list(itertools.accumulate(len(part.names) for part in parts))
    firsts = [0, *ends[:-1]]

    def read(index: int) -> Any:
        part = bisect.bisect_right(ends, index)
        return parts[part].read(index - firsts[part])

    fields = dict.fromkeys(field for part in parts for field in part.columns)
    return Media(
        where=where,
        names=[name for part in parts for name in part.names],
        read=read,
        columns={
            field: [value for part in parts for value in part.columns.get(field) or [None] * len(part)]
            for field in fields
        },
        contents=np.concatenate([part.contents + first for part, first in zip(parts, firsts, strict=True)]),
        digest=lambda: fingerprint(*(part.fingerprint for part in parts)),
        parts=frozenset().union(*(part.parts for part in parts)),
    )


def to_columns(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of each field, None where a record has none."""
    fields = dict.fromkeys(field for record in records for field in record)
    return {field: [record.get(field) for record in records] for field in fields}


def read_late(make: Callable[[], Any]) -> Callable[[], Any]:
    """`make`, called once, when it is first asked for; by one thread."""
    lock, made = threading.Lock(), []

    def value() -> Any:
        with lock:
            if not made:
                made.append(make())
        return made[0]

    return value
