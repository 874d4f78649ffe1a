"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864, eq. 34), halves rotated as in GPT-NeoX and Llama."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rotary(
    heads: Float[Array, "B L H K"], positions: Int[Array, "B L"], *, base: float = 10_000.0
) -> Float[Array, "B L H K"]:
    """Rotates each pair (k, k + K/2) of a head by position · base^(-2k/K); angles in float32."""
    half = heads.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions.astype(jnp.float32)[:, :, None, None] * frequencies[None, None, None, :]
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
