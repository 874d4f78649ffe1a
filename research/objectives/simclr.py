"""SimCLR (Chen et al. 2020, arXiv:2002.05709): two augmented views of an image find each other in the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.build import Block, build
from research.objectives.compared import check_compared
from research.objectives.images import image_features, init_images, pixels, run_images
from research.objectives.text import mean_over, real_examples
from research.ops.contrastive import nt_xent
from research.ops.image_augmentation import IMAGE_AUGMENTATIONS
from research.ops.masking import example_keys
from research.types import Batch, Features, Keys, Loss, Variables

Views = dict[str, Float[Array, "B E"]]


@dataclass(frozen=True)
class SimCLR:
    """NT-Xent over the batch (`ops.contrastive.nt_xent`), in nats, of unit vectors behind a projection head.

    Both views of every image pass the model at once, so that batch statistics are those of all of them. The accuracy
    is the share of first views that are nearer to their second than to any other image's.
    """

    model: nn.Module
    temperature: float = 0.5
    augmentation: Annotated[Mapping[str, Any], Block("augmentation", IMAGE_AUGMENTATIONS)] = field(
        default_factory=lambda: {"name": "simclr"}
    )

    couples_examples = True
    causal = False
    head = "projection"
    target = "image"
    num_views = 2

    def __post_init__(self) -> None:
        if self.temperature <= 0.0:
            raise ValueError(f"objective.temperature={self.temperature}: wanted a number above 0, such as 0.5")
        build(self.augmentation, IMAGE_AUGMENTATIONS, kind="augmentation")  # refuses what it cannot be

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        check_compared(batch)
        jax.eval_shape(self.views, batch, rng)  # which refuses images that the augmentation is not for
        return init_images(self.model, rng, batch, lambda model, hidden, mask: model.project(hidden, mask))

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
        near = jnp.where(where[None, :], jnp.einsum("be,ce->bc", first, second), -jnp.inf)
        hit = (jnp.argmax(near, axis=1) == jnp.arange(near.shape[0])) & where
        return Loss(terms={"loss": (1.0, mean_over(losses, where))}, metrics={"accuracy": mean_over(hit, where)})

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: the vectors [B D] before the projection, of images as they are."""
        return {"vectors": self.features(variables, batch).pooled}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return image_features(self.model, variables, pixels(batch))

    def views(self, batch: Batch, noise: jax.Array) -> Float[Array, "2 B Y X C"]:
        """Both views of each image, drawn by its example's id."""
        augment = build(self.augmentation, IMAGE_AUGMENTATIONS, kind="augmentation")
        images = pixels(batch)
        keys = [example_keys(jax.random.fold_in(noise, index), batch["example_id"]) for index in range(2)]
        return jnp.stack([augment(images, each) for each in keys])

    def _encode(self, variables: Variables, batch: Batch, *, rng: Keys, train: bool) -> tuple[Views, dict[str, Any]]:
        views = self.views(batch, rng.noise)
        count = views.shape[1]
        where = jnp.tile(real_examples(batch), 2)

        def project(model: Any, hidden: Array, mask: Array) -> Array:
            return model.project(hidden, mask, where=where, train=train)

        call: dict[str, Any] = dict(where=where, train=train, dropout=rng.dropout)
        joined, state = run_images(self.model, variables, views.reshape(2 * count, *views.shape[2:]), project, **call)
        joined = joined / jnp.maximum(jnp.linalg.norm(joined, axis=-1, keepdims=True), 1e-12)
        return {"first": joined[:count], "second": joined[count:]}, state
