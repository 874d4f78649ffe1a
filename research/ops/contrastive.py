"""Contrastive losses: each vector is told apart from the others of the batch by its counterpart.

Every loss sees the global batch, whatever the mesh, and has three forms with the same values and gradients:

* `plain`: the whole [B B] matrix of logits, as on one device; the compiler splits it as it likes.
* `gathered`: each device collects the vectors of the other side and computes the rows and columns of its own examples:
  [B/devices B] logits.
* `chunked`: vectors go round in a ring (contrastive_ring.py), `chunk` at a time: [B/devices chunk] logits.

The last two ask the mesh of `jax.set_mesh`; `axes` are those of its axes that the batch is split over. On one device,
or without a mesh, they work as well.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.ops.contrastive_ring import (
    EXCLUDED,
    Layout,
    Side,
    logsumexp_of_others,
    logsumexps,
    on_devices,
    pairs,
    sigmoid_losses,
    sigmoid_sums,
)

Form = Literal["plain", "gathered", "chunked"]
CHUNK = 1024
AXES = ("data",)


class Negatives(NamedTuple):
    """Candidates beside the counterparts of a batch, one for each example, or none where `where` is false. One of a
    row's group is no negative of it, but the row's own always is."""

    vectors: Float[Array, "B D"]
    where: Bool[Array, " B"]
    groups: Int[Array, " B"] | None = None


def nt_xent(
    first: Float[Array, "B D"],
    second: Float[Array, "B D"],
    *,
    temperature: Float[Array, ""] | float,
    where: Bool[Array, " B"] | None = None,
    form: Form = "plain",
    chunk: int = CHUNK,
    axes: tuple[str, ...] = AXES,
) -> Float[Array, " B"]:
    """Softmax of unit vectors of two views, in nats: of each view against all other views, both views averaged.

    Chen et al. 2020, equation 1: a view's negatives are the 2 (B - 1) views of other examples, of its own side too.
    Rows where `where` is false are neither told apart nor from others, and their loss is 0.
    """
    layout = _layout(form, chunk, axes, first.shape[0])
    scale = 1.0 / jnp.asarray(temperature, jnp.float32)
    sides = _side(first, where), _side(second, where)
    rows, columns, own = _logsumexps(form, layout, *sides, scale)
    others = [_logsumexp_of_others(form, layout, side, scale) for side in sides]
    losses = 0.5 * (jnp.logaddexp(rows, others[0]) + jnp.logaddexp(columns, others[1])) - own
    return losses if where is None else jnp.where(where, losses, 0.0)


def clip(
    image: Float[Array, "B D"],
    text: Float[Array, "B D"],
    *,
    scale: Float[Array, ""] | float,
    where: Bool[Array, " B"] | None = None,
    groups: Int[Array, " B"] | None = None,
    negatives: Negatives | None = None,
    form: Form = "plain",
    chunk: int = CHUNK,
    axes: tuple[str, ...] = AXES,
) -> Float[Array, " B"]:
    """Softmax InfoNCE of unit vectors, both directions averaged: one loss per pair, in nats, float32.

    Radford et al. 2021, figure 3; for two texts it is the multiple-negatives ranking loss (Henderson et al. 2017,
    section 4). Similarities are multiplied by `scale`, the inverse temperature. Rows where `where` is false are neither
    told apart nor from others, and their loss is 0. Rows of one group (a text that occurs twice) are no negatives of
    each other. `negatives` are more candidates for every row of `image`, and ask for nothing themselves.
    """
    layout, scale = _layout(form, chunk, axes, image.shape[0]), jnp.asarray(scale, jnp.float32)
    sides = _side(image, where, groups), _side(text, where, groups)
    rows, columns, own = _logsumexps(form, layout, *sides, scale)
    if negatives is not None:
        counted = negatives.where if where is None else negatives.where & where
        more = _side(negatives.vectors, counted, negatives.groups)
        rows = jnp.logaddexp(rows, _logsumexps(form, layout, sides[0], more, scale)[0])
    losses = 0.5 * (rows + columns) - own
    return losses if where is None else jnp.where(where, losses, 0.0)


def siglip(
    image: Float[Array, "B D"],
    text: Float[Array, "B D"],
    *,
    scale: Float[Array, ""] | float,
    bias: Float[Array, ""] | float,
    where: Bool[Array, " B"] | None = None,
    groups: Int[Array, " B"] | None = None,
    form: Form = "plain",
    chunk: int = CHUNK,
    axes: tuple[str, ...] = AXES,
) -> Float[Array, " B"]:
    """Is this text this image's? One sigmoid a pair of unit vectors, summed over an image's B pairs, in nats.

    Zhai et al. 2023, algorithm 1, whose loss is the mean over images; a logit is scale · similarity + bias. Pairs with
    a row where `where` is false are left out, and the loss of such a row is 0; so are pairs of two rows of one group
    (a text that occurs twice), which are neither a match to learn nor a mismatch.
    """
    layout = _layout(form, chunk, axes, image.shape[0])
    scale, bias = jnp.asarray(scale, jnp.float32), jnp.asarray(bias, jnp.float32)
    sides = _side(image, where, groups), _side(text, where, groups)
    if form == "chunked":
        return sigmoid_sums(layout, *sides, scale, bias)

    def local(first, second, scale, bias):
        similarities, allowed, own = pairs(first, _gather(layout, second))
        return jnp.sum(sigmoid_losses(similarities * scale + bias, allowed, own), axis=1)

    return on_devices(layout, local, *sides, scale, bias, out=True)


def _logsumexps(form: Form, layout: Layout, first: Side, second: Side, scale: Array) -> tuple[Array, Array, Array]:
    """`contrastive_ring.logsumexps` in any form."""
    if form == "chunked":
        return logsumexps(layout, first, second, scale)

    def local(first, second, scale):
        rows, own = _logits(first, _gather(layout, second), scale)
        columns = rows if layout.size == 1 else _logits(_gather(layout, first), second, scale)[0]
        diagonal = jnp.sum(jnp.where(own, rows, 0.0), axis=1)
        return jax.nn.logsumexp(rows, axis=1), jax.nn.logsumexp(columns, axis=0), diagonal

    return on_devices(layout, local, first, second, scale, out=(True, True, True))


def _logsumexp_of_others(form: Form, layout: Layout, side: Side, scale: Array) -> Array:
    """`contrastive_ring.logsumexp_of_others` in any form."""
    if form == "chunked":
        return logsumexp_of_others(layout, side, scale)

    def local(side, scale):
        logits, own = _logits(side, _gather(layout, side), scale)
        return jax.nn.logsumexp(jnp.where(own, EXCLUDED, logits), axis=1)

    return on_devices(layout, local, side, scale, out=True)


def _logits(rows: Side, columns: Side, scale: Array) -> tuple[Array, Array]:
    """Of the softmax, and which are an example's own."""
    similarities, allowed, own = pairs(rows, columns)
    return jnp.where(allowed, similarities * scale, EXCLUDED), own


def _gather(layout: Layout, side: Any) -> Any:
    if layout.size == 1:
        return side
    return jax.tree.map(lambda array: jax.lax.all_gather(array, layout.axes, tiled=True), side)


def _side(vectors: Array, where: Array | None, groups: Array | None = None) -> Side:
    size = vectors.shape[0]
    if where is None:
        where = jnp.ones(size, bool)
    else:
        # Selected before the product and not only after it: a zero cotangent times a NaN is NaN.
        vectors = jnp.where(where[:, None], vectors, jnp.zeros((), vectors.dtype))
    return Side(vectors, where, jnp.arange(size, dtype=jnp.int32), groups)


def _layout(form: Form, chunk: int, axes: tuple[str, ...], batch_size: int) -> Layout:
    if form not in ("plain", "gathered", "chunked"):
        raise ValueError(f"form={form!r}: use plain, gathered or chunked")
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: wanted a number of columns, 1 or more, such as {CHUNK}")
    mesh = jax.sharding.get_abstract_mesh()
    if form == "plain" or mesh.empty:
        return Layout((), 1, chunk)
    if not set(axes) <= set(mesh.axis_names):
        raise ValueError(f"axes={axes}: the mesh has {mesh.axis_names}; name those that the batch is split over")
    num_devices = math.prod(mesh.shape[axis] for axis in axes)
    if batch_size % num_devices:
        raise ValueError(
            f"a batch of {batch_size} does not divide over {num_devices} devices; use a multiple of {num_devices}"
        )
    return Layout(axes, num_devices, chunk)
