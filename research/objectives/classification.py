"""Classification of a row: one of C labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.objectives.pooled import init_pooled, pooled_logits
from research.objectives.text import (
    check_token_dropout,
    features,
    hide_tokens,
    labels_loss,
    mean_over,
    real_examples,
    weigh_classes,
)
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class Classification:
    """Mean cross-entropy of the label, in nats; the model reads both ways unless its pretraining was causal.

    In training each token behind the first is hidden with the probability `token_dropout` (see `hide_tokens`), and
    classes weigh as `class_weights` says (see `weigh_classes`).

    Where the batch has a teacher's `soft_labels` the loss is (1 - w) · cross-entropy + w · T² · KL(teacher || student),
    both softened by the temperature T, w = `soft_weight` (Hinton et al. 2015, section 2).
    """

    model: nn.Module
    num_classes: int
    mask_id: int = -1
    label_smoothing: float = 0.0
    token_dropout: float = 0.0
    class_weights: Literal["balanced"] | tuple[float, ...] = ()
    label_counts: tuple[int, ...] = ()
    soft_weight: float = 0.0
    temperature: float = 2.0

    couples_examples = False
    causal = False
    head = "classification"
    target = "label"

    def __post_init__(self) -> None:
        check_token_dropout(self.token_dropout, self.mask_id)
        weigh_classes(self.class_weights, self.label_counts, self.num_classes)
        if not 0.0 <= self.soft_weight <= 1.0 or self.temperature <= 0.0:
            raise ValueError(
                f"objective.soft_weight={self.soft_weight}, temperature={self.temperature}: wanted a share from 0 to 1 "
                "and a number above 0"
            )

    @property
    def weights(self) -> tuple[float, ...]:
        """Of each class in training; none where all weigh the same."""
        return weigh_classes(self.class_weights, self.label_counts, self.num_classes)

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        return init_pooled(self.model, rng, batch)

    def logits(
        self, variables: Variables, batch: Batch, *, train: bool = False, dropout: jax.Array | None = None
    ) -> Float[Array, "B C"]:
        return pooled_logits(self.model, variables, batch, train=train, dropout=dropout)

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        if train and self.token_dropout:
            batch = hide_tokens(batch, rng.noise, rate=self.token_dropout, mask_id=self.mask_id)
        logits = self.logits(variables, batch, train=train, dropout=rng.dropout)
        only_then = {"label_smoothing": self.label_smoothing, "weights": self.weights} if train else {}
        where = real_examples(batch)
        found = labels_loss(logits, batch["label"], where, **only_then)
        if not train or "soft_labels" not in batch:
            return found
        apart = self.temperature**2 * _divergence(batch["soft_labels"], logits, self.temperature)
        _, hard = found.terms["loss"]
        soft = mean_over(jnp.where(where, apart, 0.0), where)
        return replace(found, terms={"loss": (1.0 - self.soft_weight, hard), "soft": (self.soft_weight, soft)})

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: probabilities [B C]."""
        return {"probabilities": jax.nn.softmax(self.logits(variables, batch), axis=-1)}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return features(self.model, variables, batch)


def _divergence(teacher: Float[Array, "B C"], student: Float[Array, "B C"], temperature: float) -> Float[Array, " B"]:
    """KL(teacher || student) in nats, of logits (or log-probabilities) divided by the temperature."""
    wanted = jax.nn.log_softmax(teacher / temperature)
    return jnp.sum(jnp.exp(wanted) * (wanted - jax.nn.log_softmax(student / temperature)), axis=-1)
