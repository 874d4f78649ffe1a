"""Masked autoencoding (MAE, He et al. 2022, arXiv:2111.06377): a few patches of an image or a sound tell the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.build import Block
from research.objectives.inputs import (
    AUGMENTATIONS,
    Inputs,
    augmented_inputs,
    check_augmentation,
    init_inputs,
    input_features,
    read_inputs,
    run_inputs,
)
from research.objectives.text import mean_over, real_examples
from research.ops.masking import example_keys
from research.ops.patch_masking import choose_patches
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class MaskedPatches:
    """Mean squared error over the values of masked patches, a share `rate` of each example's; only the others are
    encoded.

    Values are those that the backbone would see. With `normalize_targets` each patch goes less its mean and divided by
    its standard deviation (section 4.1; N - 1 in the variance and 1e-6 added to it, as in the authors' code). Of a
    sound the patches of padding are neither masked nor counted; a patch is real where its first frame is.
    """

    model: nn.Module
    rate: float = 0.75
    normalize_targets: bool = True
    augmentation: Annotated[Mapping[str, Any], Block("augmentation", AUGMENTATIONS)] = field(
        default_factory=lambda: {"name": "none"}
    )

    couples_examples = False
    causal = False
    head = "patch_decoder"
    target = ("image", "audio")

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"objective.rate={self.rate}: wanted a share of patches between 0 and 1, such as 0.75")
        check_augmentation(self.augmentation)
        if not getattr(self.model, "patch_size", 0):
            raise ValueError(
                "objective.name=masked_patches encodes a part of the patches, which this model cannot; use "
                "model.name=vit or, of sounds, model.tower.name=vit"
            )

    @property
    def visible_share(self) -> float:
        """Of the patches that are encoded."""
        return 1.0 - self.rate

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        jax.eval_shape(self.augmented, batch, rng)  # which refuses what the augmentation is not for
        inputs = read_inputs(self.model, batch)
        targets, real = self._patches(inputs)
        if targets.shape[1] < 2 or targets.shape[2] < 2:
            raise ValueError(
                f"images of {targets.shape[1]} patches with {targets.shape[2]} values each: wanted 2 or more of both; "
                "change model.patch_size"
            )
        keep, _ = choose_patches(example_keys(rng, batch["example_id"]), real, rate=self.rate)
        return init_inputs(self.model, rng, inputs, self._decoder(inputs, targets, keep), keep=keep)

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        inputs = self.augmented(batch, rng.noise) if train else read_inputs(self.model, batch)
        targets, real = self._patches(inputs)
        keep, masked = self.masks(batch, rng.noise, real)
        call: dict[str, Any] = dict(where=real_examples(batch), train=train, dropout=rng.dropout)
        decode = self._decoder(inputs, targets, keep)
        told, state = run_inputs(self.model, variables, inputs, decode, keep=keep, **call)
        if self.normalize_targets:
            targets = normalized(targets)
        counted = masked & real_examples(batch)[:, None]
        errors = jnp.mean(jnp.square(told - targets), axis=-1)
        loss = mean_over(jnp.where(counted, errors, 0.0), counted)
        return Loss(terms={"loss": (1.0, loss)}, metrics={}, model_state=state)

    def masks(
        self, batch: Batch, noise: jax.Array, real: Bool[Array, "B N"]
    ) -> tuple[Int[Array, "B K"], Bool[Array, "B N"]]:
        """The patches of each example that are encoded, and those that are masked, drawn by its id."""
        keys = example_keys(jax.random.fold_in(noise, 1), batch["example_id"])
        return choose_patches(keys, real, rate=self.rate)

    def augmented(self, batch: Batch, noise: jax.Array) -> Inputs:
        """The inputs as a training step sees them, before masking."""
        keys = example_keys(noise, batch["example_id"])
        return augmented_inputs(self.model, batch, self.augmentation, keys)

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: the vectors [B D] of whole inputs."""
        return {"vectors": self.features(variables, batch).pooled}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return input_features(self.model, variables, read_inputs(self.model, batch))

    def _patches(self, inputs: Inputs) -> tuple[Float[Array, "B N Q"], Bool[Array, "B N"]]:
        model: Any = self.model
        return model.apply({}, **inputs, method="patches")  # which has no parameters

    def _decoder(self, inputs: Inputs, targets: Array, keep: Array) -> Any:
        size = getattr(self.model, "patch_size", 0)
        grid = (inputs["image"].shape[1] // size, inputs["image"].shape[2] // size)
        call: dict[str, Any] = dict(grid=grid, num_values=targets.shape[2])
        return lambda model, hidden, mask: model.reconstruct(hidden, keep, **call)


def normalized(patches: Float[Array, "B N Q"]) -> Float[Array, "B N Q"]:
    """Each patch with mean 0 and standard deviation 1."""
    patches = patches - jnp.mean(patches, axis=-1, keepdims=True)
    return patches * jax.lax.rsqrt(jnp.var(patches, axis=-1, ddof=1, keepdims=True) + 1e-6)
