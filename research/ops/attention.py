"""Scaled dot-product attention over packed rows, with grouped query heads and separate query and key positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_MASKED = -1e30  # finite: a fully masked row (padding) must give finite values and gradients


def attention_mask(
    query_positions: Int[Array, "B L"],
    key_positions: Int[Array, "B M"],
    query_segments: Int[Array, "B L"],
    key_segments: Int[Array, "B M"],
    *,
    causal: bool,
) -> Bool[Array, "B L M"]:
    """True where a query may look: keys of its own segment, and no later position when causal. Segment 0 is padding."""
    mask = (query_segments[:, :, None] == key_segments[:, None, :]) & (key_segments > 0)[:, None, :]
    if causal:
        mask &= key_positions[:, None, :] <= query_positions[:, :, None]
    return mask


def attention(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B M G K"],
    value: Float[Array, "B M G K"],
    mask: Bool[Array, "B L M"],
    *,
    scale: float | None = None,
) -> Float[Array, "B L H K"]:
    """Softmax(query · key · scale) · value, softmax in float32; H is a multiple of G (Ainslie et al. 2023, GQA).

    `scale` defaults to K^-1/2. A row without any key gets the mean of the values: mask its loss.
    """
    batch, length, heads, size = query.shape
    groups = key.shape[2]
    factor = size**-0.5 if scale is None else scale
    if groups == heads:
        scores = jnp.einsum("blhk,bmhk->bhlm", query, key, preferred_element_type=jnp.float32) * factor
        weights = _softmax(scores, mask[:, None, :, :]).astype(value.dtype)
        return jnp.einsum("bhlm,bmhk->blhk", weights, value)
    shared = query.reshape(batch, length, groups, heads // groups, size)
    scores = jnp.einsum("blgrk,bmgk->bgrlm", shared, key, preferred_element_type=jnp.float32) * factor
    weights = _softmax(scores, mask[:, None, None, :, :]).astype(value.dtype)
    return jnp.einsum("bgrlm,bmgk->blgrk", weights, value).reshape(batch, length, heads, size)


def _softmax(scores: Array, mask: Array) -> Array:
    return jax.nn.softmax(jnp.where(mask, scores, _MASKED), axis=-1)
