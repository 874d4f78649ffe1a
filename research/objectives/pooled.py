"""What objectives of whole rows share: running the head that pools a row, and starting it."""

from __future__ import annotations

from typing import cast

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from research.objectives.text import encode, init
from research.types import Batch, Variables


def init_pooled(model: nn.Module, rng: jax.Array, batch: Batch) -> Variables:
    """Parameters of the backbone and of a `ClassificationHead`."""
    mask = batch["segment_ids"] > 0
    return init(model, rng, batch, lambda model, hidden: model.classify(hidden, mask, train=False))


def pooled_logits(
    model: nn.Module, variables: Variables, batch: Batch, *, train: bool = False, dropout: jax.Array | None = None
) -> Float[Array, "B C"]:
    """What the head makes of each row, in float32."""
    hidden = encode(model, variables, batch, train=train, dropout=dropout)
    rngs = {"dropout": jax.random.fold_in(dropout, 1)} if train and dropout is not None else {}
    mask = batch["segment_ids"] > 0
    params = {"params": variables["params"]}
    return cast(Array, model.apply(params, hidden, mask, train=train, method="classify", rngs=rngs))
