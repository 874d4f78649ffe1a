"""Logical axes to mesh axes: one table, for parameters, optimizer state and batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.linen.spmd import logical_to_mesh_sharding
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# Logical axis -> mesh axis. Only `data` has more than one device today; the other names are kept whole.
RULES: tuple[tuple[str, str | None], ...] = (
    ("batch", "data"),
    ("length", None),
    ("hidden", None),
    ("vocab", None),
    ("embed", None),
    ("heads", None),
    ("head_dim", None),
    ("mlp", None),
    ("layers", None),
)


def make_mesh(*, data: int = -1) -> Mesh:
    """All local devices on the axis `data`, or the first `data` of them.

    Raises:
      ValueError: more devices are asked for than there are.
    """
    devices = jax.devices()
    count = len(devices) if data == -1 else data
    if not 0 < count <= len(devices):
        raise ValueError(f"mesh.data={data}: there are {len(devices)} devices; use -1 for all of them")
    return Mesh(np.array(devices[:count]), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def parameter_shardings(boxed: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of an abstract tree, by its logical names; a leaf without any is replicated."""
    specs = nn.get_partition_spec(boxed)
    return logical_to_mesh_sharding(specs, mesh, RULES)


def batch_shardings(batch: Mapping[str, Any], axes: Mapping[str, tuple[str | None, ...]], mesh: Mesh) -> dict[str, Any]:
    """The sharding of every key of a batch, from the table of logical axes."""
    rules = dict(RULES)
    specs = {key: PartitionSpec(*(rules[axis] if axis else None for axis in axes[key])) for key in batch}
    return {key: NamedSharding(mesh, spec) for key, spec in specs.items()}


def put_batch(batch: Mapping[str, np.ndarray], shardings: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The rows that this process read, as global arrays."""
    return {key: jax.make_array_from_process_local_data(shardings[key], value) for key, value in batch.items()}
