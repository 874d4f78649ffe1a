"""Regression of a row: one number."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from research.objectives.pooled import init_pooled, pooled_features, pooled_logits
from research.objectives.text import check_token_dropout, hide_tokens, mean_over, real_examples
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class Regression:
    """Mean squared error of the number, less `target_mean` and in units of `target_scale`, those of the training split.

    1 is what the training mean would have there. Token dropout as in `hide_tokens`, in training alone.
    """

    model: nn.Module
    mask_id: int = -1
    token_dropout: float = 0.0
    target_mean: float = 0.0
    target_scale: float = 1.0

    couples_examples = False
    causal = False
    head = "classification"
    target = "value"

    def __post_init__(self) -> None:
        check_token_dropout(self.token_dropout, self.mask_id)

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        return init_pooled(self.model, rng, batch)

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        if train and self.token_dropout:
            batch = hide_tokens(batch, rng.noise, rate=self.token_dropout, mask_id=self.mask_id)
        logits, state = pooled_logits(self.model, variables, batch, train=train, dropout=rng.dropout)
        predicted = logits[:, 0]
        where = real_examples(batch)
        wanted = (batch["value"] - self.target_mean) / self.target_scale
        # Selected before squaring: a NaN in a row that does not count must not reach the sum, nor its gradient.
        errors = jnp.where(where, predicted - wanted, 0.0)
        return Loss(terms={"loss": (1.0, mean_over(jnp.square(errors), where))}, metrics={}, model_state=state)

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: the number [B], in its own units."""
        predicted = pooled_logits(self.model, variables, batch)[0][:, 0]
        return {"values": self.target_mean + self.target_scale * predicted}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return pooled_features(self.model, variables, batch)
