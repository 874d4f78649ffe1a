"""Classification of a text, an image or a sound: one of C labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from research.build import Block
from research.objectives.inputs import AUGMENTATIONS, Inputs, augmented_inputs, check_augmentation, has_inputs
from research.objectives.pooled import init_pooled, pooled_features, pooled_logits
from research.objectives.text import (
    check_token_dropout,
    hide_tokens,
    labels_loss,
    mean_over,
    real_examples,
    weigh_classes,
)
from research.ops.masking import example_keys
from research.ops.mixing import mixup
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class Classification:
    """Mean cross-entropy of the label, in nats; the model reads both ways unless its pretraining was causal.

    In training each token behind the first is hidden with the probability `token_dropout` (see `hide_tokens`), images
    and sounds are augmented, and classes weigh as `class_weights` says (see `weigh_classes`). With `mixup` > 0 images
    (of sounds spectrograms) and labels are mixed in training (`ops.mixing.mixup`, alpha = `mixup`), which couples the
    examples of a batch.

    Where the batch has a teacher's `soft_labels` the loss is (1 - w) · cross-entropy + w · T² · KL(teacher || student),
    both softened by the temperature T, w = `soft_weight` (Hinton et al. 2015, section 2).
    """

    model: nn.Module
    num_classes: int
    mask_id: int = -1
    label_smoothing: float = 0.0
    token_dropout: float = 0.0
    class_weights: Literal["balanced"] | tuple[float, ...] = ()
    label_counts: tuple[int, ...] = ()
    soft_weight: float = 0.0
    temperature: float = 2.0
    augmentation: Annotated[Mapping[str, Any], Block("augmentation", AUGMENTATIONS)] = field(
        default_factory=lambda: {"name": "none"}
    )
    mixup: float = 0.0

    causal = False
    head = "classification"
    target = "label"

    def __post_init__(self) -> None:
        check_token_dropout(self.token_dropout, self.mask_id)
        weigh_classes(self.class_weights, self.label_counts, self.num_classes)
        check_augmentation(self.augmentation)
        if self.mixup < 0.0 or (self.mixup and (self.soft_weight or self.class_weights)):
            raise ValueError(
                f"objective.mixup={self.mixup}: wanted 0 or more, such as 0.2, without soft_weight and class_weights"
            )
        if not 0.0 <= self.soft_weight <= 1.0 or self.temperature <= 0.0:
            raise ValueError(
                f"objective.soft_weight={self.soft_weight}, temperature={self.temperature}: wanted a share from 0 to 1 "
                "and a number above 0"
            )

    @property
    def couples_examples(self) -> bool:
        return self.mixup > 0.0

    @property
    def weights(self) -> tuple[float, ...]:
        """Of each class in training; none where all weigh the same."""
        return weigh_classes(self.class_weights, self.label_counts, self.num_classes)

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        if has_inputs(batch):
            jax.eval_shape(self.view, batch, rng)  # which refuses what the augmentation is not for
        return init_pooled(self.model, rng, batch)

    def logits(
        self, variables: Variables, batch: Batch, *, train: bool = False, dropout: jax.Array | None = None
    ) -> Float[Array, "B C"]:
        return pooled_logits(self.model, variables, batch, train=train, dropout=dropout)[0]

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        inputs, mixed = None, None
        if train and self.token_dropout and "tokens" in batch:
            batch = hide_tokens(batch, rng.noise, rate=self.token_dropout, mask_id=self.mask_id)
        if train and has_inputs(batch):
            inputs, mixed = self.view(batch, rng.noise)
        call: dict[str, Any] = dict(inputs=inputs, train=train, dropout=rng.dropout)
        logits, state = pooled_logits(self.model, variables, batch, **call)
        only_then = {"label_smoothing": self.label_smoothing, "weights": self.weights} if train else {}
        where = real_examples(batch)
        found = replace(labels_loss(logits, batch["label"], where, **only_then), model_state=state)
        if mixed is not None:
            losses = optax.softmax_cross_entropy(logits, optax.smooth_labels(mixed, self.label_smoothing))
            return replace(found, terms={"loss": (1.0, mean_over(jnp.where(where, losses, 0.0), where))})
        if not train or "soft_labels" not in batch:
            return found
        apart = self.temperature**2 * _divergence(batch["soft_labels"], logits, self.temperature)
        _, hard = found.terms["loss"]
        soft = mean_over(jnp.where(where, apart, 0.0), where)
        return replace(found, terms={"loss": (1.0 - self.soft_weight, hard), "soft": (self.soft_weight, soft)})

    def view(self, batch: Batch, noise: jax.Array) -> tuple[Inputs, Float[Array, "B N"] | None]:
        """The inputs as a training step sees them, and their labels where these are mixed."""
        keys = example_keys(noise, batch["example_id"])
        inputs = augmented_inputs(self.model, batch, self.augmentation, keys)
        if not self.mixup:
            return inputs, None
        labels = jax.nn.one_hot(batch["label"], self.num_classes)
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
        images, labels = mixup(inputs["image"], labels, keys, alpha=self.mixup)
        if "num_rows" in inputs:  # what is real in either of the two
            inputs["num_rows"] = jnp.maximum(inputs["num_rows"], jnp.roll(inputs["num_rows"], -1))
        return {**inputs, "image": images}, labels

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: probabilities [B C]."""
        return {"probabilities": jax.nn.softmax(self.logits(variables, batch), axis=-1)}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return pooled_features(self.model, variables, batch)


def _divergence(teacher: Float[Array, "B C"], student: Float[Array, "B C"], temperature: float) -> Float[Array, " B"]:
    """KL(teacher || student) in nats, of logits (or log-probabilities) divided by the temperature."""
    wanted = jax.nn.log_softmax(teacher / temperature)
    return jnp.sum(jnp.exp(wanted) * (wanted - jax.nn.log_softmax(student / temperature)), axis=-1)
