"""Tagging: one of C tags for each word, at its first token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.objectives.text import (
    check_token_dropout,
    encode,
    features,
    hide_tokens,
    init,
    labels_loss,
    real_examples,
    weigh_classes,
)
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class Tagging:
    """Mean cross-entropy of the tags, in nats a word; the model reads both ways unless its pretraining was causal.

    In training each token behind the first is hidden with the probability `token_dropout` (see `hide_tokens`), and
    classes weigh as `class_weights` says (see `weigh_classes`).
    """

    model: nn.Module
    num_classes: int
    mask_id: int = -1
    label_smoothing: float = 0.0
    token_dropout: float = 0.0
    class_weights: Literal["balanced"] | tuple[float, ...] = ()
    label_counts: tuple[int, ...] = ()

    couples_examples = False
    causal = False
    head = "tagging"
    target = "tags"

    def __post_init__(self) -> None:
        check_token_dropout(self.token_dropout, self.mask_id)
        weigh_classes(self.class_weights, self.label_counts, self.num_classes)

    @property
    def weights(self) -> tuple[float, ...]:
        """Of each class in training; none where all weigh the same."""
        return weigh_classes(self.class_weights, self.label_counts, self.num_classes)

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        return init(self.model, rng, batch, lambda model, hidden: model.tag(hidden, train=False))

    def logits(
        self, variables: Variables, batch: Batch, *, train: bool = False, dropout: jax.Array | None = None
    ) -> Float[Array, "B L C"]:
        hidden = encode(self.model, variables, batch, train=train, dropout=dropout)
        rngs = {"dropout": jax.random.fold_in(dropout, 1)} if train and dropout is not None else {}
        params = {"params": variables["params"]}
        return cast(Array, self.model.apply(params, hidden, train=train, method="tag", rngs=rngs))

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        if train and self.token_dropout:
            batch = hide_tokens(batch, rng.noise, rate=self.token_dropout, mask_id=self.mask_id)
        logits = self.logits(variables, batch, train=train, dropout=rng.dropout)
        where = (batch["tags"] >= 0) & real_examples(batch)[:, None]
        tags = jnp.maximum(batch["tags"], 0)
        only_then = {"label_smoothing": self.label_smoothing, "weights": self.weights} if train else {}
        return labels_loss(logits, tags, where, **only_then)

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: the likeliest tag of every position [B L]."""
        return {"tags": jnp.argmax(self.logits(variables, batch), axis=-1)}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return features(self.model, variables, batch)
