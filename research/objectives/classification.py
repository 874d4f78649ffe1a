"""Classification of a row: one of C labels."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from research.objectives.pooled import init_pooled, pooled_logits
from research.objectives.text import check_token_dropout, features, hide_tokens, labels_loss, real_examples
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class Classification:
    """Mean cross-entropy of the label, in nats; the model reads both ways unless its pretraining was causal.

    In training each token behind the first is hidden with the probability `token_dropout` (see `hide_tokens`).
    """

    model: nn.Module
    num_classes: int
    mask_id: int = -1
    label_smoothing: float = 0.0
    token_dropout: float = 0.0

    couples_examples = False
    causal = False
    head = "classification"
    target = "label"

    def __post_init__(self) -> None:
        check_token_dropout(self.token_dropout, self.mask_id)

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
        where = real_examples(batch)
        return labels_loss(logits, batch["label"], where, label_smoothing=self.label_smoothing if train else 0.0)

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: probabilities [B C]."""
        return {"probabilities": jax.nn.softmax(self.logits(variables, batch), axis=-1)}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return features(self.model, variables, batch)
