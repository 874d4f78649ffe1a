"""What objectives of images and sounds share: inputs of a model, as they are or augmented, and running it on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from research.build import build
from research.ops.audio_augmentation import AUDIO_AUGMENTATIONS, AudioAugmentation
from research.ops.image_augmentation import IMAGE_AUGMENTATIONS, ImageAugmentation
from research.ops.image_color import from_bytes
from research.ops.masking import example_keys
from research.types import Batch, Features, Variables

# `none` fits both; `waves` is what its keys say, of sounds.
AUGMENTATIONS = {**AUDIO_AUGMENTATIONS, **IMAGE_AUGMENTATIONS, "waves": AudioAugmentation}

# Arrays by the names of the model's arguments: `image`, and of sounds, whose image is a spectrogram, `num_rows`.
Inputs = dict[str, Array]
Head = Callable[[Any, Array, Array], Any]  # of the model, its vectors [B L D] and their mask [B L]

# Collections that modules keep beside their parameters; other model state is the objective's own.
_COLLECTIONS = ("params", "batch_stats")


def has_inputs(batch: Batch) -> bool:
    """True for a batch of images or of sounds."""
    return "image" in batch or "audio" in batch


def read_inputs(model: nn.Module, batch: Batch) -> Inputs:
    """The batch's images as floats in [0, 1]; of sounds the spectrograms."""
    if "audio" in batch:
        return _spectrograms(model, batch["audio"], batch["audio_length"])
    return {"image": from_bytes(batch["image"])}


def augmented_inputs(model: nn.Module, batch: Batch, augmentation: Mapping[str, Any], keys: Key[Array, " B"]) -> Inputs:
    """`read_inputs` after the block of random augmentation; of sounds first the waves are changed, then the
    spectrograms masked.

    Raises:
      ValueError: an augmentation of images for sounds or the other way round, or one that these images are not for.
    """
    augment = check_augmentation(augmentation)
    if augment == ImageAugmentation():
        return read_inputs(model, batch)
    sounds = "audio" in batch
    if isinstance(augment, AudioAugmentation) != sounds:
        menu = AUDIO_AUGMENTATIONS if sounds else IMAGE_AUGMENTATIONS
        fitting = sorted({*menu, "waves"} if sounds else menu)
        raise ValueError(
            f"objective.augmentation.name={augmentation['name']} with keys {sorted(set(augmentation) - {'name'})} is "
            f"for {'images' if sounds else 'sounds'} and the data are {'sounds' if sounds else 'images'}; choose one "
            f"of {', '.join(fitting)}" + (" (none without keys)" if sounds else "")
        )
    if not sounds:
        return {"image": augment(read_inputs(model, batch)["image"], keys)}
    lengths = batch["audio_length"]
    waves = augment(batch["audio"].astype(jnp.float32) / 32768.0, lengths, keys)
    inputs = _spectrograms(model, waves, lengths)
    image, where = inputs["image"], jnp.arange(inputs["image"].shape[1])[None, :] < inputs["num_rows"][:, None]
    # Other keys than those of the waves, whose draws would else decide where the masks lie.
    keys = jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys)
    return {**inputs, "image": augment.mask_spectrograms(image[..., 0], where, keys)[..., None]}


def two_views(model: nn.Module, batch: Batch, augmentation: Mapping[str, Any], noise: jax.Array) -> Inputs:
    """Two draws of `augmented_inputs` for each example [2 B …], by its id."""
    keys = [example_keys(jax.random.fold_in(noise, index), batch["example_id"]) for index in range(2)]
    both = [augmented_inputs(model, batch, augmentation, each) for each in keys]
    return jax.tree.map(lambda *views: jnp.stack(views), *both)


def check_augmentation(augmentation: Mapping[str, Any]) -> Any:
    """What the block makes. Raises ValueError where it makes nothing."""
    return build(augmentation, AUGMENTATIONS, kind="augmentation")


def run_inputs(
    model: nn.Module,
    variables: Variables,
    inputs: Inputs,
    head: Head,
    *,
    where: Array | None = None,
    train: bool = False,
    dropout: jax.Array | None = None,
    **options: Array,
) -> tuple[Any, dict[str, Any]]:
    """What `head` makes of the backbone's vectors, and the model state that this changed (batch statistics)."""
    kept = {name: variables[name] for name in _COLLECTIONS if name in variables}
    rngs = {"dropout": dropout} if train and dropout is not None else {}
    call: dict[str, Any] = dict(method=_joined(head, where=where, train=train, **options), rngs=rngs)
    mutable = [name for name in kept if name != "params"] if train else []
    if not mutable:
        return model.apply(kept, inputs, **call), {}
    found, changed = model.apply(kept, inputs, mutable=mutable, **call)
    return found, dict(changed)


def init_inputs(model: nn.Module, rng: jax.Array, inputs: Inputs, head: Head, **options: Array) -> Variables:
    """Parameters and model state of the backbone and the head."""
    made = model.init(rng, inputs, method=_joined(head, **options))
    return {name: made[name] for name in _COLLECTIONS if name in made}


def input_features(model: nn.Module, variables: Variables, inputs: Inputs) -> Features:
    """The vectors of every position, and their mean over real ones."""
    (hidden, mask), _ = run_inputs(model, variables, inputs, lambda model, hidden, mask: (hidden, mask))
    hidden = hidden.astype(jnp.float32)
    total = jnp.sum(jnp.where(mask[:, :, None], hidden, 0.0), axis=1)
    return Features(pooled=total / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None], sequence=hidden, mask=mask)


def _spectrograms(model: Any, audio: Array, lengths: Array) -> Inputs:
    image, num_rows = model.apply({}, audio, lengths, method="spectrogram")  # which has no parameters
    return {"image": image, "num_rows": num_rows}


def _joined(head: Head, **call: Any) -> Callable[[Any, Inputs], Any]:
    def both(model: Any, inputs: Inputs) -> Any:
        hidden, mask = model(**inputs, **call)
        return head(model, hidden, mask)

    return both
