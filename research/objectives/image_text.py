"""Images and their texts: the vectors of both sides of a pair meet, and keep off those of the others of the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.build import Block, build
from research.metrics import Mean
from research.objectives.compared import check_compared, own_is_nearest
from research.objectives.inputs import Inputs, read_inputs
from research.objectives.text import check_token_dropout, hide_tokens, mean_over, real_examples
from research.ops import contrastive
from research.ops.image_augmentation import IMAGE_AUGMENTATIONS
from research.ops.masking import example_keys
from research.types import Batch, Features, Keys, Loss, Variables

Sides = dict[str, Float[Array, "B E"]]

_COLLECTIONS = ("params", "batch_stats")


@dataclass(frozen=True)
class ImageText:
    """What CLIP and SigLIP share; the model has two towers, a scale and a bias (`models/dual_encoder.py`).

    In training images are augmented, and each token behind the first is hidden with the probability `token_dropout`.
    Rows with equal texts are no rivals of each other. `form` and `chunk` say how the loss over the batch is computed
    (`ops/contrastive.py`). In the plain form there is an accuracy as well, the share of images that are nearer to their
    own text than to any other: it looks at all logits at once, which the other two are there to avoid.
    """

    model: nn.Module
    mask_id: int = -1
    token_dropout: float = 0.0
    augmentation: Annotated[Mapping[str, Any], Block("augmentation", IMAGE_AUGMENTATIONS)] = field(
        default_factory=lambda: {"name": "none"}
    )
    form: Literal["plain", "gathered", "chunked"] = "plain"
    chunk: int = contrastive.CHUNK

    couples_examples = True
    causal = False
    head = ""
    target = "image"
    name: ClassVar[str]
    losses: ClassVar[Callable[..., Array]]  # one a pair, of unit vectors
    with_bias: ClassVar[bool]  # whether logits have a bias that is learnt

    def __post_init__(self) -> None:
        check_token_dropout(self.token_dropout, self.mask_id)
        build(self.augmentation, IMAGE_AUGMENTATIONS, kind="augmentation")  # refuses what it cannot be
        if self.chunk < 1:
            raise ValueError(f"objective.chunk={self.chunk}: wanted a number of texts at a time, such as 1024")

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        check_compared(batch)
        if "tokens" not in batch:
            raise ValueError(
                f"objective.name={self.name} learns from images with their texts, and the data have no texts; use "
                "data.name=image_text, or an objective of images alone such as simclr"
            )
        jax.eval_shape(self.augmented, batch, rng)  # which refuses images that the augmentation is not for
        made = self.model.init(rng, self._pixels(batch), batch["tokens"], **_places(batch))
        if ("bias" in made["params"]) != self.with_bias:
            reason = "learns a bias" if self.with_bias else "does not see what is added to every logit"
            raise ValueError(f"objective.name={self.name} {reason}; set model.bias={str(self.with_bias).lower()}")
        return {name: made[name] for name in _COLLECTIONS if name in made}

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        sides, state = self._encode(variables, batch, rng=rng, train=train)
        return replace(self.compare(variables, sides, batch, step=step, train=train), model_state=state)

    def encode(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Sides:
        """The unit vectors of both sides."""
        return self._encode(variables, batch, rng=rng, train=train)[0]

    def compare(self, variables: Variables, features: Sides, batch: Batch, *, step: jax.Array, train: bool) -> Loss:
        """The loss of a whole batch, of which `features` are what `encode` gives."""
        where = real_examples(batch)
        scale = self._scalar(variables, "scale")
        given: dict[str, Any] = dict(where=where, groups=batch["group"], form=self.form, chunk=self.chunk)
        if self.with_bias:
            given["bias"] = self._scalar(variables, "bias")
        losses = self.losses(features["image"], features["text"], scale=scale, **given)
        counted = jnp.sum(where.astype(jnp.float32))
        metrics = {"scale": Mean(scale * counted, counted)}
        if self.form == "plain":
            hit = own_is_nearest(features["image"], features["text"], where, groups=batch["group"])
            metrics["accuracy"] = mean_over(hit, where)
        return Loss(terms={"loss": (1.0, mean_over(losses, where))}, metrics=metrics)

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: the unit vectors of both sides [B E]."""
        images, texts = self._apply(variables, self._pixels(batch), batch["tokens"], **_places(batch))
        return {"image": images, "text": texts}

    def features(self, variables: Variables, batch: Batch) -> Features:
        """Of images: their unit vectors, and the tower's vectors of every position."""

        def both(model: Any, images: Array) -> tuple[Array, Array]:
            return model.encode_image(images), model.read_image(images)

        pooled, hidden = self._apply(variables, self._pixels(batch), method=both)
        return Features(pooled=pooled, sequence=hidden.astype(jnp.float32), mask=jnp.ones(hidden.shape[:2], bool))

    def augmented(self, batch: Batch, noise: jax.Array) -> Inputs:
        """The images as a training step sees them, each drawn by its example's id."""
        augment = build(self.augmentation, IMAGE_AUGMENTATIONS, kind="augmentation")
        keys = example_keys(jax.random.fold_in(noise, 0), batch["example_id"])
        return {"image": augment(self._pixels(batch), keys)}

    def _encode(self, variables: Variables, batch: Batch, *, rng: Keys, train: bool) -> tuple[Sides, dict[str, Any]]:
        images = self.augmented(batch, rng.noise)["image"] if train else self._pixels(batch)
        if train and self.token_dropout:
            noise = jax.random.fold_in(rng.noise, 1)
            batch = hide_tokens(batch, noise, rate=self.token_dropout, mask_id=self.mask_id)
        call: dict[str, Any] = dict(_places(batch), where=real_examples(batch), train=train)
        if train:
            call["rngs"] = {"dropout": rng.dropout}
        if not train or "batch_stats" not in variables:
            (first, second), state = self._apply(variables, images, batch["tokens"], **call), {}
        else:
            found = self._apply(variables, images, batch["tokens"], mutable=["batch_stats"], **call)
            (first, second), state = found[0], dict(found[1])
        return {"image": first, "text": second}, state

    def _pixels(self, batch: Batch) -> Float[Array, "B Y X C"]:
        return read_inputs(self.model, batch)["image"]

    def _apply(self, variables: Variables, *inputs: Array, **call: Any) -> Any:
        return self.model.apply({name: variables[name] for name in _COLLECTIONS if name in variables}, *inputs, **call)

    def _scalar(self, variables: Variables, method: str) -> Float[Array, ""]:
        return cast(Array, self.model.apply({"params": variables["params"]}, method=method))


@dataclass(frozen=True)
class CLIP(ImageText):
    """Softmax over the batch, both ways, in nats (Radford et al. 2021; `ops.contrastive.clip`)."""

    name = "clip"
    losses = staticmethod(contrastive.clip)
    with_bias = False


@dataclass(frozen=True)
class SigLIP(ImageText):
    """A sigmoid for every pair of the batch, in nats an image (Zhai et al. 2023; `ops.contrastive.siglip`)."""

    name = "siglip"
    losses = staticmethod(contrastive.siglip)
    with_bias = True


def _places(batch: Batch) -> dict[str, Any]:
    return {name: batch[name] for name in ("positions", "segment_ids")}
