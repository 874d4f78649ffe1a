"""Attention over a length that lies on several devices: keys and values go round, a block of scores at a time.

Ring attention (Liu et al. 2023) with the running softmax of Milakov and Gimelshein 2018. The scores of a block are
computed again in the backward pass.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from research.ops.attention_mask import MASKED, attention_mask
from research.ops.placed import Axes


def ring_attention(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B L G K"],
    value: Float[Array, "B L G K"],
    positions: Int[Array, "B L"],
    segment_ids: Int[Array, "B L"],
    *,
    causal: bool,
    axes: Axes,
) -> Float[Array, "B L H K"]:
    """Softmax(query · key · K^-1/2) · value within each segment, and no later position when causal; `axes` are those of
    rows, length and heads."""
    rows, length, heads = (names or None for names in axes.names)
    by_head, by_row = PartitionSpec(rows, length, heads, None), PartitionSpec(rows, length)
    call = functools.partial(_ring, causal=causal, axis=axes.names[1], hops=axes.sizes[1])
    specs: Any = dict(in_specs=(*[by_head] * 3, by_row, by_row), out_specs=by_head, check_vma=False)
    return jax.shard_map(call, **specs)(query, key, value, positions, segment_ids)


def _ring(
    query: Array, key: Array, value: Array, positions: Array, segments: Array, *, causal: bool, axis: Any, hops: int
) -> Array:
    batch, length, heads, size = query.shape
    groups = key.shape[2]
    shared = query.reshape(batch, length, groups, heads // groups, size)
    onward = [(place, (place + 1) % hops) for place in range(hops)]

    @jax.checkpoint
    def attend(sums: Any, block: Any) -> Any:
        total, partition, largest = sums
        key, value, key_positions, key_segments = block
        scores = jnp.einsum("blgrk,bmgk->bgrlm", shared, key, preferred_element_type=jnp.float32) * size**-0.5
        seen = attention_mask(positions, key_positions, segments, key_segments, causal=causal)
        scores = jnp.where(seen[:, None, None], scores, MASKED)
        highest = jnp.maximum(largest, jnp.max(scores, axis=-1))
        scale, weights = jnp.exp(largest - highest), jnp.exp(scores - highest[..., None])
        mixed = jnp.einsum("bgrlm,bmgk->bgrlk", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
        return total * scale[..., None] + mixed, partition * scale + jnp.sum(weights, axis=-1), highest

    def hop(carry: Any, _: None) -> tuple[Any, None]:
        sums, block = carry
        return (attend(sums, block), jax.tree.map(lambda part: jax.lax.ppermute(part, axis, onward), block)), None

    shape = (batch, groups, heads // groups, length)
    sums = (
        jnp.zeros((*shape, size), jnp.float32),
        jnp.zeros(shape, jnp.float32),
        jnp.full(shape, MASKED, jnp.float32),
    )
    block = (key, value, positions, segments)
    (sums, block), _ = jax.lax.scan(hop, (sums, block), None, length=hops - 1)
    total, partition, _ = attend(sums, block)  # the last block need not go on
    mixed = (total / partition[..., None]).astype(value.dtype)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size)
