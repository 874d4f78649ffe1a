"""Multi-label classification of a row: yes or no for each of C labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.objectives.pooled import init_pooled, pooled_features, pooled_logits
from research.objectives.text import check_token_dropout, hide_tokens, mean_over, real_examples
from research.ops.binary_cross_entropy import binary_cross_entropy
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class MultiLabel:
    """Mean over rows of the mean binary cross-entropy of their C labels, in nats.

    In training, with `positive_weight` "balanced", a class's positives weigh as many times more as it has negatives to
    a positive (of `num_rows` rows `label_counts` have the class); label smoothing and token dropout (see `hide_tokens`)
    belong to training too, evaluation is plain. The accuracy is that of whole rows: every label right.
    """

    model: nn.Module
    num_classes: int
    mask_id: int = -1
    label_smoothing: float = 0.0
    token_dropout: float = 0.0
    positive_weight: Literal["none", "balanced"] = "none"
    label_counts: tuple[int, ...] = ()
    num_rows: int = 0

    couples_examples = False
    causal = False
    head = "classification"
    target = "labels"

    def __post_init__(self) -> None:
        check_token_dropout(self.token_dropout, self.mask_id)
        if self.positive_weight == "balanced" and self.num_rows in self.label_counts:
            raise ValueError(
                "objective.positive_weight=balanced weighs positives by negatives, and a class is in every one of the "
                f"{self.num_rows} training rows; use more rows, or positive_weight=none"
            )

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        return init_pooled(self.model, rng, batch)

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        if train and self.token_dropout:
            batch = hide_tokens(batch, rng.noise, rate=self.token_dropout, mask_id=self.mask_id)
        logits, state = pooled_logits(self.model, variables, batch, train=train, dropout=rng.dropout)
        labels, where = batch["labels"], real_examples(batch)
        losses = binary_cross_entropy(
            logits,
            labels,
            where,
            label_smoothing=self.label_smoothing if train else 0.0,
            positive_weight=self._weights() if train and self.positive_weight == "balanced" else None,
        )
        right = jnp.all((logits > 0.0) == (labels > 0.5), axis=-1) & where
        loss = mean_over(jnp.mean(losses, axis=-1), where)
        return Loss(terms={"loss": (1.0, loss)}, metrics={"accuracy": mean_over(right, where)}, model_state=state)

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: the probability of each label [B C]."""
        return {"scores": jax.nn.sigmoid(pooled_logits(self.model, variables, batch)[0])}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return pooled_features(self.model, variables, batch)

    def _weights(self) -> Float[Array, " C"]:
        assert len(self.label_counts) == self.num_classes  # training data count them
        counts = jnp.array(self.label_counts, jnp.float32)
        return (self.num_rows - counts) / counts
