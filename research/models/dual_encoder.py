"""Two towers that meet in one space: an image and its text have vectors near each other (CLIP, Radford et al. 2021)."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.build import Block, build
from research.models.attention_pool import AttentionPool
from research.models.backbones import IMAGE_MODELS, MODELS
from research.models.image_layers import standardise
from research.models.layers import Projection, named
from research.models.task_heads import pool
from research.ops.unit_length import unit_length

ImageBlock = Annotated[Mapping[str, Any], Block("model", IMAGE_MODELS)]
TextBlock = Annotated[Mapping[str, Any], Block("model", MODELS)]
Pooling = Literal["first", "last", "mean", "max", "map"]
Side = Literal["image", "text"]


@dataclass(frozen=True)
class DualEncoderConfig:
    """What a dual encoder is; `module()` makes it. `image` and `text` are the blocks of its towers, as `resolve` fills
    them in.

    Poolings are those of `ClassificationHead`; CLIP's are `first` (the class token) and `last` (the end token, which
    must be the last real one). SigLIP (Zhai et al. 2023) has `bias`, and an `initial_scale` of 10. `lock` names a tower
    that is given (LiT, Zhai et al. 2022): no gradient passes it, and it computes as in evaluation, without dropout and
    with the batch statistics that it has; its pooling and projection learn. Weight decay asks for no gradient: give a
    locked tower an optimizer multiplier of 0 as well.
    """

    image: ImageBlock = field(hash=False)  # a dict: modules with this config must hash
    text: TextBlock = field(hash=False)
    embed_dim: int = 512
    image_pooling: Pooling = "mean"
    text_pooling: Pooling = "mean"
    initial_scale: float = 1.0 / 0.07
    max_scale: float = 100.0  # 0: no limit
    bias: bool = False
    initial_bias: float = -10.0
    lock: Literal["", "image", "text"] = ""
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.embed_dim < 1:
            raise ValueError(f"model.embed_dim={self.embed_dim}; wanted the size of the common space, such as 512")
        if self.initial_scale <= 0.0:
            raise ValueError(f"model.initial_scale={self.initial_scale}; wanted a number above 0, such as 10")
        if self.max_scale and self.max_scale < self.initial_scale:
            raise ValueError(
                f"model.max_scale={self.max_scale} is below initial_scale={self.initial_scale}; raise it, or set it to "
                "0 for no limit"
            )
        _ = self.image_tower, self.text_tower  # which refuse what they cannot be

    @property
    def image_tower(self) -> Any:
        return build(self.image, IMAGE_MODELS, kind="model.image")

    @property
    def text_tower(self) -> Any:
        return build(self.text, MODELS, kind="model.text")

    def module(self) -> DualEncoder:
        return DualEncoder(self)

    def num_flops(self, image_size: int, length: int) -> float:
        """Floating-point operations a pair, forward and backward (of a locked tower: forward): those of the towers, a
        text having `length` tokens, and 6 · parameters of the projections."""
        image, text = self.image_tower, self.text_tower
        passes = {side: 1.0 / 3.0 if side == self.lock else 1.0 for side in ("image", "text")}
        towers = passes["image"] * image.num_flops(image_size) + passes["text"] * length * text.num_flops(length)
        return towers + 6.0 * self.embed_dim * (image.width + text.width)


class DualEncoder(nn.Module):
    """Images `[B Y X C]` and texts `[B L]`, each to unit vectors `[B E]` in float32.

    Images are floats in [0, 1]; each channel goes in less the image tower's `pixel_mean` and divided by its
    `pixel_std`.
    """

    config: DualEncoderConfig

    def setup(self) -> None:
        config = self.config
        image, text = config.image_tower, config.text_tower
        self.image, self.text = image.module(), text.module()
        types: dict[str, Any] = dict(dtype=config.dtype, param_dtype=config.param_dtype)
        if config.image_pooling == "map":
            self.image_pool = AttentionPool(**types)
        if config.text_pooling == "map":
            self.text_pool = AttentionPool(**types)
        types |= dict(axes=("embed", None), dtype=jnp.float32)
        self.image_projection = Projection("bd,de->be", (image.width, config.embed_dim), **types)
        self.text_projection = Projection("bd,de->be", (text.width, config.embed_dim), **types)
        # In float32 whatever the others are: a step of 1e-3 is lost on a bfloat16 of 2.66.
        init = nn.initializers.constant(math.log(config.initial_scale))
        self.log_scale = self.param("log_scale", named(init, ()), (), jnp.float32)
        if config.bias:
            init = nn.initializers.constant(config.initial_bias)
            self.offset = self.param("bias", named(init, ()), (), jnp.float32)

    def __call__(
        self,
        image: Float[Array, "B Y X C"],
        tokens: Int[Array, "B L"],
        *,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        where: Bool[Array, " B"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "B E"], Float[Array, "B E"]]:
        """Both sides of a batch of pairs."""
        images = self.encode_image(image, where=where, train=train)
        return images, self.encode_text(tokens, positions=positions, segment_ids=segment_ids, train=train)

    def encode_image(
        self, image: Float[Array, "B Y X C"], *, where: Bool[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, "B E"]:
        hidden = self.read_image(image, where=where, train=train)
        return self._embed("image", hidden, jnp.ones(hidden.shape[:2], bool))

    def read_image(
        self, image: Float[Array, "B Y X C"], *, where: Bool[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, "B L D"]:
        """The image tower's vectors. `where` keeps padded examples out of the statistics of a tower that looks at the
        batch, which changes the collection `batch_stats` in training."""
        tower = self.config.image_tower
        image = standardise(image, tower.pixel_mean, tower.pixel_std)
        return self.image(image, where=where, train=train and self.config.lock != "image")

    def encode_text(
        self,
        tokens: Int[Array, "B L"],
        *,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        train: bool = False,
    ) -> Float[Array, "B E"]:
        """One text a row, padded at its end (segment 0)."""
        where = dict(positions=positions, segment_ids=segment_ids)
        hidden, _ = self.text(tokens, **where, train=train and self.config.lock != "text")
        return self._embed("text", hidden, segment_ids > 0)

    def scale(self) -> Float[Array, ""]:
        """What products of unit vectors are multiplied by, at most `max_scale`: the inverse of the temperature.

        At the limit a gradient that would raise it further is dropped, and one that would lower it is kept: as after
        CLIP's clipping of the parameter itself, the scale can come down again.
        """
        log_scale = jnp.asarray(self.log_scale, jnp.float32)
        limit = self.config.max_scale
        return jnp.exp(_at_most(log_scale, math.log(limit)) if limit else log_scale)

    def bias(self) -> Float[Array, ""]:
        """What is added to the scaled products; 0 for a model without."""
        return jnp.asarray(self.offset if self.config.bias else 0.0, jnp.float32)

    def _embed(self, side: Side, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B E"]:
        config = self.config
        if config.lock == side:
            hidden = jax.lax.stop_gradient(hidden)
        kind = config.image_pooling if side == "image" else config.text_pooling
        if kind == "map":
            pooled = (self.image_pool if side == "image" else self.text_pool)(hidden, mask)
        else:
            pooled = pool(hidden, mask, kind)
        project = self.image_projection if side == "image" else self.text_projection
        return unit_length(cast(Array, project(pooled)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _at_most(value: Float[Array, ""], limit: float) -> Float[Array, ""]:
    return jnp.minimum(value, limit)


def _at_most_forward(value: Array, limit: float) -> tuple[Array, Array]:
    return _at_most(value, limit), value


def _at_most_backward(limit: float, value: Array, slope: Array) -> tuple[Array]:
    return (jnp.where((value >= limit) & (slope < 0.0), 0.0, slope),)  # descent goes against the slope


_at_most.defvjp(_at_most_forward, _at_most_backward)
