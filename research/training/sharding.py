"""Where arrays lie: a mesh of devices, and one table from logical axes to its axes, for state and batches alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.linen.spmd import logical_to_mesh_sharding
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("replica", "data", "fsdp", "tensor", "context")

Rules = tuple[tuple[str, tuple[str, ...]], ...]

# Logical axis -> mesh axes; one that is not named is kept whole. Activations have `hidden` where parameters have
# `embed`, so that FSDP shards the state and not the width of what is computed.
RULES: Rules = (
    ("batch", ("replica", "data", "fsdp")),
    ("length", ("context",)),
    ("embed", ("fsdp",)),
    ("vocab", ("tensor",)),
    ("heads", ("tensor",)),
    ("mlp", ("tensor",)),
)
LOGICAL_AXES = (*(name for name, _ in RULES), "hidden", "head_dim", "layers")


@dataclass(frozen=True)
class MeshShape:
    """How many devices each axis of the mesh has; one of them may be -1, the rest.

    `replica` lies across slices or nodes and holds whole copies, as `data` does within one; `fsdp` shards parameters,
    gradients, optimizer state and average (ZeRO-3, Rajbhandari et al. 2020) and the batch with them; `tensor` shards
    heads, the MLP and the vocabulary (Shoeybi et al. 2019); `context` the length. `rules` change the table from logical
    axes: `vocab=fsdp`, `batch=data+fsdp`, `mlp=none`. With `devices` only the first so many of them are used.
    """

    replica: int = 1
    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    context: int = 1
    rules: tuple[str, ...] = ()
    devices: int = 0

    def __post_init__(self) -> None:
        sizes = self._sizes()
        wrong = [name for name, size in sizes.items() if size != -1 and size < 1]
        if wrong or list(sizes.values()).count(-1) > 1:
            given = ", ".join(f"mesh.{name}={size}" for name, size in sizes.items())
            raise ValueError(f"{given}: wanted 1 or more each, and -1 (the rest) at most once")
        if self.devices < 0:
            raise ValueError(f"mesh.devices={self.devices}: wanted a number of devices, 0 for all")
        self.table()

    def table(self) -> Rules:
        """RULES with this mesh's own in their place."""
        table = dict(RULES)
        for rule in self.rules:
            name, sign, given = rule.replace(" ", "").partition("=")
            axes = () if given == "none" else tuple(given.split("+"))
            if not sign or name not in LOGICAL_AXES or any(axis not in MESH_AXES for axis in axes):
                raise ValueError(
                    f"mesh.rules has {rule!r}; wanted LOGICAL=AXIS, LOGICAL=AXIS+AXIS or LOGICAL=none, logical one of "
                    f"{', '.join(LOGICAL_AXES)} and axes of {', '.join(MESH_AXES)}"
                )
            table[name] = axes
        return tuple(table.items())

    def over(self, devices: Sequence[Any]) -> Layout:
        """The mesh of these devices, in their order: `context` and `tensor` vary fastest, `replica` slowest.

        Raises:
          ValueError: the axes do not multiply to the number of devices.
        """
        if self.devices > len(devices):
            raise ValueError(f"mesh.devices={self.devices}: there are {len(devices)} devices; use 0 for all of them")
        devices = devices[: self.devices or None]
        sizes = self._sizes()
        known = math.prod(size for size in sizes.values() if size != -1)
        rest = len(devices) // known
        if known * (rest if -1 in sizes.values() else 1) != len(devices):
            given = " x ".join(f"{name}={size}" for name, size in sizes.items() if size != 1)
            raise ValueError(
                f"mesh {given} does not multiply to the {len(devices)} devices that there are; change an axis, set one "
                "to -1 (the rest), or use fewer by mesh.devices"
            )
        shape = [rest if size == -1 else size for size in sizes.values()]
        mesh = Mesh(_arranged(devices, shape), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))
        return Layout(mesh, self.table())

    def _sizes(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in MESH_AXES}


@dataclass(frozen=True)
class Layout:
    """A mesh and the table of logical axes that is in force on it."""

    mesh: Mesh
    rules: Rules

    @property
    def size(self) -> int:
        return self.mesh.size

    @property
    def batch_parts(self) -> int:
        """Into how many parts the rows of a batch are divided."""
        return self.parts("batch")

    def parts(self, name: str) -> int:
        """Over how many devices a logical axis is divided."""
        return math.prod(self.mesh.shape[axis] for axis in dict(self.rules).get(name, ()))

    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def describe(self) -> str:
        """`fsdp 4 x tensor 2`; empty on one device."""
        return " x ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items() if size > 1)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within it, jitted functions see the mesh, and models' constraints the table."""
        rules = tuple((name, axes or None) for name, axes in self.rules)
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(rules):
            yield


def make_layout(shape: MeshShape) -> Layout:
    """The layout over all devices that jax sees, those of other processes too."""
    return shape.over(jax.devices())


def parameter_shardings(boxed: Any, layout: Layout) -> Any:
    """The sharding of every leaf of an abstract tree, by its logical names; a leaf without any is replicated.

    Raises:
      ValueError: an axis of the mesh does not divide an axis of a parameter.
    """
    rules = [(name, axes or None) for name, axes in layout.rules]
    shardings = logical_to_mesh_sharding(nn.get_partition_spec(boxed), layout.mesh, rules)
    _check_division(unboxed(boxed), boxed, shardings, layout)
    return shardings


def unboxed(boxed: Any) -> Any:
    """A tree without its logical names. `nn.meta.unbox` would constrain each leaf too, which shapes cannot take."""

    def is_box(leaf: Any) -> bool:
        return isinstance(leaf, nn.Partitioned)

    return jax.tree.map(lambda leaf: leaf.value if is_box(leaf) else leaf, boxed, is_leaf=is_box)


def batch_shardings(
    batch: Mapping[str, Any], axes: Mapping[str, tuple[str | None, ...]], layout: Layout
) -> dict[str, Any]:
    """The sharding of every key of a batch, from the table of logical axes.

    Raises:
      ValueError: rows, or a length, that do not divide over the devices.
    """
    rules = dict(layout.rules)
    result = {}
    for key, value in batch.items():
        for name, size in zip(axes[key], value.shape, strict=True):
            parts = layout.parts(name) if name else 1
            if name == "length" and size % parts:
                raise ValueError(
                    f"length {size} does not divide over {_given(layout, rules[name])}; use a multiple of {parts}, or "
                    "another mesh"
                )
        result[key] = NamedSharding(
            layout.mesh, PartitionSpec(*(rules.get(axis, ()) or None if axis else None for axis in axes[key]))
        )
    return result


def local_rows(layout: Layout, batch_size: int) -> slice:
    """The rows of a global batch that the devices of this process hold.

    Raises:
      ValueError: they are not consecutive (an axis of the mesh is laid across processes in another order).
    """
    sharding = NamedSharding(layout.mesh, PartitionSpec(dict(layout.rules)["batch"] or None))
    indices: Any = sharding.addressable_devices_indices_map((batch_size,))
    held = sorted({_bounds(index[0], batch_size) for index in indices.values()})
    for (_, stop), (start, _) in zip(held, held[1:], strict=False):
        if stop != start:
            raise ValueError(
                f"this process holds rows {held} of a batch of {batch_size}, which are not consecutive; order mesh "
                "axes so that each process has whole parts of the batch"
            )
    return slice(held[0][0], held[-1][1])


def put_batch(
    batch: Mapping[str, np.ndarray], shardings: Mapping[str, Any], *, batch_size: int = 0
) -> dict[str, jax.Array]:
    """The rows that this process read, as global arrays of `batch_size` rows (0: this process has them all)."""
    return {
        key: jax.make_array_from_process_local_data(shardings[key], value, (batch_size or len(value), *value.shape[1:]))
        for key, value in batch.items()
    }


def whole(array: Any) -> np.ndarray:
    """A global array on the host, in every process."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable and not array.is_fully_replicated:
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def _arranged(devices: Sequence[Any], shape: Sequence[int]) -> np.ndarray:
    """TPUs by their place in the torus, so that neighbours on an axis are neighbours in it; others in their order."""
    if devices[0].platform != "tpu" or len(devices) == 1:
        return np.array(devices).reshape(shape)
    from jax.experimental import mesh_utils

    num_slices = len({getattr(device, "slice_index", 0) for device in devices})
    if shape[0] % num_slices:
        raise ValueError(
            f"mesh.replica={shape[0]} does not divide over the {num_slices} slices that there are, and no other axis "
            f"reaches across them; use a multiple of {num_slices}"
        )
    if num_slices > 1:
        inner = [shape[0] // num_slices, *shape[1:]]
        outer = [num_slices, *[1] * (len(shape) - 1)]
        return mesh_utils.create_hybrid_device_mesh(inner, outer, devices=devices, allow_split_physical_axes=True)
    return mesh_utils.create_device_mesh(shape, devices=devices, allow_split_physical_axes=True)


def _check_division(tree: Any, boxed: Any, shardings: Any, layout: Layout) -> None:
    specs = jax.tree.leaves(nn.get_partition_spec(boxed), is_leaf=lambda each: isinstance(each, PartitionSpec))
    leaves = zip(jax.tree.leaves_with_path(tree), specs, jax.tree.leaves(shardings), strict=True)
    for (path, leaf), names, sharding in leaves:
        for place, axes in enumerate(sharding.spec):
            axes = (axes,) if isinstance(axes, str) else axes or ()
            parts = math.prod(layout.mesh.shape[axis] for axis in axes)
            size = leaf.shape[place]
            if size % parts:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                valid = ", ".join(str(each) for each in range(1, size + 1) if size % each == 0 and each <= 2 * parts)
                raise ValueError(
                    f"{_given(layout, axes)} does not divide {names[place]}={size} of {name} "
                    f"{leaf.shape}; use one of {valid}, or make it a multiple of {parts}"
                )


def _given(layout: Layout, axes: Sequence[str]) -> str:
    return " x ".join(f"mesh.{axis}={layout.mesh.shape[axis]}" for axis in axes if layout.mesh.shape[axis] > 1)


def _bounds(index: slice, size: int) -> tuple[int, int]:
    start, stop, _ = index.indices(size)
    return start, stop
