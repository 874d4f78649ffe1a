"""SimCLR (Chen et al. 2020, arXiv:2002.05709): two views of an image or a sound find each other in the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.build import Block
from research.objectives.compared import check_compared, own_is_nearest
from research.objectives.inputs import (
    AUGMENTATIONS,
    Inputs,
    check_augmentation,
    init_inputs,
    input_features,
    read_inputs,
    run_inputs,
    two_views,
)
from research.objectives.text import mean_over, real_examples
from research.ops.contrastive import nt_xent
from research.ops.unit_length import unit_length
from research.types import Batch, Features, Keys, Loss, Variables

Views = dict[str, Float[Array, "B E"]]


@dataclass(frozen=True)
class SimCLR:
    """NT-Xent over the batch (`ops.contrastive.nt_xent`), in nats, of unit vectors behind a projection head.

    Both views of every example pass the model at once, so that batch statistics are those of all of them. The accuracy
    is the share of first views that are nearer to their second than to any other example's.
    """

    model: nn.Module
    temperature: float = 0.5
    augmentation: Annotated[Mapping[str, Any], Block("augmentation", AUGMENTATIONS)] = field(
        default_factory=lambda: {"name": "simclr"}
    )

    couples_examples = True
    causal = False
    head = "projection"
    target = ("image", "audio")
    num_views = 2

    def __post_init__(self) -> None:
        if self.temperature <= 0.0:
            raise ValueError(f"objective.temperature={self.temperature}: wanted a number above 0, such as 0.5")
        check_augmentation(self.augmentation)

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        check_compared(batch)
        jax.eval_shape(self.views, batch, rng)  # which refuses what the augmentation is not for
        inputs = read_inputs(self.model, batch)
        return init_inputs(self.model, rng, inputs, lambda model, hidden, mask: model.project(hidden, mask))

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        views, state = self._encode(variables, batch, rng=rng, train=train)
        found = self.compare(variables, views, batch, step=step, train=train)
        return replace(found, model_state=state)

    def encode(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Views:
        """The unit vectors of both views."""
        return self._encode(variables, batch, rng=rng, train=train)[0]

    def compare(self, variables: Variables, features: Views, batch: Batch, *, step: jax.Array, train: bool) -> Loss:
        """The loss of a whole batch, of which `features` are what `encode` gives."""
        first, second = features["first"], features["second"]
        where = real_examples(batch)
        losses = nt_xent(first, second, temperature=self.temperature, where=where)
        hit = own_is_nearest(first, second, where)
        return Loss(terms={"loss": (1.0, mean_over(losses, where))}, metrics={"accuracy": mean_over(hit, where)})

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: the vectors [B D] before the projection, of inputs as they are."""
        return {"vectors": self.features(variables, batch).pooled}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return input_features(self.model, variables, read_inputs(self.model, batch))

    def views(self, batch: Batch, noise: jax.Array) -> Inputs:
        """Both views of each example [2 B …], drawn by its id."""
        return two_views(self.model, batch, self.augmentation, noise)

    def _encode(self, variables: Variables, batch: Batch, *, rng: Keys, train: bool) -> tuple[Views, dict[str, Any]]:
        views = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), self.views(batch, rng.noise))
        count = batch["example_id"].shape[0]
        where = jnp.tile(real_examples(batch), 2)

        def project(model: Any, hidden: Array, mask: Array) -> Array:
            return model.project(hidden, mask, where=where, train=train)

        call: dict[str, Any] = dict(where=where, train=train, dropout=rng.dropout)
        joined, state = run_inputs(self.model, variables, views, project, **call)
        joined = unit_length(joined)
        return {"first": joined[:count], "second": joined[count:]}, state
