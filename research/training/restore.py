"""Checkpoints read again: whole, or the weights alone; every file is compared with its checksum first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1

from research.training.named_leaves import Flat, flatten, nest
from research.training.step_folder import CheckpointDamaged, complete_steps, verify


@dataclass(frozen=True)
class Restored:
    """One checkpoint, loaded: `params` and `state` as jax arrays, the rest as it was given to `save`."""

    step: int
    params: Any
    state: Any
    host: dict[str, Any]
    metrics: dict[str, float]
    about: dict[str, Any]


def restore_latest(directory: Path, *, params: Any, state: Any, fall_back: bool) -> Restored | None:
    """Restores the newest complete checkpoint; None where there is none. Arguments as for `restore`.

    Raises:
      CheckpointDamaged: it is damaged; with `fall_back` only when all of them are.
    """
    steps = complete_steps(directory)
    for step in reversed(steps):
        try:
            return restore(directory, step, params=params, state=state)
        except CheckpointDamaged:
            if not fall_back or step == steps[0]:
                raise
    return None


def restore(directory: Path, step: int, *, params: Any, state: Any) -> Restored:
    """Restores one checkpoint onto the shardings of the abstract pytrees `params` and `state` (ShapeDtypeStruct).

    Any mesh will do, whatever the mesh of the save. A leaf without a sharding goes to the first device.

    Raises:
      CheckpointDamaged: a file differs from what was written.
      ValueError: no such step; or leaves that are missing, extra, or of another shape or dtype (all are listed).
    """
    folder = verify(directory, step, ("",))
    host = json.loads((folder / "host.json").read_text())
    return Restored(
        step=step,
        params=_load(folder, "params", params, whole=True),
        state=_load(folder, "state", state, whole=True),
        host=host["host"],
        metrics=host["metrics"],
        about=json.loads((folder / "about.json").read_text()),
    )


def read_params(directory: Path, step: int, like: Any = None) -> Any:
    """The weights alone: as nested dicts of numpy arrays, or as jax arrays `like` an abstract pytree.

    `like` may be part of the tree (an encoder without its head): the rest is not read. Raises as `restore` does.
    """
    folder = verify(directory, step, ("params/",))
    if like is not None:
        return _load(folder, "params", like, whole=False)
    stored = _stored(folder, "params")
    on_host = jax.tree.map(lambda _: np.ndarray, stored)
    with v1.Context():
        return v1.load(str(folder), on_host, checkpointable_name="params") if stored else {}


def read_variables(directory: Path, step: int, *kind: str) -> Any:
    """Variables beside the parameters, as nested dicts of numpy arrays: all of them, or `frozen`, what was given and
    not trained, or model state such as `batch_stats`; {} where there are none. Raises as `restore`."""
    folder = verify(directory, step, ("state/",))
    place = ("variables", *kind)
    wanted = {name: np.ndarray for name in flatten(_stored(folder, "state")) if name[: len(place)] == place}
    if not wanted:
        return {}
    context = v1.Context()
    context.pytree.loading.partial_load = True
    with context:
        loaded = flatten(v1.load(str(folder), nest(wanted), checkpointable_name="state"))
    return nest({name[len(place) :]: loaded[name] for name in wanted})


def read_about(directory: Path, step: int) -> dict[str, Any]:
    """What the weights are, as given to `Checkpoints`. Raises as `restore` does."""
    return json.loads((verify(directory, step, ("about.json",)) / "about.json").read_text())


def _load(folder: Path, item: str, abstract: Any, *, whole: bool) -> Any:
    wanted = {name: _on_device(leaf) for name, leaf in flatten(abstract).items()}
    _check_leaves(wanted, flatten(_stored(folder, item)), f"{item} of checkpoint {folder}", whole=whole)
    treedef = jax.tree.structure(abstract)
    if not wanted:
        return jax.tree.unflatten(treedef, [])
    context = v1.Context()
    context.pytree.loading.partial_load = True
    with context:
        loaded = flatten(v1.load(str(folder), nest(wanted), checkpointable_name=item))
    for name, leaf in wanted.items():  # Orbax leaves the abstract leaf in place of what it does not find
        array = loaded.get(name)
        if not isinstance(array, jax.Array) or _describe(array) != _describe(leaf):
            raise ValueError(f"{folder}: {item} {'/'.join(name)} came back as {array!r}, wanted {_describe(leaf)}")
    return jax.tree.unflatten(treedef, [loaded[name] for name in wanted])


def _check_leaves(wanted: Flat, stored: Flat, what: str, *, whole: bool) -> None:
    problems = [f"missing {'/'.join(name)} {_describe(wanted[name])}" for name in wanted if name not in stored]
    if whole:
        problems += [f"extra {'/'.join(name)} {_describe(stored[name])}" for name in stored if name not in wanted]
    for name in wanted.keys() & stored.keys():
        have, want = _describe(stored[name]), _describe(wanted[name])
        if have != want:
            problems.append(f"{'/'.join(name)} is {have}, wanted {want}")
    if problems:
        listed = "; ".join(sorted(problems))
        raise ValueError(f"{what} do not fit ({listed}); use the model and optimizer config that it was saved with")


def _stored(folder: Path, item: str) -> Any:
    """Shapes and dtypes of a stored item, as nested dicts."""
    if not (folder / item).is_dir():
        return {}
    return v1.metadata(str(folder), checkpointable_name=item).metadata


def _describe(leaf: Any) -> str:
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _on_device(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
