"""Sums over all pairs of a batch that lies on several devices, by a ring; the contrastive losses are made of them.

A device keeps its rows. The columns go round, a chunk at a time: a chunk visits every device and comes home with what
it has gathered on the way. The backward pass goes round again and keeps nothing of a block, so that a device needs
memory for its own vectors and for (its rows) x (a chunk) of logits, however many devices there are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from research.ops.product import product, sum_of_outer_products

# A large negative number, not -inf: its gradient is 0 and no row is without a number.
EXCLUDED = -1e30


class Layout(NamedTuple):
    """How a batch lies: over `size` devices, along `axes` of the mesh. A ring takes `chunk` columns at a time."""

    axes: tuple[str, ...]
    size: int
    chunk: int


class Side(NamedTuple):
    """One vector of each example, the rows or the columns of a matrix of pairs; the whole batch or a part of it."""

    vectors: Array  # [B D], finite
    where: Array  # bool [B], true where the example counts
    index: Array  # int32 [B], the example's place in the whole batch
    groups: Array | None = None  # int32 [B], rows of one group are no negatives of each other


def pairs(rows: Side, columns: Side) -> tuple[Float[Array, "R C"], Bool[Array, "R C"], Bool[Array, "R C"]]:
    """Of R rows and C columns: similarities, which pairs count, and which of these are an example's own."""
    similarities = product("RD,CD->RC", rows.vectors, columns.vectors, dtype=jnp.float32)
    own = rows.index[:, None] == columns.index[None, :]
    allowed = rows.where[:, None] & columns.where[None, :]
    if rows.groups is not None and columns.groups is not None:
        allowed &= (rows.groups[:, None] != columns.groups[None, :]) | own
    return similarities, allowed, own & allowed


def on_devices(layout: Layout, function: Callable[..., Any], *arguments: Any, out: Any) -> Any:
    """`function` of each device's part of the arguments; scalars are whole everywhere."""
    if layout.size == 1:
        return function(*arguments)
    part = PartitionSpec(layout.axes)
    specs = jax.tree.map(lambda array: part if array.ndim else PartitionSpec(), arguments)
    out = jax.tree.map(lambda split: part if split else PartitionSpec(), out)
    # The checks of what varies over devices would want a cast around every zero that a loop starts from.
    mapped = jax.shard_map(function, in_specs=specs, out_specs=out, axis_names=set(layout.axes), check_vma=False)
    return mapped(*arguments)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def logsumexps(layout: Layout, first: Side, second: Side, scale: Array) -> tuple[Array, Array, Array]:
    """Of the matrix scale · similarities: logsumexp of each row, of each column, and the diagonal, [B] each."""
    return _logsumexps_forward(layout, first, second, scale)[0]


def _logsumexps_forward(layout: Layout, first: Side, second: Side, scale: Array) -> tuple[Any, Any]:
    def local(first, second, scale):
        def step(kept, columns, travelling):
            rows, diagonal = kept
            similarities, allowed, own = pairs(first, columns)
            logits = jnp.where(allowed, similarities * scale, EXCLUDED)
            diagonal += jnp.sum(jnp.where(own, logits, 0.0), axis=1)
            return (_add_exponentials(rows, logits, axis=1), diagonal), _add_exponentials(travelling, logits, axis=0)

        size = first.index.shape[0]
        kept = (_no_exponentials(size), jnp.zeros(size, jnp.float32))
        (rows, diagonal), columns = _around(layout, step, kept, second, _no_exponentials)
        return _log(rows), _log(columns), diagonal

    found = on_devices(layout, local, first, second, scale, out=(True, True, True))
    return found, (first, second, scale, *found[:2])


def _logsumexps_backward(layout: Layout, residuals: Any, cotangents: Any) -> tuple[Side, Side, Array]:
    def local(first, second, scale, of_rows, of_columns, d_rows, d_columns, d_diagonal):
        def d_logits(similarities, allowed, own, extra):
            of_columns, d_columns = extra
            logits = similarities * scale
            found = jnp.exp(logits - of_rows[:, None]) * d_rows[:, None]
            found += jnp.exp(logits - of_columns[None, :]) * d_columns[None, :]
            return jnp.where(allowed, found, 0.0) + jnp.where(own, d_diagonal[:, None], 0.0)

        return _pull_back(layout, first, second, (of_columns, d_columns), scale, d_logits)[:3]

    first, second, scale, of_rows, of_columns = residuals
    arguments = (first, second, scale, of_rows, of_columns, *cotangents)
    d_first, d_second, d_scale = on_devices(layout, local, *arguments, out=(True, True, False))
    return _cotangent(d_first), _cotangent(d_second), d_scale


logsumexps.defvjp(_logsumexps_forward, _logsumexps_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def logsumexp_of_others(layout: Layout, side: Side, scale: Array) -> Array:
    """Of the scaled similarities of each example to all others of its own side: logsumexp, [B]."""
    return _others_forward(layout, side, scale)[0]


def _others_forward(layout: Layout, side: Side, scale: Array) -> tuple[Array, Any]:
    def local(side, scale):
        def step(rows, columns, travelling):
            similarities, allowed, own = pairs(side, columns)
            logits = jnp.where(allowed & ~own, similarities * scale, EXCLUDED)
            return _add_exponentials(rows, logits, axis=1), travelling

        rows, _ = _around(layout, step, _no_exponentials(side.index.shape[0]), side, lambda width: ())
        return _log(rows)

    found = on_devices(layout, local, side, scale, out=True)
    return found, (side, scale, found)


def _others_backward(layout: Layout, residuals: Any, cotangent: Array) -> tuple[Side, Array]:
    def local(side, scale, of_rows, d_rows):
        def step(sums, block, travelling):
            columns, of_columns, d_columns = block
            d_vectors, d_scale = sums
            similarities, allowed, own = pairs(side, columns)
            logits = similarities * scale
            found = jnp.exp(logits - of_rows[:, None]) * d_rows[:, None]
            # The matrix is symmetric: what a vector is given as a column it is given here, as a row.
            found += jnp.exp(logits - of_columns[None, :]) * d_columns[None, :]
            found = jnp.where(allowed & ~own, found, 0.0)
            d_scale += 0.5 * jnp.sum(found * similarities)
            found = (found * scale).astype(columns.vectors.dtype)
            d_vectors += jnp.einsum("RC,CD->RD", found, columns.vectors, preferred_element_type=jnp.float32)
            return (d_vectors, d_scale), travelling

        zeros = jnp.zeros(side.vectors.shape, jnp.float32), jnp.zeros((), jnp.float32)
        (d_vectors, d_scale), _ = _around(layout, step, zeros, (side, of_rows, d_rows), lambda width: ())
        return d_vectors.astype(side.vectors.dtype), _sum_over_devices(layout, d_scale)

    d_vectors, d_scale = on_devices(layout, local, *residuals, cotangent, out=(True, False))
    return _cotangent(d_vectors), d_scale


logsumexp_of_others.defvjp(_others_forward, _others_backward)


def _no_exponentials(size: int) -> tuple[Array, Array]:
    """Of nothing: the largest logit, and the sum of exp(logit - largest)."""
    return jnp.full(size, EXCLUDED, jnp.float32), jnp.zeros(size, jnp.float32)


def _add_exponentials(state: tuple[Array, Array], logits: Array, *, axis: int) -> tuple[Array, Array]:
    largest = jnp.maximum(state[0], jnp.max(logits, axis=axis))
    total = state[1] * jnp.exp(state[0] - largest)
    return largest, total + jnp.sum(jnp.exp(logits - jnp.expand_dims(largest, axis)), axis=axis)


def _log(state: tuple[Array, Array]) -> Array:
    return state[0] + jnp.log(state[1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sigmoid_sums(layout: Layout, first: Side, second: Side, scale: Array, bias: Array) -> Array:
    """Of softplus(∓(scale · similarities + bias)), - for an example's own pair: the sum of each row, [B]."""
    return _sigmoid_sums_forward(layout, first, second, scale, bias)[0]


def _sigmoid_sums_forward(layout: Layout, first: Side, second: Side, scale: Array, bias: Array) -> tuple[Array, Any]:
    def local(first, second, scale, bias):
        def step(sums, columns, travelling):
            similarities, allowed, own = pairs(first, columns)
            return sums + jnp.sum(sigmoid_losses(similarities * scale + bias, allowed, own), axis=1), travelling

        zeros = jnp.zeros(first.index.shape, jnp.float32)
        return _around(layout, step, zeros, second, lambda width: ())[0]

    found = on_devices(layout, local, first, second, scale, bias, out=True)
    return found, (first, second, scale, bias)


def _sigmoid_sums_backward(layout: Layout, residuals: Any, cotangent: Array) -> tuple[Side, Side, Array, Array]:
    def local(first, second, scale, bias, d_sums):
        def d_logits(similarities, allowed, own, extra):
            found = jax.nn.sigmoid(similarities * scale + bias) - own.astype(jnp.float32)
            return jnp.where(allowed, found, 0.0) * d_sums[:, None]

        return _pull_back(layout, first, second, (), scale, d_logits)

    found = on_devices(layout, local, *residuals, cotangent, out=(True, True, False, False))
    return _cotangent(found[0]), _cotangent(found[1]), *found[2:]


sigmoid_sums.defvjp(_sigmoid_sums_forward, _sigmoid_sums_backward)


def sigmoid_losses(
    logits: Float[Array, "R C"], allowed: Bool[Array, "R C"], own: Bool[Array, "R C"]
) -> Float[Array, "R C"]:
    return jnp.where(allowed, jax.nn.softplus(jnp.where(own, -logits, logits)), 0.0)


def _around(
    layout: Layout, step: Callable[..., tuple[Any, Any]], kept: Any, columns: Any, start: Callable[[int], Any]
) -> tuple[Any, Any]:
    """`kept, travelling = step(kept, columns, travelling)` over every chunk of every device's columns.

    `travelling` begins as `start(width)` of a chunk, goes round with it, and is returned, whole, where it belongs.
    """
    size = jax.tree.leaves(columns)[0].shape[0]
    num_chunks = max(1, -(-size // layout.chunk))
    width = -(-size // num_chunks)

    def split(array):
        # Padding is zeros, and so does not count: `where` is padded with false.
        padding = [(0, num_chunks * width - size)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, padding).reshape(num_chunks, width, *array.shape[1:])

    def hop(state, _):
        kept, columns, travelling = state
        kept, travelling = step(kept, columns, travelling)
        return (kept, *_to_the_next(layout, (columns, travelling))), None

    def circle(kept, columns):
        (kept, _, travelling), _ = jax.lax.scan(hop, (kept, columns, start(width)), length=layout.size)
        return kept, travelling

    kept, travelling = jax.lax.scan(circle, kept, jax.tree.map(split, columns))
    return kept, jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:])[:size], travelling)


def _to_the_next(layout: Layout, tree: Any) -> Any:
    if layout.size == 1:
        return tree
    ring = [(source, (source + 1) % layout.size) for source in range(layout.size)]
    return jax.tree.map(lambda array: jax.lax.ppermute(array, layout.axes, ring), tree)


def _pull_back(
    layout: Layout, first: Side, second: Side, extra: Any, scale: Array, d_logits: Callable[..., Array]
) -> tuple[Array, Array, Array, Array]:
    """Gradients of both sides' vectors, of scale and of bias, from `d_logits(similarities, allowed, own, extra)`."""
    vectors = first.vectors

    def step(sums, block, d_columns):
        columns, extra = block
        d_rows, d_scale, d_bias = sums
        similarities, allowed, own = pairs(first, columns)
        found = d_logits(similarities, allowed, own, extra)
        d_scale, d_bias = d_scale + jnp.sum(found * similarities), d_bias + jnp.sum(found)
        found = (found * scale).astype(vectors.dtype)
        d_rows += jnp.einsum("RC,CD->RD", found, columns.vectors, preferred_element_type=jnp.float32)
        return (d_rows, d_scale, d_bias), d_columns + sum_of_outer_products(found, vectors)

    def zeros(*shape):
        return jnp.zeros(shape, jnp.float32)

    width = vectors.shape[1]
    sums = zeros(*vectors.shape), zeros(), zeros()
    (d_first, d_scale, d_bias), d_second = _around(
        layout, step, sums, (second, extra), lambda length: zeros(length, width)
    )
    d_scale, d_bias = _sum_over_devices(layout, (d_scale, d_bias))
    return d_first.astype(vectors.dtype), d_second.astype(second.vectors.dtype), d_scale, d_bias


def _sum_over_devices(layout: Layout, tree: Any) -> Any:
    return tree if layout.size == 1 else jax.lax.psum(tree, layout.axes)


def _cotangent(d_vectors: Array) -> Any:
    """Of a side: only its vectors have a gradient."""
    return Side(d_vectors, None, None, None)  # pyright: ignore[reportArgumentType]
