"""The model that joins a backbone and a head, and the head of language; those of labels are in `task_heads.py`."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float, Int

from research.models.layers import Embedding, Norm, Projection, named, padded_vocabulary
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

    def spans(self, hidden: Float[Array, "B L D"], *, train: bool) -> Float[Array, "B L 2"]:
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
    matmul_dtype: str = ""

    @nn.compact
    def __call__(self, hidden: Array, table: Float[Array, "V D"]) -> tuple[Array, Array, Array | None]:
        types: dict[str, Any] = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        if self.transform:
            shape, axes = (self.width, self.width), ("embed", None)
            options: dict[str, Any] = types | dict(matmul_dtype=self.matmul_dtype, bias=True, stddev=0.02)
            hidden = Projection("...d,de->...e", shape, axes, name="transform", **options)(hidden)
            hidden = Norm("layer", self.norm_epsilon, name="norm", **types)(jax.nn.gelu(hidden, approximate=False))
        if not self.tied:
            table = Embedding(padded_vocabulary(self.vocab_size), self.width, name="output", **types).table()
        bias = None
        if self.bias:
            shape = (padded_vocabulary(self.vocab_size),)
            bias = self.param("bias", named(nn.initializers.zeros_init(), ("vocab",)), shape, self.param_dtype)
        # The loss takes the product with the table in the type of the vectors.
        return hidden.astype(self.matmul_dtype or hidden.dtype), table, bias
