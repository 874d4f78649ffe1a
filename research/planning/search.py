"""Meshes, remat policies and numbers of microbatches for a slice, those that fit first, by the bound on the step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from research.planning.memory import device_memory, step_cost
from research.planning.report import Plan
from research.planning.roofline import Bound, bound
from research.planning.topologies import Topology
from research.planning.values import from_spec
from research.training.sharding import MESH_AXES

HEADROOM = 0.9  # of the capacity: an estimate may be 10 % low
_MESHES = 8  # that are looked at closely
_MOST_MICROBATCHES = 64
_CONFIRMED = 4  # settings whose plans are looked at, where the first do not fit


@dataclass(frozen=True)
class Setting:
    """A mesh with a remat policy ("": the model has none) and microbatches; bytes on one device, and the bound."""

    mesh: Mapping[str, int]
    remat: str
    accumulate: int
    total: float
    bound: Bound

    @property
    def time(self) -> float:
        return self.bound.step if self.bound.step is not None else math.inf


@dataclass(frozen=True)
class Traced:
    """A step traced for some mesh: its jaxpr, and the shapes that it takes, with shardings."""

    jaxpr: Any
    state: Any
    batch: Any


def search(
    trace: Callable[[Mapping[str, int], str, int], Traced],
    topology: Topology,
    *,
    remats: Sequence[str],
    batch_size: int,
    model_flops: float,
    dtype: str,
    length: int,
    batch_axes: Sequence[str],
) -> list[Setting]:
    """Settings that fit by the estimate, fastest first. `trace(mesh, remat, accumulate)` gives the step.

    Of each mesh and remat policy the fewest microbatches that fit are taken. `length` is that of text, 0 for none.
    """
    first = trace(next(_meshes(topology, length)), remats[0], 1)
    meshes = []
    for mesh in _meshes(topology, length):
        parts = math.prod(mesh[axis] for axis in batch_axes)
        if batch_size % parts or not _divides(first, mesh):
            continue
        state = device_memory(first.state, first.batch, mesh, 0.0).total
        if state <= HEADROOM * topology.capacity:
            meshes.append(mesh)
    # Fewer axes first: what is not sent costs nothing.
    meshes.sort(key=lambda mesh: (mesh["tensor"] * mesh["context"], sum(size > 1 for size in mesh.values())))
    found = []
    for mesh in meshes[:_MESHES]:
        for remat in remats:
            setting = _fewest(trace, topology, mesh, remat, batch_size, model_flops, dtype, batch_axes)
            if setting is not None:
                found.append(setting)
    return sorted(found, key=lambda each: (each.time, each.accumulate, each.total))


def _fewest(
    trace: Callable[[Mapping[str, int], str, int], Traced],
    topology: Topology,
    mesh: Mapping[str, int],
    remat: str,
    batch_size: int,
    model_flops: float,
    dtype: str,
    batch_axes: Sequence[str],
) -> Setting | None:
    """The setting with the fewest microbatches that fits, None where none does."""
    parts = math.prod(mesh[axis] for axis in batch_axes)
    accumulate = 1
    while accumulate <= _MOST_MICROBATCHES and batch_size % (parts * accumulate) == 0:
        try:
            step = trace(mesh, remat, accumulate)
        except ValueError:  # an objective that cannot be cut into microbatches
            return None
        cost = step_cost(step.jaxpr, step.state, step.batch, mesh, topology.chip.platform)
        total = device_memory(step.state, step.batch, mesh, cost.peak).total
        if total <= HEADROOM * topology.capacity:
            found = bound(cost, model_flops, topology, mesh, dtype)
            return Setting(mesh, remat, accumulate, total, found)
        accumulate *= 2
    return None


def _meshes(topology: Topology, length: int) -> Iterator[dict[str, int]]:
    """Products of axes that make up all devices; copies go over slices, and over hosts with GPUs."""
    inner = topology.per_slice
    tensors = [size for size in (1, 2, 4, 8) if inner % size == 0]
    contexts = [size for size in (1, 2, 4, 8) if length and inner % size == 0 and length % (128 * size) == 0] or [1]
    for tensor, context in itertools.product(tensors, contexts):
        if inner % (tensor * context):
            continue
        rest = inner // (tensor * context)
        for fsdp in sorted((size for size in range(1, rest + 1) if rest % size == 0), reverse=True):
            sizes = (topology.num_slices, rest // fsdp, fsdp, tensor, context)
            yield dict(zip(MESH_AXES, sizes, strict=True))


def _divides(step: Traced, mesh: Mapping[str, int]) -> bool:
    for leaf in jax.tree.leaves((step.state, step.batch)):
        for size, axes in zip(leaf.shape, from_spec(leaf.sharding.spec, len(leaf.shape), mesh), strict=True):
            if size % math.prod(mesh[axis] for axis in axes):
                return False
    return True


def describe(settings: Sequence[Setting], remat_key: str) -> str:
    """The best settings as overrides of a page, one a line."""
    if not settings:
        return "no mesh, remat and number of microbatches fits; take more or larger devices, or a smaller model"
    lines = []
    for setting in settings[:5]:
        said = f"{setting.total / 2.0**30:.2f} GiB a device"
        if setting.bound.step is not None:
            said += f", a step at least {setting.bound.step:.3g} s, MFU at most {100 * (setting.bound.mfu or 0):.1f} %"
        lines.append(f"{as_flags(as_overrides(setting, remat_key))}   ({said}, limited by {setting.bound.limited_by})")
    return "\n".join(lines)


def confirm(
    settings: Sequence[Setting],
    remat_key: str,
    plan_of: Callable[[dict[str, str]], Plan],
    *,
    batch_size: int,
    say: Callable[[str], None],
) -> tuple[dict[str, str], Plan]:
    """The keys of the first setting that fits by its plan too, and that plan; where none does, those of the last tried.

    A compiler may need more than the estimate: then more microbatches are tried, and after these the next setting.
    """
    chosen, plan = as_overrides(settings[0], remat_key), None
    for setting in settings[:_CONFIRMED]:
        parts = math.prod(setting.mesh[axis] for axis in ("replica", "data", "fsdp"))
        for factor in (1, 2, 4):
            accumulate = factor * setting.accumulate
            if factor > 1 and (batch_size % (parts * accumulate) or accumulate > _MOST_MICROBATCHES):
                break
            chosen = as_overrides(replace(setting, accumulate=accumulate), remat_key)
            plan = plan_of(chosen)
            if plan.fits:
                return chosen, plan
            say(f"{as_flags(chosen)}: {plan.verdict}")
    assert plan is not None
    return chosen, plan


def as_flags(overrides: Mapping[str, str]) -> str:
    """Keys of a page as they are given to a door, without those that are 1."""
    return " ".join(f"--config.{key}={value}" for key, value in overrides.items() if value != "1" or key == "mesh.data")


def as_overrides(setting: Setting, remat_key: str) -> dict[str, str]:
    """The setting as keys of a page; `remat_key` are those of remat policies, with blanks between."""
    found = {f"mesh.{axis}": str(size) for axis, size in setting.mesh.items()}
    found["accumulate"] = str(setting.accumulate)
    if setting.remat:
        found |= dict.fromkeys(remat_key.split(), setting.remat)
    return found
