"""Pairs of texts: the vector of each text is that of its counterpart, and not of the others."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from research.objectives.compared import check_compared, own_is_nearest, text_vectors
from research.objectives.text import (
    check_token_dropout,
    features,
    hide_tokens,
    init,
    mean_over,
    real_examples,
)
from research.ops.contrastive import clip
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class Pairs:
    """InfoNCE over the batch (`ops.contrastive.clip`), in nats: one model reads both texts.

    In training each token behind the first is hidden with the probability `token_dropout`.
    """

    model: nn.Module
    mask_id: int = -1
    temperature: float = 0.05
    token_dropout: float = 0.0

    couples_examples = True
    causal = False
    head = "embedding"
    target = "pair_tokens"

    def __post_init__(self) -> None:
        check_token_dropout(self.token_dropout, self.mask_id)
        if self.temperature <= 0.0:
            raise ValueError(f"objective.temperature={self.temperature}: wanted a number above 0, such as 0.05")

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        check_compared(batch)
        mask = batch["segment_ids"] > 0
        return init(self.model, rng, batch, lambda model, hidden: model.embed(hidden, mask))

    def encode(
        self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool
    ) -> dict[str, Float[Array, "B D"]]:
        """The unit vectors of both texts."""
        sides = {}
        for index, (name, side) in enumerate((("first", batch), ("second", second_texts(batch)))):
            if train and self.token_dropout:
                noise = jax.random.fold_in(rng.noise, index)
                side = hide_tokens(side, noise, rate=self.token_dropout, mask_id=self.mask_id)
            dropout = jax.random.fold_in(rng.dropout, index)
            sides[name] = text_vectors(self.model, variables, side, train=train, dropout=dropout)
        return sides

    def compare(
        self,
        variables: Variables,
        features: dict[str, Float[Array, "B D"]],
        batch: Batch,
        *,
        step: jax.Array,
        train: bool,
    ) -> Loss:
        """The loss of a whole batch, of which `features` are what `encode` gives."""
        sides = (features["first"], features["second"])
        where = real_examples(batch)
        losses = clip(*sides, scale=1.0 / self.temperature, where=where, groups=batch["group"])
        hit = own_is_nearest(*sides, where, groups=batch["group"])
        return Loss(terms={"loss": (1.0, mean_over(losses, where))}, metrics={"accuracy": mean_over(hit, where)})

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        features = self.encode(variables, batch, rng=rng, step=step, train=train)
        return self.compare(variables, features, batch, step=step, train=train)

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: the unit vectors of both texts [B D]."""
        sides = {"first": batch, "second": second_texts(batch)}
        return {name: text_vectors(self.model, variables, side) for name, side in sides.items()}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return features(self.model, variables, batch)


def second_texts(batch: Batch) -> Batch:
    """The batch with the second texts in the place of the first."""
    names = ("tokens", "segment_ids", "positions")
    return {**batch, **{name: batch[f"pair_{name}"] for name in names}}
