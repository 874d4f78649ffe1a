"""What objectives that compare examples with each other share."""

from __future__ import annotations

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.objectives.text import encode
from research.ops.product import product
from research.ops.unit_length import unit_length
from research.types import Batch, Variables


def check_compared(batch: Batch) -> None:
    """Raises ValueError where there is nothing to compare an example with."""
    size = next(iter(batch.values())).shape[0]
    if size < 2:
        raise ValueError(f"batch_size={size}: examples are told apart from others of their batch; use 2 or more")


def text_vectors(
    model: nn.Module, variables: Variables, batch: Batch, *, train: bool = False, dropout: jax.Array | None = None
) -> Float[Array, "B D"]:
    """Of each text one vector of length 1, by the model's `EmbeddingHead`."""
    hidden = encode(model, variables, batch, train=train, dropout=dropout)
    mask = batch["segment_ids"] > 0
    return unit_length(cast(Array, model.apply({"params": variables["params"]}, hidden, mask, method="embed")))


def own_is_nearest(
    first: Float[Array, "B E"],
    second: Float[Array, "B E"],
    where: Bool[Array, " B"],
    *,
    groups: Int[Array, " B"] | None = None,
) -> Bool[Array, " B"]:
    """Whether a row's counterpart is nearer to it than that of any other row in `where` (and of another group)."""
    near = product("be,ce->bc", first, second, dtype=jnp.float32)
    groups = jnp.arange(near.shape[0]) if groups is None else groups
    rivals = (groups[:, None] != groups[None, :]) & where[None, :]
    return (jnp.diagonal(near) > jnp.max(jnp.where(rivals, near, -jnp.inf), axis=1)) & where
