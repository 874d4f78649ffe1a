"""Attention by the splash kernel that jax brings for TPU: blocks of scores, never all of them, and segment ids."""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from research.ops.placed import Axes

_LANES = 128
_SHORTEST = 256  # below it all scores of a row are small


def fits(length: int) -> bool:
    """Whether the kernel takes rows of this length, and is worth it."""
    return length >= _SHORTEST and length % _LANES == 0


def splash_attention(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B L G K"],
    value: Float[Array, "B L G K"],
    segment_ids: Int[Array, "B L"],
    *,
    causal: bool,
    axes: Axes | None,
    interpret: bool = False,
) -> Float[Array, "B L H K"]:
    """Softmax(query · key · K^-1/2) · value within each segment, and not past itself when causal.

    A kernel is not partitioned by the compiler: each device calls it on its own rows and heads, by `axes`.
    """
    call = functools.partial(_local, causal=causal, interpret=interpret)
    if axes is None:
        return call(query, key, value, segment_ids)
    rows, _, heads = (names or None for names in axes.names)
    by_head, by_row = PartitionSpec(rows, None, heads, None), PartitionSpec(rows, None)
    specs: Any = dict(in_specs=(by_head, by_head, by_head, by_row), out_specs=by_head, check_vma=False)
    return jax.shard_map(call, **specs)(query, key, value, segment_ids)


def _local(query: Array, key: Array, value: Array, segment_ids: Array, *, causal: bool, interpret: bool) -> Array:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    _, length, heads, size = query.shape
    one = (masks.CausalMask if causal else masks.FullMask)((length, length))
    block = max(each for each in (128, 256, 384, 512) if length % each == 0)
    names = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
    sizes = kernels.BlockSizes(**dict.fromkeys(names, block))
    kernel: Any = kernels.make_splash_mha(
        masks.MultiHeadMask([one] * heads), head_shards=1, q_seq_shards=1, block_sizes=sizes, interpret=interpret
    )
    query, key, value = (array.swapaxes(1, 2) for array in (query * size**-0.5, key, value))
    segments = kernels.SegmentIds(segment_ids, segment_ids)
    mixed = jax.vmap(lambda q, k, v, s: kernel(q, k, v, segment_ids=s))(query, key, value, segments)
    return mixed.swapaxes(1, 2).astype(value.dtype)
