"""Where a kernel's arrays lie: the mesh axes of their logical axes, under the mesh and the table in force."""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec

MeshAxes = tuple[str, ...]


class Axes(NamedTuple):
    """The mesh axes that each logical axis lies on, and over how many devices that is."""

    names: tuple[MeshAxes, ...]
    sizes: tuple[int, ...]


def axes_of(*logical: str) -> Axes | None:
    """Of logical axes; None where one device does it all, or no table is in force."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or not nn.get_logical_axis_rules():
        return None
    names = [tuple(axis for axis in mesh_axes(each) if mesh.shape[axis] > 1) for each in logical]
    return Axes(tuple(names), tuple(math.prod(mesh.shape[axis] for axis in each) for each in names))


def mesh_axes(*logical: str) -> MeshAxes:
    """All mesh axes of logical axes, one after another, whatever their sizes: what is traced with these is the same on
    meshes of one shape in which other axes are long."""
    table = dict(nn.get_logical_axis_rules())
    found: list[str] = []
    for each in logical:
        given = table.get(each) or ()
        found += [given] if isinstance(given, str) else given
    return tuple(found)


def cut_rows(num_rows: int, chunk: int) -> tuple[int, int]:
    """Into how many chunks of at most `chunk` rows a device, and of how many rows each: a number that divides over the
    devices that rows (positions of examples) lie on, without filling up if up to twice the fewest chunks allow it."""
    axes = axes_of("batch", "length")
    parts = 1 if axes is None else math.prod(axes.sizes)
    least = max(1, -(-num_rows // (chunk * parts)))
    even = (count for count in range(least, 2 * least + 1) if num_rows % (count * parts) == 0)
    count = next(even, least) if parts > 1 else least
    return count, -(-num_rows // (count * parts)) * parts


def by_rows(array: jax.Array, *, place: int, vocab: bool = False) -> jax.Array:
    """Keeps the rows, the axis `place`, on their devices, and with `vocab` the columns behind them.

    Left alone, the compiler takes products with a sharded table by parts of its width and sums whole logits over all
    devices.
    """
    if axes_of() is None:
        return array
    rows = mesh_axes("batch", "length")
    columns = tuple(axis for axis in mesh_axes("vocab") if axis not in rows)
    wanted = [*[None] * place, rows or None, *([columns or None] if vocab else [])]
    return jax.lax.with_sharding_constraint(array, PartitionSpec(*wanted))
