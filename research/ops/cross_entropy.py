"""Cross-entropy per position in float32: from logits, or from hidden vectors and a table by chunks of rows."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jaxtyping import Array, Bool, Float, Int

from research.ops.pick import pick
from research.ops.placed import by_rows, cut_rows
from research.ops.product import sum_of_outer_products


def cross_entropy(
    logits: Float[Array, "*batch V"],
    targets: Int[Array, "*batch"],
    where: Bool[Array, "*batch"] | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    num_valid: int | None = None,
) -> Float[Array, "*batch"]:
    """The loss of each position, in nats; 0, with a zero gradient, where `where` is false (None: it counts everywhere).

    Ids at and above `num_valid` are padding of the vocabulary table and no part of the softmax. `label_smoothing`
    spreads that mass evenly over the valid ids, the target among them (Szegedy et al. 2016, section 7); `z_loss` is
    the coefficient of log²(partition) (PaLM, section 5). A target out of range gives NaN where the position counts.
    """
    options = _Options(label_smoothing, z_loss, logits.shape[-1] if num_valid is None else num_valid)
    if where is None:
        where = jnp.ones(targets.shape, bool)
    # Selected before the softmax and not only after it: a zero cotangent times a NaN logit is NaN.
    logits = jnp.where(where[..., None], logits.astype(jnp.float32), 0.0)
    return _losses(options, logits, targets, where)[0]


def chunked_cross_entropy(
    hidden: Float[Array, "N D"],
    table: Float[Array, "V D"],
    bias: Float[Array, " V"] | None,
    targets: Int[Array, " N"],
    where: Bool[Array, " N"],
    *,
    chunk: int,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    num_valid: int | None = None,
) -> tuple[Float[Array, " N"], Bool[Array, " N"]]:
    """`cross_entropy` of `hidden @ table.T + bias`, and whether the target is the argmax (false where not counted).

    At most `chunk` rows of logits exist on a device at a time; the backward pass computes them again, once, unless all
    rows fit in one chunk. The product is taken in the dtype of `hidden`; logits and the sum of the table's gradient are
    float32. On a mesh every device has the logits of its own rows, and of its part of the vocabulary.
    """
    options = _Options(label_smoothing, z_loss, table.shape[0] if num_valid is None else num_valid)
    num_rows = hidden.shape[0]
    num_chunks, rows = cut_rows(num_rows, chunk)

    def split(array: Array) -> Array:
        padding = [(0, rows * num_chunks - num_rows)] + [(0, 0)] * (array.ndim - 1)
        # Chunk i takes the rows i, i + num_chunks, …: consecutive rows of a sharded batch lie on few of its devices.
        return by_rows(jnp.pad(array, padding).reshape(rows, num_chunks, *array.shape[1:]).swapaxes(0, 1), place=1)

    hidden = jnp.where(where[:, None], hidden, jnp.zeros((), hidden.dtype))  # a NaN there must not reach the table
    chunked = _chunk_losses(options, split(hidden), table, bias, split(targets), split(where))
    return jax.tree.map(lambda array: array.swapaxes(0, 1).reshape(-1)[:num_rows], chunked)


class _Options(NamedTuple):
    label_smoothing: float
    z_loss: float
    num_valid: int


def _losses(options: _Options, logits: Array, targets: Array, where: Array) -> tuple[Array, Array, Array]:
    """Losses, the log of the partition, and whether the target is the argmax, for float32 logits."""
    ids = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
    valid = _valid(options, ids)
    log_partition = jax.nn.logsumexp(logits, axis=-1, where=valid)
    target_logit = pick(logits, targets)
    losses = log_partition - target_logit
    if options.label_smoothing:
        mean_logit = jnp.sum(jnp.where(valid, logits, 0.0), axis=-1) / options.num_valid
        losses += options.label_smoothing * (target_logit - mean_logit)
    if options.z_loss:
        losses += options.z_loss * jnp.square(log_partition)
    in_range = (targets >= 0) & (targets < options.num_valid)
    losses = jnp.where(where, jnp.where(in_range, losses, jnp.nan), 0.0)
    # The first of equal logits is the argmax. XLA's argmax does not vectorise on a CPU; this does.
    beaten_by = jnp.where(ids < targets[..., None], logits >= target_logit[..., None], logits > target_logit[..., None])
    correct = where & in_range & ~jnp.any(valid & beaten_by, axis=-1)
    return losses, log_partition, correct


def _valid(options: _Options, ids: Array) -> Array:
    """Which ids are no padding of the table; without padding nothing is compared, in arrays as large as the logits."""
    return ids < options.num_valid if options.num_valid < ids.shape[-1] else jnp.ones((), bool)


def _logits_gradient(
    options: _Options, logits: Array, targets: Array, log_partition: Array, cotangent: Array
) -> Float[Array, "N V"]:
    ids = jax.lax.broadcasted_iota(targets.dtype, logits.shape, 1)
    valid = _valid(options, ids)
    gradient = jnp.exp(logits - log_partition[:, None])
    if options.z_loss:
        gradient *= 1.0 + 2.0 * options.z_loss * log_partition[:, None]
    gradient -= jnp.where(ids == targets[:, None], 1.0 - options.label_smoothing, 0.0)
    if options.label_smoothing:
        gradient -= options.label_smoothing / options.num_valid
    return jnp.where(valid, gradient, 0.0) * cotangent[:, None]


def _logits(hidden: Array, table: Array, bias: Array | None) -> Float[Array, "N V"]:
    logits = jnp.einsum("ND,VD->NV", hidden, table, preferred_element_type=jnp.float32)
    logits = by_rows(logits, place=0, vocab=True)
    return logits if bias is None else logits + bias.astype(jnp.float32)[None, :]


def _compute_table(table: Array, dtype: Any) -> Float[Array, "V D"]:
    """The table as the product takes it, gathered over its width once."""
    return with_logical_constraint(table.astype(dtype), ("vocab", None))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunk_losses(
    options: _Options, hidden: Array, table: Array, bias: Array | None, targets: Array, where: Array
) -> tuple[Array, Array]:
    """Losses and correctness [chunks rows] of hidden [chunks rows D]."""
    return _chunk_losses_forward(options, hidden, table, bias, targets, where)[0]


def _chunk_losses_forward(
    options: _Options, hidden: Array, table: Array, bias: Array | None, targets: Array, where: Array
) -> tuple[tuple[Array, Array], Any]:
    compute_table = _compute_table(table, hidden.dtype)

    def forward(chunk):
        hidden, targets, where = chunk
        logits = _logits(hidden, compute_table, bias)
        return logits, _losses(options, logits, targets, where)

    if hidden.shape[0] == 1:
        logits, (losses, log_partition, correct) = forward((hidden[0], targets[0], where[0]))
        losses, log_partition, correct = losses[None], log_partition[None], correct[None]
    else:
        logits = None
        losses, log_partition, correct = jax.lax.map(lambda chunk: forward(chunk)[1], (hidden, targets, where))
    return (losses, correct), (hidden, table, bias, targets, where, logits, log_partition)


def _chunk_losses_backward(options: _Options, residuals: Any, cotangents: tuple[Array, Any]) -> Any:
    hidden, table, bias, targets, where, logits, log_partition = residuals
    cotangent = jnp.where(where, cotangents[0], 0.0)
    compute_table = _compute_table(table, hidden.dtype)

    def backward(hidden, targets, log_partition, cotangent, logits):
        gradient = _logits_gradient(options, logits, targets, log_partition, cotangent)
        d_bias = None if bias is None else jnp.sum(gradient, axis=0)
        gradient = gradient.astype(hidden.dtype)
        d_hidden = jnp.einsum("NV,VD->ND", gradient, compute_table, preferred_element_type=jnp.float32)
        d_table = with_logical_constraint(sum_of_outer_products(gradient, hidden), ("vocab", "embed"))
        return d_hidden.astype(hidden.dtype), (d_table, d_bias)

    def accumulate(sums, chunk):
        hidden, targets, log_partition, cotangent = chunk
        logits = _logits(hidden, compute_table, bias)
        d_hidden, gradients = backward(hidden, targets, log_partition, cotangent, logits)
        return jax.tree.map(jnp.add, sums, gradients), d_hidden

    if hidden.shape[0] == 1:
        d_hidden, (d_table, d_bias) = backward(hidden[0], targets[0], log_partition[0], cotangent[0], logits)
        d_hidden = d_hidden[None]
    else:
        zeros = jax.tree.map(lambda array: jnp.zeros(array.shape, jnp.float32), (table, bias))
        chunks = (hidden, targets, log_partition, cotangent)
        (d_table, d_bias), d_hidden = jax.lax.scan(accumulate, zeros, chunks)
    d_table, d_bias = jax.tree.map(
        lambda gradient, array: gradient.astype(array.dtype), (d_table, d_bias), (table, bias)
    )
    return d_hidden, d_table, d_bias, None, None


_chunk_losses.defvjp(_chunk_losses_forward, _chunk_losses_backward)
