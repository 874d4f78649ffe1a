"""Where a kernel's arrays lie: the mesh axes of their logical axes, under the mesh and the table in force."""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.linen as nn
import jax

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
