"""The least time that a step can take, from what it computes, reads and sends, and what the devices can do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from research.planning.topologies import Topology
from research.planning.values import Cost

MFU = (
    "model FLOPs of the step / (time x devices x peak); a token has 6 x matrix parameters + 12 x depth x width x "
    "length (PaLM, appendix B: causal attention is not halved, what remat computes again does not count)"
)


@dataclass(frozen=True)
class Bound:
    """Seconds, each at least; they may overlap, so that the step takes at least the longest. None: not known.

    What is sent is what sharding asks for, without what a compiler may send beside it.
    """

    compute: float | None
    memory: float | None
    sending: dict[str, float]  # by axes
    mfu: float | None  # at most

    @property
    def step(self) -> float | None:
        known = [each for each in (self.compute, self.memory, *self.sending.values()) if each is not None]
        return max(known) if self.compute is not None and known else None

    @property
    def limited_by(self) -> str:
        times = {"compute": self.compute or 0.0, "memory": self.memory or 0.0}
        times |= {f"sending over {axes}": seconds for axes, seconds in self.sending.items()}
        return max(times, key=lambda name: times[name])


def bound(cost: Cost, model_flops: float, topology: Topology, mesh: Mapping[str, int], dtype: str) -> Bound:
    """The bound of a step that costs each device `cost` and whose model has `model_flops` in all."""
    peak = topology.peak_flops(dtype)
    devices = math.prod(mesh.values())
    compute = None if peak is None else max(cost.flops, 0.0) / peak
    memory = cost.traffic / topology.chip.bandwidth if topology.chip.bandwidth else None
    speeds = axis_bandwidths(topology, mesh)
    sending: dict[str, float] = {}
    for (_, axes), sent in cost.sent.items():
        parts = axes.split("+")
        speed = min(speeds.get(part, topology.chip.link) for part in parts)
        if speed and sent:
            sending[axes] = sending.get(axes, 0.0) + sent / speed
    found = Bound(compute, memory, sending, None)
    if found.step is None or peak is None:
        return found
    return Bound(compute, memory, sending, model_flops / (found.step * devices * peak))


def axis_bandwidths(topology: Topology, mesh: Mapping[str, int]) -> dict[str, float]:
    """Bytes a second that a device can send along each axis of the mesh.

    On TPUs an axis has the sides of the torus whose product it is (the slowest axes of the mesh choose last), both ways
    where a side is closed to a ring: those of v5e and v6e at 16, of the others at multiples of 4. An axis that goes
    over slices, or over hosts with GPUs, has the network.
    """
    chip = topology.chip
    if chip.platform != "tpu":
        inner = 1
        speeds = {}
        for name, size in reversed(list(mesh.items())):  # the last axes vary fastest: within a host
            speeds[name] = chip.link if inner * size <= topology.per_slice else min(chip.link, chip.network)
            inner *= size
        return speeds
    sides = sorted(topology.shape, reverse=True) + [topology.chip.per_chip]
    sides = [side for side in sides if side > 1]
    speeds = {}
    across = topology.num_slices
    for name, size in sorted(mesh.items(), key=lambda item: -item[1]):
        if size == 1:
            continue
        if name == next(iter(mesh)) and across > 1:
            speeds[name] = chip.network
            continue
        taken = _sides_for(size, sides)
        for side in taken:
            sides.remove(side)
        speeds[name] = sum(chip.link * (2 if _closed(topology, side) else 1) for side in taken) or chip.link
    return speeds


def _sides_for(size: int, sides: list[int]) -> tuple[int, ...]:
    """The sides whose product is `size`; where there are none such, the longest."""
    for count in range(1, len(sides) + 1):
        for chosen in itertools.combinations(sides, count):
            if math.prod(chosen) == size:
                return chosen
    return (max(sides),) if sides else ()


def _closed(topology: Topology, side: int) -> bool:
    return side == 16 if len(topology.shape) == 2 else side % 4 == 0
