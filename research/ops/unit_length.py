"""Vectors at length one."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def unit_length(vectors: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Each vector in float32, divided by its length; a vector of zeros stays one, and so does its gradient."""
    vectors = vectors.astype(jnp.float32)
    # The bound comes before the root, whose slope at 0 is infinite.
    return vectors / jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True), 1e-24))
