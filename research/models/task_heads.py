"""Heads of finished encoders: from the vectors of a row to labels, tags, a span, or one vector for the whole text."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from research.models.attention_pool import AttentionPool
from research.models.layers import Dropout, Projection
from research.ops.unit_length import unit_length


class ClassificationHead(nn.Module):
    """Pools a row to one vector and maps it to class logits in float32.

    `pooling`: the first token, the last real one, the mean or maximum over real ones, or multihead attention pooling
    ("map": `AttentionPool`, which has parameters); `pooler` adds BERT's dense layer with tanh.
    """

    num_classes: int
    pooling: Literal["first", "last", "mean", "max", "map"] = "mean"
    pooler: bool = False
    bias: bool = True
    dropout: float = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool) -> Array:
        types: dict[str, Any] = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        pooled = _pool(hidden, mask, self.pooling, **types)
        if self.pooler:
            pooled = jnp.tanh(_dense(pooled, pooled.shape[-1], "pooler", **types))
        pooled = Dropout(self.dropout)(pooled, train=train)
        types |= dict(dtype=jnp.float32)
        return _dense(pooled, self.num_classes, "classifier", bias=self.bias, **types)


class TaggingHead(nn.Module):
    """Class logits of every position, in float32."""

    num_classes: int
    dropout: float = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"], *, train: bool) -> Float[Array, "B L C"]:
        hidden = Dropout(self.dropout)(hidden.astype(jnp.float32), train=train)
        types: dict[str, Any] = dict(dtype=jnp.float32, param_dtype=self.param_dtype)
        return _dense(hidden, self.num_classes, "classifier", **types)


class SpanHead(nn.Module):
    """For every position two logits in float32: that the answer begins there, and that it ends there.

    The map `outputs` is the `qa_outputs` of transformers.
    """

    dropout: float = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"], *, train: bool) -> Float[Array, "B L 2"]:
        hidden = Dropout(self.dropout)(hidden.astype(jnp.float32), train=train)
        types: dict[str, Any] = dict(dtype=jnp.float32, param_dtype=self.param_dtype)
        return _dense(hidden, 2, "outputs", **types)


class EmbeddingHead(nn.Module):
    """Pools a row to one float32 vector that stands for the text; `normalize` gives it length 1.

    `pooling` and `pooler` as in `ClassificationHead`.
    """

    pooling: Literal["first", "last", "mean", "max", "map"] = "mean"
    pooler: bool = False
    normalize: bool = False
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
        types: dict[str, Any] = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        pooled = _pool(hidden, mask, self.pooling, **types)
        if self.pooler:
            pooled = jnp.tanh(_dense(pooled, pooled.shape[-1], "pooler", **types))
        return unit_length(pooled) if self.normalize else pooled.astype(jnp.float32)


def _dense(inputs: Float[Array, "*batch D"], size: int, name: str, *, bias: bool = True, **types: Any) -> Array:
    """A linear map within a head's compact method, with BERT's initialisation."""
    shape, axes = (inputs.shape[-1], size), ("embed", None)
    return Projection("...d,de->...e", shape, axes, bias=bias, stddev=0.02, name=name, **types)(inputs)


def _pool(hidden: Array, mask: Array, kind: str, **types: Any) -> Float[Array, "B D"]:
    """`pool`, or attention pooling within a head's compact method."""
    if kind == "map":
        return AttentionPool(name="pool", **types)(hidden, mask).astype(jnp.float32)
    return pool(hidden, mask, kind)


def pool(hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], kind: str) -> Float[Array, "B D"]:
    """One float32 vector a row, from its real positions."""
    hidden = hidden.astype(jnp.float32)
    if kind == "first":
        return hidden[:, 0]
    if kind == "last":
        last = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)
        return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    if kind == "max":
        return jnp.max(jnp.where(mask[:, :, None], hidden, jnp.finfo(jnp.float32).min), axis=1)
    total = jnp.sum(jnp.where(mask[:, :, None], hidden, 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]
