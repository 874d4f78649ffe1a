"""SimCSE (Gao et al. 2021, arXiv:2104.08821), unsupervised: a text read twice under different dropout finds itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

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

Views = dict[str, Float[Array, "B D"]]


@dataclass(frozen=True)
class SimCSE:
    """InfoNCE over the batch (`ops.contrastive.clip`), in nats, of the unit vectors of two views of each text.

    Views differ by the model's dropout; for a model without any, by hiding each token behind the first with the
    probability `token_dropout` (worse in the paper's table 1). They are drawn in evaluation too, so that its loss is
    one of the same kind. The paper's equation 4 is averaged over both directions, as neither view is the first.

    Dropout belongs to the microbatch: with cached features (GradCache) the gradient is exactly that of the whole
    batch's loss under the views that were drawn, which are others than those of another number of microbatches.
    """

    model: nn.Module
    mask_id: int = -1
    temperature: float = 0.05
    token_dropout: float = 0.0
    packed: bool = False  # of the data: rows are pieces of running text

    couples_examples = True
    causal = False
    head = "embedding"
    target = "tokens"
    num_views = 2

    def __post_init__(self) -> None:
        check_token_dropout(self.token_dropout, self.mask_id)
        if self.temperature <= 0.0:
            raise ValueError(f"objective.temperature={self.temperature}: wanted a number above 0, such as 0.05")
        if self.packed:
            raise ValueError(
                "objective.name=simcse compares whole texts, and rows of packed running text are none; set "
                "data.packing=alone (a document a row), or take data.name=text_classification"
            )
        if not cast(Any, self.model).backbone.config.dropout and not self.token_dropout:
            raise ValueError(
                "model.dropout=0: both views of a text would be equal; set it to 0.1, or, for a model that is given, "
                "set objective.token_dropout=0.1"
            )

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        check_compared(batch)
        mask = batch["segment_ids"] > 0
        return init(self.model, rng, batch, lambda model, hidden: model.embed(hidden, mask))

    def encode(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Views:
        """The unit vectors of both views."""
        del step, train  # views are drawn in evaluation too
        views = {}
        for index, name in enumerate(("first", "second")):
            view = batch
            if self.token_dropout:
                noise = jax.random.fold_in(rng.noise, index)
                view = hide_tokens(batch, noise, rate=self.token_dropout, mask_id=self.mask_id)
            dropout = jax.random.fold_in(rng.dropout, index)
            views[name] = text_vectors(self.model, variables, view, train=True, dropout=dropout)
        return views

    def compare(self, variables: Variables, features: Views, batch: Batch, *, step: jax.Array, train: bool) -> Loss:
        """The loss of a whole batch, of which `features` are what `encode` gives."""
        first, second = features["first"], features["second"]
        where = real_examples(batch)
        losses = clip(first, second, scale=1.0 / self.temperature, where=where)
        hit = own_is_nearest(first, second, where)
        return Loss(terms={"loss": (1.0, mean_over(losses, where))}, metrics={"accuracy": mean_over(hit, where)})

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        views = self.encode(variables, batch, rng=rng, step=step, train=train)
        return self.compare(variables, views, batch, step=step, train=train)

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: the unit vectors [B D] of texts as they are."""
        return {"vectors": text_vectors(self.model, variables, batch)}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return features(self.model, variables, batch)
