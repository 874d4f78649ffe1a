"""Which patches of an image a masked autoencoder sees, and which it must tell: on the device, keyed by example."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key


def choose_patches(
    keys: Key[Array, " B"], real: Bool[Array, "B N"], *, rate: float
) -> tuple[Int[Array, "B K"], Bool[Array, "B N"]]:
    """The patches that are encoded, in order, and those that are masked: a share `rate` of the real ones of each row.

    At random, as in He et al. 2022 (section 3): floor((1 - rate) · real) of them stay, at least 1. Every row has
    K = floor((1 - rate) · N) places, at least 1; where fewer patches stay, padding fills the others.
    """
    num_patches = real.shape[1]
    capacity = max(1, math.floor((1.0 - rate) * num_patches + _ROUNDING))
    num_real = jnp.sum(real, axis=1)
    staying = jnp.clip(jnp.floor((1.0 - rate) * num_real + _ROUNDING), 1, capacity)
    noise = jax.vmap(lambda key: jax.random.uniform(key, (num_patches,)))(keys)
    rank = _ranks(jnp.where(real, noise, 2.0))
    stays = real & (rank < staying[:, None])
    # First what stays, then padding, then what is masked, for which no place is left.
    order = jnp.argsort(jnp.where(stays, 0.0, jnp.where(real, 4.0, 2.0)) + noise, axis=1)
    keep = jnp.sort(order[:, :capacity], axis=1)
    kept = jax.vmap(lambda places: jnp.zeros((num_patches,), bool).at[places].set(True))(keep)
    return keep, real & ~kept


_ROUNDING = 1e-4  # 0.4 · 10 is below 4 in float32


def _ranks(values: Array) -> Int[Array, "B N"]:
    """The place of each value among those of its row, from 0."""
    return jnp.argsort(jnp.argsort(values, axis=1), axis=1)
