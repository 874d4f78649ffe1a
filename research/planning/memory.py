"""Bytes of a run: what each device holds of the state, exactly, and what its host must hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from research.planning.placement import Rules
from research.planning.topologies import Topology
from research.planning.values import Axes, Cost, from_spec
from research.planning.walk import Walk
from research.training.state import TrainState

PREFETCH = 3  # batches a host keeps: two ready, one on its way to the devices


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. `temporary` is all that a step holds beside its state and batch at its fullest: activations,
    gradients, gathered parameters, the optimizer's intermediate results."""

    parameters: float
    optimizer: float
    average: float  # of the parameters (EMA)
    other: float  # model state: batch statistics, a teacher, a queue; given parameters that are not trained
    batch: float
    temporary: float

    @property
    def gradients(self) -> float:
        """The part of `temporary` that gradients are: as much as the parameters, and no more than there is."""
        return min(self.parameters, self.temporary)

    @property
    def state(self) -> float:
        return self.parameters + self.optimizer + self.average + self.other

    @property
    def total(self) -> float:
        return self.state + self.batch + self.temporary


@dataclass(frozen=True)
class Host:
    """Bytes in the memory of one host for input and for a save; bytes of a checkpoint in all, seconds to write it."""

    input: float
    save: float
    checkpoint: float
    save_seconds: float


def device_memory(state: TrainState, batch: Mapping[str, Any], sizes: Mapping[str, int], temporary: float) -> Memory:
    """What the shardings give each device of a mesh of `sizes`, exactly, and what was found for the temporary part."""
    variables = dict(state.variables)
    params = variables.pop("params")
    return Memory(
        parameters=device_bytes(params, sizes),
        optimizer=device_bytes(state.opt_state, sizes),
        average=device_bytes(state.ema, sizes),
        other=device_bytes((variables, state.step, state.first_bad_step), sizes),
        batch=device_bytes(batch, sizes),
        temporary=temporary,
    )


def device_bytes(tree: Any, sizes: Mapping[str, int]) -> float:
    """Bytes on one device of shapes with shardings, on a mesh of these sizes."""
    total = 0.0
    for leaf in jax.tree.leaves(tree):
        axes = from_spec(leaf.sharding.spec, len(leaf.shape), sizes)
        sides = zip(leaf.shape, axes, strict=True)
        total += math.prod(-(-size // math.prod(sizes[name] for name in each)) for size, each in sides) * _item(leaf)
    return total


def whole_bytes(tree: Any) -> float:
    return float(sum(math.prod(leaf.shape) * _item(leaf) for leaf in jax.tree.leaves(tree)))


def host_memory(state: TrainState, batch: Mapping[str, Any], topology: Topology, bandwidth: float) -> Host:
    """What a host holds: batches that are read ahead, and while saving a copy of what its devices write.

    Each part of an array is written by one of the devices that hold it, so that hosts share the state evenly.
    `bandwidth` is what all hosts together write, in bytes a second.
    """
    checkpoint = whole_bytes(state)
    return Host(
        input=PREFETCH * whole_bytes(batch) / topology.num_hosts,
        save=checkpoint / topology.num_hosts,
        checkpoint=checkpoint,
        save_seconds=checkpoint / bandwidth,
    )


def step_cost(jaxpr: Any, state: TrainState, batch: Mapping[str, Any], sizes: Mapping[str, int], platform: str) -> Cost:
    """What each device does and holds in a step, by walking its jaxpr; an estimate for any mesh of these axes.

    `state` and `batch` are the shapes, with shardings, that the step was traced with.
    """
    leaves = jax.tree.leaves_with_path((state, batch))
    axes = [from_spec(leaf.sharding.spec, len(leaf.shape), sizes) for _, leaf in leaves]
    params = {id(leaf) for leaf in jax.tree.leaves(state.variables["params"])}
    weights = [id(leaf) in params for _, leaf in leaves]
    rules = Rules(sizes, _places(state.variables["params"], sizes), scatters=platform != "cpu")
    return Walk(rules, platform).program(jaxpr, axes, weights)


def _places(params: Any, sizes: Mapping[str, int]) -> dict[tuple[int, ...], Axes]:
    """How parameters lie, by their sorted shapes; of stacked ones also that of one layer."""
    found: dict[tuple[int, ...], Axes] = {}
    for leaf in jax.tree.leaves(params):
        axes = from_spec(leaf.sharding.spec, len(leaf.shape), sizes)
        for shape, each in ((leaf.shape, axes), (leaf.shape[1:], axes[1:])):
            order = sorted(range(len(shape)), key=lambda place, shape=shape: shape[place])
            if shape:
                found.setdefault(tuple(shape[place] for place in order), tuple(each[place] for place in order))
    return found


def _item(leaf: Any) -> int:
    return leaf.dtype.itemsize
