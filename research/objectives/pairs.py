"""Pairs of texts: the vector of each text is that of its counterpart, and not of the others."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.objectives.compared import check_compared, own_is_nearest, text_vectors
from research.objectives.text import (
    check_token_dropout,
    features,
    hide_tokens,
    init,
    mean_over,
    real_examples,
)
from research.ops.contrastive import Negatives, clip
from research.ops.product import product
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class Pairs:
    """InfoNCE over the batch (`ops.contrastive.clip`), in nats: one model reads both texts.

    Where the data have hard negatives, those of the whole batch are candidates for every first text too (Karpukhin et
    al. 2020, "Dense Passage Retrieval", section 3.2).
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
        """The unit vectors of both texts, and of the negatives."""
        sides = {}
        for index, (name, side) in enumerate(sides_of(batch).items()):
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
        negatives = None
        hit = own_is_nearest(*sides, where, groups=batch["group"])
        if "negative" in features:
            known = batch["negative_group"]
            negatives = Negatives(features["negative"], known >= 0, known)
            hit &= _beats_negatives(*sides, negatives, where, batch["group"])
        losses = clip(*sides, scale=1.0 / self.temperature, where=where, groups=batch["group"], negatives=negatives)
        return Loss(terms={"loss": (1.0, mean_over(losses, where))}, metrics={"accuracy": mean_over(hit, where)})

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        features = self.encode(variables, batch, rng=rng, step=step, train=train)
        return self.compare(variables, features, batch, step=step, train=train)

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: the unit vectors of both texts [B D]."""
        sides = {name: side for name, side in sides_of(batch).items() if name != "negative"}
        return {name: text_vectors(self.model, variables, side) for name, side in sides.items()}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return features(self.model, variables, batch)


def sides_of(batch: Batch) -> dict[str, Batch]:
    """The batch with the first texts, with the second ones in their place, and with the negatives where it has some."""
    names, sides = ("tokens", "segment_ids", "positions"), {"first": batch}
    for side, prefix in (("second", "pair_"), ("negative", "negative_")):
        if f"{prefix}tokens" in batch:
            sides[side] = {**batch, **{name: batch[f"{prefix}{name}"] for name in names}}
    return sides


def _beats_negatives(
    first: Float[Array, "B D"],
    second: Float[Array, "B D"],
    negatives: Negatives,
    where: Bool[Array, " B"],
    groups: Int[Array, " B"],
) -> Bool[Array, " B"]:
    """Whether a row's counterpart is nearer to it than any negative in `where` that is not of its group."""
    near = product("be,ce->bc", first, negatives.vectors, dtype=jnp.float32)
    assert negatives.groups is not None
    rivals = (groups[:, None] != negatives.groups[None, :]) & (negatives.where & where)[None, :]
    return jnp.sum(first * second, axis=1) > jnp.max(jnp.where(rivals, near, -jnp.inf), axis=1)
