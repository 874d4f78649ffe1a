"""One number of each row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def pick(rows: Float[Array, "*batch V"], ids: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The number of each row at its id; anything where the id is out of range.

    A CPU fetches it. Elsewhere all ids are compared, in the pass that reads the rows in any case: an accelerator
    fetches numbers one by one, and rows that are divided among devices would be brought together.
    """
    return jax.lax.platform_dependent(rows, ids, cpu=_fetch, default=_compare)


def _fetch(rows: Array, ids: Array) -> Array:
    return jnp.take_along_axis(rows, ids[..., None], axis=-1, mode="clip")[..., 0]


def _compare(rows: Array, ids: Array) -> Array:
    found = jax.lax.broadcasted_iota(ids.dtype, rows.shape, rows.ndim - 1) == ids[..., None]
    return jnp.sum(jnp.where(found, rows, 0.0), axis=-1)
