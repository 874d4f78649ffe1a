"""Scaled dot-product attention over packed rows, with grouped query heads and separate query and key positions."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.ops.attention_mask import MASKED, attention_mask
from research.ops.placed import Axes, axes_of
from research.ops.ring_attention import ring_attention
from research.ops.splash_attention import fits, splash_attention


class Packed(NamedTuple):
    """Rows of documents, in place of a mask: a position looks at its own segment, and not past itself when causal.

    Positions ascend within each segment, and segments are runs of a row.
    """

    positions: Int[Array, "B L"]
    segment_ids: Int[Array, "B L"]


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


def packed_attention(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B L G K"],
    value: Float[Array, "B L G K"],
    where: Packed,
    *,
    causal: bool,
) -> Float[Array, "B L H K"]:
    """`attention` of rows with themselves, by the kernel that the mesh and the lowering platform ask for.

    Where the length is sharded (`context`) it is a ring; on TPU, for rows of a length that it takes, the splash kernel,
    which holds no scores; else the plain form. What padding gets (segment 0) differs between them: mask its loss.
    """
    axes = axes_of("batch", "length", "heads")
    if axes is not None and axes.sizes[1] > 1:
        return ring_attention(query, key, value, where.positions, where.segment_ids, causal=causal, axes=axes)
    arguments = (query, key, value, where.positions, where.segment_ids)
    plain = functools.partial(_plain, causal=causal)
    if not fits(query.shape[1]):
        return plain(*arguments)
    on_tpu = functools.partial(_on_tpu, causal=causal, axes=axes)
    return jax.lax.platform_dependent(*arguments, tpu=on_tpu, default=plain)


def _plain(query: Array, key: Array, value: Array, positions: Array, segment_ids: Array, *, causal: bool) -> Array:
    mask = attention_mask(positions, positions, segment_ids, segment_ids, causal=causal)
    return attention(query, key, value, mask)


def _on_tpu(
    query: Array, key: Array, value: Array, positions: Array, segment_ids: Array, *, causal: bool, axes: Axes | None
) -> Array:
    del positions  # a row's order is that of the positions within each segment
    return splash_attention(query, key, value, segment_ids, causal=causal, axes=axes)


def _softmax(scores: Array, mask: Array) -> Array:
    return jax.nn.softmax(jnp.where(mask, scores, MASKED), axis=-1)
