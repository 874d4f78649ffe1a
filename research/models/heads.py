"""Heads: from a backbone's vectors to what an objective compares; and the model that joins the two."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.models.layers import Dropout, Embedding, Norm, Projection, named, padded_vocabulary
from research.types import Cache


class Model(nn.Module):
    """A backbone (tokens to vectors) with the head that an objective asked for; parameters `backbone` and `head`."""

    backbone: nn.Module
    head: nn.Module

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        *,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        token_types: Int[Array, "B L"] | None = None,
        train: bool = False,
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B L D"], Cache | None]:
        """The backbone's vectors, and its cache when one was given."""
        where = dict(positions=positions, segment_ids=segment_ids, token_types=token_types)
        return self.backbone(tokens, **where, train=train, cache=cache)

    def vocabulary(self, hidden: Array) -> tuple[Array, Float[Array, "V D"], Float[Array, " V"] | None]:
        """Vectors, table and bias whose product is the logits, so that the loss can form them by chunks."""
        return self.head(hidden, self.backbone.table())

    def classify(self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool) -> Float[Array, "B C"]:
        return self.head(hidden, mask, train=train)

    def tag(self, hidden: Float[Array, "B L D"], *, train: bool) -> Float[Array, "B L C"]:
        return self.head(hidden, train=train)

    def embed(self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
        """One vector a row, by an `EmbeddingHead`."""
        return self.head(hidden, mask)

    def initial_cache(self, batch_size: int, length: int) -> Cache:
        return self.backbone.initial_cache(batch_size, length)


class LanguageHead(nn.Module):
    """Vectors to vocabulary: an optional transform (BERT's dense, activation, norm) and a tied or own table."""

    vocab_size: int
    width: int
    tied: bool = True
    transform: bool = False
    bias: bool = False
    norm_epsilon: float = 1e-12  # of the transform
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, hidden: Array, table: Float[Array, "V D"]) -> tuple[Array, Array, Array | None]:
        types: dict[str, Any] = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        if self.transform:
            shape, axes = (self.width, self.width), ("embed", None)
            hidden = Projection("...d,de->...e", shape, axes, bias=True, stddev=0.02, name="transform", **types)(hidden)
            hidden = Norm("layer", self.norm_epsilon, name="norm", **types)(jax.nn.gelu(hidden, approximate=False))
        if not self.tied:
            table = Embedding(padded_vocabulary(self.vocab_size), self.width, name="output", **types).table()
        bias = None
        if self.bias:
            shape = (padded_vocabulary(self.vocab_size),)
            bias = self.param("bias", named(nn.initializers.zeros_init(), ("vocab",)), shape, self.param_dtype)
        return hidden, table, bias


class ClassificationHead(nn.Module):
    """Pools a row to one vector and maps it to class logits in float32.

    `pooling`: the first token, the last real one, or the mean or maximum over real ones; `pooler` adds BERT's
    dense layer with tanh.
    """

    num_classes: int
    pooling: Literal["first", "last", "mean", "max"] = "mean"
    pooler: bool = False
    bias: bool = True
    dropout: float = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool) -> Array:
        pooled = pool(hidden, mask, self.pooling)
        if self.pooler:
            pooled = jnp.tanh(
                _dense(pooled, pooled.shape[-1], "pooler", dtype=self.dtype, param_dtype=self.param_dtype)
            )
        pooled = Dropout(self.dropout)(pooled, train=train)
        types = dict(dtype=jnp.float32, param_dtype=self.param_dtype)
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


class EmbeddingHead(nn.Module):
    """Pools a row to one float32 vector that stands for the text; `normalize` gives it length 1.

    `pooling` and `pooler` as in `ClassificationHead`.
    """

    pooling: Literal["first", "last", "mean", "max"] = "mean"
    pooler: bool = False
    normalize: bool = False
    dtype: str = "float32"
    param_dtype: str = "float32"

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
        pooled = pool(hidden, mask, self.pooling)
        if self.pooler:
            pooled = jnp.tanh(
                _dense(pooled, pooled.shape[-1], "pooler", dtype=self.dtype, param_dtype=self.param_dtype)
            )
        pooled = pooled.astype(jnp.float32)
        if self.normalize:
            pooled = pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
        return pooled


def _dense(inputs: Float[Array, "*batch D"], size: int, name: str, *, bias: bool = True, **types: Any) -> Array:
    """A linear map within a head's compact method, with BERT's initialisation."""
    shape, axes = (inputs.shape[-1], size), ("embed", None)
    return Projection("...d,de->...e", shape, axes, bias=bias, stddev=0.02, name=name, **types)(inputs)


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
