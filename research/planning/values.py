"""Arrays of a traced step as they lie on a mesh, and what is moved between devices to compute with them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Axes = tuple[tuple[str, ...], ...]  # of each dimension the mesh axes that divide it

Sent = dict[tuple[str, str], float]  # bytes by kind of collective and mesh axes, "data+fsdp"

# What a device sends of a buffer of one byte, over n devices in a ring.
_SENT = {
    "all-reduce": lambda n: 2.0 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
}
KINDS = tuple(_SENT)


def no_bytes() -> Sent:
    return defaultdict(float)


@dataclass(eq=False)
class Value:
    """One array. `weight`: it follows from parameters alone; `roots` are the arrays in memory that it is computed from
    where it is in no memory itself (a fused producer), else it alone."""

    shape: tuple[int, ...]
    itemsize: float
    axes: Axes
    weight: bool = False
    stored: bool = True
    origin: str = ""
    roots: tuple[Value, ...] = ()
    known: Any = None  # of a small constant: its elements
    branch: int | None = None  # of the index among branches by platform: the one that is taken

    @property
    def whole_bytes(self) -> float:
        return float(math.prod(self.shape) * self.itemsize)

    def memory(self) -> tuple[Value, ...]:
        """The buffers that are read with it; numbers need none."""
        if not self.shape:
            return ()
        return (self,) if self.stored else self.roots

    def local_bytes(self, sizes: Mapping[str, int], without: Sequence[str] = ()) -> float:
        """Bytes on one device; `without` are axes over which it has been gathered."""
        count = 1
        for size, axes in zip(self.shape, self.axes, strict=True):
            count *= -(-size // math.prod(sizes[axis] for axis in axes if axis not in without))
        return float(count * self.itemsize)


@dataclass
class Cost:
    """What a device does in one step, or in a part of it: operations of matrix products and convolutions, the least
    bytes that it reads and writes in its memory, bytes sent, and the most memory beside what goes in and out."""

    flops: float = 0.0
    traffic: float = 0.0
    sent: Sent = field(default_factory=no_bytes)
    peak: float = 0.0
    largest: list[tuple[float, str]] = field(default_factory=list)  # (bytes, what) at the peak

    def add(self, other: Cost, times: float = 1.0) -> None:
        """Adds the work, not the peak."""
        self.flops += times * other.flops
        self.traffic += times * other.traffic
        for key, moved in other.sent.items():
            self.sent[key] += times * moved


def sent_bytes(kind: str, buffer: float, devices: int) -> float:
    """Bytes that each device sends for a collective over `devices` on a whole buffer (of a gather: its result)."""
    return buffer * _SENT[kind](devices) if devices > 1 else 0.0


def no_axes(shape: Sequence[int]) -> Axes:
    return ((),) * len(shape)


def used(axes: Axes) -> set[str]:
    return {axis for each in axes for axis in each}


def from_spec(spec: Any, rank: int, sizes: Mapping[str, int]) -> Axes:
    """The axes of a PartitionSpec, those of one device left out."""
    given = [(each,) if isinstance(each, str) else tuple(each or ()) for each in spec]
    given += [()] * (rank - len(given))
    return tuple(tuple(axis for axis in each if sizes.get(axis, 1) > 1) for each in given)


def without_repeats(axes: Sequence[tuple[str, ...]]) -> Axes:
    """No mesh axis divides two dimensions: the first keeps it."""
    seen: set[str] = set()
    result = []
    for each in axes:
        kept = tuple(axis for axis in each if axis not in seen)
        seen.update(kept)
        result.append(kept)
    return tuple(result)


def reshaped(shape: Sequence[int], axes: Axes, target: Sequence[int]) -> Axes:
    """Axes after a reshape: those of merged dimensions come together, those of a split one stay on its first part."""
    result: list[tuple[str, ...]] = [()] * len(target)
    i = j = 0
    while i < len(shape) and j < len(target):
        first, start = i, j
        left, right = shape[i], target[j]
        while left != right:
            if left < right:
                i += 1
                left *= shape[i]
            else:
                j += 1
                right *= target[j]
        group = tuple(axis for each in axes[first : i + 1] for axis in each)
        places = [place for place in range(start, j + 1) if target[place] > 1] or [start]
        if len(places) == len([k for k in range(first, i + 1) if shape[k] > 1]):
            for place, k in zip(places, [k for k in range(first, i + 1) if shape[k] > 1], strict=True):
                result[place] = axes[k]
        else:
            result[places[0]] = group
        i, j = i + 1, j + 1
    return tuple(result)
