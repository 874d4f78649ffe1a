"""Classification of a row: one of C labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.objectives.text import encode, features, init, mean_over, real_examples
from research.ops.cross_entropy import cross_entropy
from research.ops.masking import example_keys
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class Classification:
    """Mean cross-entropy of the label, in nats; the model reads both ways unless its pretraining was causal.

    In training each token behind the first is hidden with the probability `token_dropout` (word dropout, Iyyer et al.
    2015, section 3.2): the mask token stands in its place, as in masked pretraining.
    """

    model: nn.Module
    num_classes: int
    mask_id: int = -1
    label_smoothing: float = 0.0
    token_dropout: float = 0.0

    couples_examples = False
    causal = False
    head = "classification"

    def __post_init__(self) -> None:
        if not 0.0 <= self.token_dropout < 1.0:
            raise ValueError(f"objective.token_dropout={self.token_dropout}: wanted a share from 0 to below 1")
        if self.token_dropout and self.mask_id < 0:
            raise ValueError("objective.token_dropout hides tokens, and the tokenizer has no mask token; leave it out")

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        mask = batch["segment_ids"] > 0
        return init(self.model, rng, batch, lambda model, hidden: model.classify(hidden, mask, train=False))

    def logits(
        self, variables: Variables, batch: Batch, *, train: bool = False, dropout: jax.Array | None = None
    ) -> Float[Array, "B C"]:
        hidden = encode(self.model, variables, batch, train=train, dropout=dropout)
        rngs = {}
        if train and dropout is not None:
            rngs["dropout"] = jax.random.fold_in(dropout, 1)
        mask = batch["segment_ids"] > 0
        params = {"params": variables["params"]}
        return cast(Array, self.model.apply(params, hidden, mask, train=train, method="classify", rngs=rngs))

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        if train and self.token_dropout:
            batch = {**batch, "tokens": self.hide(batch, rng.noise)}
        logits = self.logits(variables, batch, train=train, dropout=rng.dropout)
        where = real_examples(batch)
        smoothing = self.label_smoothing if train else 0.0
        losses = cross_entropy(logits, batch["label"], where, label_smoothing=smoothing)
        correct = (jnp.argmax(logits, axis=-1) == batch["label"]) & where
        loss = mean_over(losses, where)
        return Loss(terms={"loss": (1.0, loss)}, metrics={"accuracy": mean_over(correct, where)})

    def hide(self, batch: Batch, noise: jax.Array) -> Int[Array, "B L"]:
        """The tokens with some hidden; which, is a function of the example's id and its length alone."""
        tokens = batch["tokens"]
        keys = example_keys(noise, batch["example_id"])
        drawn = jax.vmap(lambda key: jax.random.uniform(key, tokens.shape[1:]))(keys) < self.token_dropout
        return jnp.where(drawn & (batch["segment_ids"] > 0) & (batch["positions"] > 0), self.mask_id, tokens)

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: probabilities [B C]."""
        return {"probabilities": jax.nn.softmax(self.logits(variables, batch), axis=-1)}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return features(self.model, variables, batch)
