"""What objectives of texts, images or sounds as a whole share: running the head that pools one, and starting it."""

from __future__ import annotations

from typing import Any, cast

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from research.objectives import text
from research.objectives.inputs import Inputs, has_inputs, init_inputs, input_features, read_inputs, run_inputs
from research.types import Batch, Features, Variables


def init_pooled(model: nn.Module, rng: jax.Array, batch: Batch) -> Variables:
    """Parameters (and model state) of the backbone and of a `ClassificationHead`."""
    if has_inputs(batch):
        inputs = read_inputs(model, batch)
        return init_inputs(model, rng, inputs, lambda model, hidden, mask: model.classify(hidden, mask, train=False))
    mask = batch["segment_ids"] > 0
    return text.init(model, rng, batch, lambda model, hidden: model.classify(hidden, mask, train=False))


def pooled_logits(
    model: nn.Module,
    variables: Variables,
    batch: Batch,
    *,
    inputs: Inputs | None = None,
    train: bool = False,
    dropout: jax.Array | None = None,
) -> tuple[Float[Array, "B C"], dict[str, Any]]:
    """What the head makes of each example, in float32, and the model state that this changed.

    `inputs` stand in for those of the batch (after augmentation).
    """
    if has_inputs(batch):
        inputs = read_inputs(model, batch) if inputs is None else inputs
        call: dict[str, Any] = dict(where=text.real_examples(batch), train=train, dropout=dropout)
        return run_inputs(
            model, variables, inputs, lambda model, hidden, mask: model.classify(hidden, mask, train=train), **call
        )
    hidden = text.encode(model, variables, batch, train=train, dropout=dropout)
    rngs = {"dropout": jax.random.fold_in(dropout, 1)} if train and dropout is not None else {}
    mask = batch["segment_ids"] > 0
    params = {"params": variables["params"]}
    return cast(Array, model.apply(params, hidden, mask, train=train, method="classify", rngs=rngs)), {}


def pooled_features(model: nn.Module, variables: Variables, batch: Batch) -> Features:
    """The vectors of every position, and their mean over real ones."""
    if has_inputs(batch):
        return input_features(model, variables, read_inputs(model, batch))
    return text.features(model, variables, batch)
