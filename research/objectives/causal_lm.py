"""Autoregressive language modelling: each token from those before it in its document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import flax.linen as nn
import jax

from research.objectives.text import encode, features, init, mean_over, real_examples
from research.ops.cross_entropy import chunked_cross_entropy
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class CausalLM:
    """Mean cross-entropy of every token after a document's first, in nats.

    `chunk` rows of logits exist at a time. Label smoothing and the z-loss belong to training; evaluation is plain.
    """

    model: nn.Module
    vocab_size: int
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    chunk: int = 8192

    couples_examples = False
    causal = True
    head = "language"

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        return init(self.model, rng, batch, lambda model, hidden: model.vocabulary(hidden))

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        hidden = encode(self.model, variables, batch, train=train, dropout=rng.dropout)[:, :-1]
        segments = batch["segment_ids"]
        where = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0) & real_examples(batch)[:, None]
        hidden, table, bias = cast(
            tuple[jax.Array, jax.Array, jax.Array | None],
            self.model.apply({"params": variables["params"]}, hidden, method="vocabulary"),
        )
        losses, correct = chunked_cross_entropy(
            hidden.reshape(-1, hidden.shape[-1]),
            table,
            bias,
            batch["tokens"][:, 1:].reshape(-1),
            where.reshape(-1),
            chunk=self.chunk,
            label_smoothing=self.label_smoothing if train else 0.0,
            z_loss=self.z_loss if train else 0.0,
            num_valid=self.vocab_size,
        )
        loss = mean_over(losses, where)
        return Loss(terms={"loss": (1.0, loss)}, metrics={"accuracy": mean_over(correct, where)})

    def features(self, variables: Variables, batch: Batch) -> Features:
        return features(self.model, variables, batch)
