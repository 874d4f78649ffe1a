"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864, eq. 34), halves rotated as in GPT-NeoX and Llama."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rotary(
    heads: Float[Array, "B L H K"], positions: Int[Array, "B L *axes"], *, base: float = 10_000.0
) -> Float[Array, "B L H K"]:
    """Rotates each pair (k, k + K/2) of a head by position · base^(-2k/K); angles in float32.

    Where a position has A coordinates (row and column of a patch), each turns K/2A of the pairs, in their order, with
    frequencies from 1 down to 1/base (axial: Heo et al. 2024, arXiv:2403.13298, section 3.2).
    """
    places = positions.astype(jnp.float32).reshape(*positions.shape[:2], 1, -1, 1)
    share = heads.shape[-1] // 2 // places.shape[3]
    frequencies = base ** (-jnp.arange(share, dtype=jnp.float32) / share)
    angles = (places * frequencies[None, None, None, None, :]).reshape(*positions.shape[:2], 1, -1)
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(heads.dtype)


def sinusoidal(positions: Int[Array, "B L"], width: int) -> Float[Array, "B L D"]:
    """Sine and cosine positions (Vaswani et al. 2017, section 3.5), sines first, then cosines."""
    half = width // 2
    frequencies = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions.astype(jnp.float32)[:, :, None] * frequencies[None, None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
