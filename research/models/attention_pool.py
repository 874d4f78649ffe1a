"""Attention pooling: a learned query reads a row (Zhai et al. 2022, arXiv:2106.04560; big_vision's MAPHead)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from research.models.layers import Norm, Projection, named
from research.ops.attention import attention

_HEAD_DIM = 64


class AttentionPool(nn.Module):
    """One query attends to the real positions of a row; then a norm and an MLP with a residual connection.

    Heads are of size 64 where the width divides into such, else there is one head.
    """

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
        width = hidden.shape[-1]
        heads = (1, width) if width % _HEAD_DIM else (width // _HEAD_DIM, _HEAD_DIM)
        types: dict[str, Any] = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        options: dict[str, Any] = types | dict(bias=True)
        shape, axes = (width, *heads), ("embed", "heads", "head_dim")
        init = named(nn.initializers.normal(width**-0.5), (None, None, "embed"))
        probe = jnp.asarray(self.param("probe", init, (1, 1, width), self.param_dtype))
        probe = jnp.broadcast_to(probe, (hidden.shape[0], 1, width))

        query, key, value = (
            Projection("bld,dhk->blhk", shape, axes, name=name, **options)(inputs)
            for name, inputs in (("query", probe), ("key", hidden), ("value", hidden))
        )
        mixed = attention(query, key, value, mask[:, None, :])
        shape, axes = (*heads, width), ("heads", "head_dim", "embed")
        pooled = Projection("blhk,hkd->bld", shape, axes, 2, name="out", **options)(mixed)[:, 0]
        inner = Norm("layer", name="norm", **types)(pooled)
        inner = Projection("bd,df->bf", (width, 4 * width), ("embed", "mlp"), name="up", **options)(inner)
        inner = jax.nn.gelu(inner, approximate=False)
        return pooled + Projection("bf,fd->bd", (4 * width, width), ("mlp", "embed"), name="down", **options)(inner)
