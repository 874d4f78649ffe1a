"""What a compiled program sends between devices: collectives of its HLO text by kind and mesh axes."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from research.planning.values import KINDS, Sent, no_bytes, sent_bytes

_ITEM = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_ITEM |= {"s64": 8, "u64": 8, "f64": 8, "s4": 0.5, "u4": 0.5, "f8e4m3fn": 1, "f8e5m2": 1, "c64": 8}
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) (" + "|".join(KINDS) + r")(-start)?\(")
_CONDITION = re.compile(r" while\(.*condition=%?([\w.-]+)")
_LIMIT = re.compile(r" = s32\[\][^=]* constant\((\d+)\)")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations|called_computations)=\{?%?([\w.-]+)")


def shape_bytes(text: str) -> float:
    """Bytes of the arrays whose HLO shapes stand in `text`: `(f32[2,3]{1,0}, bf16[4])`."""
    return float(
        sum(
            _ITEM[kind] * math.prod(int(side) for side in sides.split(",") if side)
            for kind, sides in _SHAPE.findall(text)
            if kind in _ITEM
        )
    )


def computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation of an HLO module, by its name; that of the entry is "ENTRY"."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        if line.startswith("}"):
            lines = None
        elif lines is None and line.rstrip().endswith("{") and not line.startswith("HloModule"):
            match = re.match(r"^(ENTRY )?%?([\w.-]+)", line)
            if match:
                lines = found.setdefault("ENTRY" if match[1] else match[2], [])
        elif lines is not None:
            lines.append(line)
    return found


def turns(parts: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """How often each computation runs in one run of the program; a loop whose count is not known counts once."""
    times: dict[str, float] = defaultdict(float, ENTRY=1.0)
    edges: dict[str, list[tuple[str, float]]] = {}
    for name, lines in parts.items():
        for line in lines:
            trips = _trips(line, parts)
            for called in _CALLED.findall(line):
                if called in parts:
                    edges.setdefault(name, []).append((called, trips))
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name not in seen:
            seen.add(name)
            for called, _ in edges.get(name, ()):
                visit(called)
            order.append(name)

    visit("ENTRY")
    for name in reversed(order):
        for called, count in edges.get(name, ()):
            times[called] += times[name] * count
    return dict(times)


def compiled_collectives(text: str, mesh: Mapping[str, int]) -> Sent:
    """Bytes that each device sends in one run of a program, by (kind, axes); `mesh` are the sizes of its axes in the
    order in which devices are numbered. Groups of devices that no axes make are named "?".
    """
    parts = computations(text)
    times = turns(parts)
    found = no_bytes()
    once: dict[str, tuple[tuple[str, str], float]] = {}  # TPU programs name one collective in each piece of its fusion
    for name, lines in parts.items():
        for line in lines:
            match = _INSTRUCTION.match(line)
            if match is None or not times.get(name):
                continue
            kind, shape = match[3], match[2]
            if kind == "all-reduce" and "all-reduce-scatter" in name:
                kind = "reduce-scatter"
            size = shape_bytes(shape)
            if match[4] and kind != "all-reduce":  # a started one carries its operand beside the result
                pieces = [shape_bytes(piece) for piece in re.findall(r"\w+\[[\d,]*\]", shape)]
                size = max(pieces, default=0.0)
            groups = _groups(line)
            axes = _axes_of(groups, mesh)
            count = len(groups[0]) if groups else math.prod(mesh.values())
            if match[3] == "reduce-scatter" and not match[4]:
                size *= count
            sent = times[name] * sent_bytes(kind, size, count)
            channel = _CHANNEL.search(line)
            key = channel[1] if channel else f"{name} {match[1]}"
            if key not in once or sent > once[key][1]:
                once[key] = ((kind, axes), sent)
    for key, sent in once.values():
        found[key] += sent
    return found


def _trips(line: str, parts: Mapping[str, Sequence[str]]) -> float:
    """How often a loop turns: as the compiler notes it, or by the constant that its condition compares with."""
    condition = _CONDITION.search(line)
    if condition is None:
        return 1.0
    noted = _TRIPS.search(line)
    if noted:
        return float(noted[1])
    limits = [int(match[1]) for each in parts.get(condition[1], ()) if (match := _LIMIT.search(each))]
    return float(max(limits, default=1))


def _groups(line: str) -> list[list[int]]:
    """The devices that take part together; for permutes the cycles' first and second members."""
    pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", line)
    if pairs:
        return [[int(a), int(b)] for a, b in re.findall(r"\{(\d+),(\d+)", pairs[0])]
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", line)
    if named:
        sides = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        over = re.findall(r"'(\w+)'", named[2])
        order = [place for place, name in enumerate(sides) if name not in over]
        order += [place for place, name in enumerate(sides) if name in over]
        ids = np.arange(math.prod(sides.values())).reshape(tuple(sides.values())).transpose(order)
        return ids.reshape(-1, math.prod(sides[name] for name in over)).tolist()
    explicit = re.search(r"replica_groups=\{(\{[\d,]*\}(?:,\{[\d,]*\})*)\}", line)
    if explicit:
        return [[int(each) for each in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", explicit[1])]
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if not iota:
        return []
    shape, base = ([int(each) for each in iota[index].split(",")] for index in (1, 2))
    ids = np.arange(math.prod(base)).reshape(base)
    if iota[3]:
        ids = ids.transpose([int(each) for each in iota[3].split(",")])
    return ids.reshape(shape[0], -1).tolist()


def _axes_of(groups: Sequence[Sequence[int]], mesh: Mapping[str, int]) -> str:
    """The axes along which the members of the groups differ."""
    names = [name for name, size in mesh.items() if size > 1]
    if not groups:
        return "+".join(names)
    places = np.array(np.unravel_index(np.array(groups).ravel(), tuple(mesh.values())))
    places = places.reshape(len(mesh), len(groups), -1)
    varying = [name for name, each in zip(mesh, places, strict=True) if (each != each[:, :1]).any()]
    return "+".join(varying) or "?"
