"""Contrastive losses: each vector is told apart from the others of the batch by its counterpart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def clip(
    image: Float[Array, "B D"],
    text: Float[Array, "B D"],
    *,
    scale: Float[Array, ""] | float,
    where: Bool[Array, " B"] | None = None,
    groups: Int[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """Softmax InfoNCE of unit vectors, both directions averaged: one loss per pair, in nats, float32.

    Radford et al. 2021, figure 3; for two texts it is the multiple-negatives ranking loss (Henderson et al. 2017,
    section 4). Similarities are multiplied by `scale`, the inverse temperature. Rows where `where` is false are neither
    told apart nor from others, and their loss is 0. Rows of one group (a text that occurs twice) are no negatives of
    each other.
    """
    logits = jnp.einsum("bd,cd->bc", image.astype(jnp.float32), text.astype(jnp.float32)) * scale
    size = logits.shape[0]
    allowed = jnp.ones((size, size), bool)
    if groups is not None:
        allowed = (groups[:, None] != groups[None, :]) | jnp.eye(size, dtype=bool)
    if where is not None:
        allowed &= where[None, :] & where[:, None] | jnp.eye(size, dtype=bool)
    # A large negative number, not -inf: its gradient is 0 and no row is without a number.
    logits = jnp.where(allowed, logits, -1e30)
    own = jnp.diagonal(logits)
    losses = 0.5 * (jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)) - own
    return losses if where is None else jnp.where(where, losses, 0.0)
