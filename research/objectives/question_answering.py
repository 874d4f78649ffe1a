"""Extractive question answering: where in the row the answer begins and where it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

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
    mean_over,
    real_examples,
)
from research.ops.cross_entropy import cross_entropy
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class QuestionAnswering:
    """Mean of the cross-entropies of the answer's first and last column, in nats a row (Devlin et al. 2019, 4.2).

    Columns outside `answer_mask` are no part of either softmax; column 0 stands for "the row holds no answer" (4.3).
    `accuracy` counts the rows whose likeliest two columns are both right. In training each token behind the first is
    hidden with the probability `token_dropout` (see `hide_tokens`).
    """

    model: nn.Module
    mask_id: int = -1
    token_dropout: float = 0.0

    couples_examples = False
    causal = False
    head = "spans"
    target = "start"

    def __post_init__(self) -> None:
        check_token_dropout(self.token_dropout, self.mask_id)

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        return init(self.model, rng, batch, lambda model, hidden: model.spans(hidden, train=False))

    def logits(
        self, variables: Variables, batch: Batch, *, train: bool = False, dropout: jax.Array | None = None
    ) -> Float[Array, "2 B L"]:
        """Of the first and of the last column, the least float32 where no answer may be."""
        hidden = encode(self.model, variables, batch, train=train, dropout=dropout)
        rngs = {"dropout": jax.random.fold_in(dropout, 1)} if train and dropout is not None else {}
        params = {"params": variables["params"]}
        logits = cast(Array, self.model.apply(params, hidden, train=train, method="spans", rngs=rngs))
        least = jnp.finfo(jnp.float32).min
        # Selected and not added to: a NaN at a padded position must not reach the loss.
        return jnp.where(batch["answer_mask"][None], jnp.moveaxis(logits.astype(jnp.float32), -1, 0), least)

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        if train and self.token_dropout:
            batch = hide_tokens(batch, rng.noise, rate=self.token_dropout, mask_id=self.mask_id)
        logits = self.logits(variables, batch, train=train, dropout=rng.dropout)
        targets = jnp.stack([batch["start"], batch["end"]])
        where = real_examples(batch)
        losses = jnp.mean(cross_entropy(logits, targets, jnp.stack([where, where])), axis=0)
        correct = jnp.all(jnp.argmax(logits, axis=-1) == targets, axis=0) & where
        return Loss(terms={"loss": (1.0, mean_over(losses, where))}, metrics={"accuracy": mean_over(correct, where)})

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: the `start` and `end` logits [B L]."""
        start, end = self.logits(variables, batch)
        return {"start": start, "end": end}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return features(self.model, variables, batch)
