"""Autoregressive language modelling: each token from those before it in its document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from research.objectives.text import encode, features, init, mean_over, real_examples
from research.ops.cross_entropy import chunked_cross_entropy
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class CausalLM:
    """Mean cross-entropy of every token after a document's first, in nats; where the batch has a `loss_mask`, of those
    tokens alone that it marks.

    `chunk` rows of logits exist on a device at a time. Label smoothing and the z-loss belong to training; evaluation is
    plain.
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
        losses, correct, where = self._predict(variables, batch, train=train, dropout=rng.dropout)
        loss = mean_over(losses, where)
        return Loss(terms={"loss": (1.0, loss)}, metrics={"accuracy": mean_over(correct, where)})

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        """Per-example results for evaluation, of batches with a `loss_mask`: whether each token it marks is the
        likeliest, given those before it [B]; what greedy generation would write is then the same."""
        if "loss_mask" not in batch:
            return {}
        _, correct, where = self._predict(variables, batch, train=False, dropout=None)
        return {"answered": jnp.all(correct.reshape(where.shape) | ~where, axis=1)}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return features(self.model, variables, batch)

    def _predict(
        self, variables: Variables, batch: Batch, *, train: bool, dropout: jax.Array | None
    ) -> tuple[Float[Array, " N"], Bool[Array, " N"], Bool[Array, "B L"]]:
        """Of the token that follows each position (N = B L): its loss, whether it is the likeliest, and whether it is
        to be predicted; 0 and false where not, as behind a row's last. That position stays, since L divides over
        devices and fits into tiles as L - 1 does not."""
        hidden = encode(self.model, variables, batch, train=train, dropout=dropout)
        segments, following = batch["segment_ids"], _following(batch["segment_ids"])
        where = (following == segments) & (following > 0) & real_examples(batch)[:, None]
        if "loss_mask" in batch:
            where &= _following(batch["loss_mask"])
        hidden, table, bias = cast(
            tuple[jax.Array, jax.Array, jax.Array | None],
            self.model.apply({"params": variables["params"]}, hidden, method="vocabulary"),
        )
        losses, correct = chunked_cross_entropy(
            hidden.reshape(-1, hidden.shape[-1]),
            table,
            bias,
            _following(batch["tokens"]).reshape(-1),
            where.reshape(-1),
            chunk=self.chunk,
            label_smoothing=self.label_smoothing if train else 0.0,
            z_loss=self.z_loss if train else 0.0,
            num_valid=self.vocab_size,
        )
        return losses, correct, where


def _following(values: Array) -> Array:
    """What stands one position later in a row [B L]; 0 behind the last."""
    return jnp.pad(values[:, 1:], ((0, 0), (0, 1)))
