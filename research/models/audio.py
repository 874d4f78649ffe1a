"""Sounds as images: log-mel spectrograms, which a nested image model reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.build import Block, build, resolve
from research.models.backbones import IMAGE_MODELS
from research.models.image_model import ImageModel
from research.ops.log_mel import frame_count, log_mel


@dataclass(frozen=True)
class SpectrogramConfig:
    """What a model of sounds is; `module()` makes its `tower`, a block of an image model as `resolve` fills it in.

    A clip becomes an image of one channel: `num_rows` frames, the first in the first row, by `num_mels` bands, in dB
    (`ops.log_mel`) less a mean and divided by a standard deviation: those of the clip's own real frames (`clip`), or
    `mean` and `std` (`constants`). Frames of padding are 0 in it, and their positions are left out of pooling. The
    tower computes in the types of the whole; its `pixel_mean` and `pixel_std`, which are for images, are not used.

    A ViT wants whole patches, and positions that are `sincos` or `rotary` unless the image is square.
    """

    tower: Annotated[Mapping[str, Any], Block("model", IMAGE_MODELS)] = field(hash=False)  # modules with it must hash
    sample_rate: int
    audio_length: int
    num_mels: int = 64
    window_seconds: float = 0.032
    hop_seconds: float = 0.01
    min_frequency: float = 0.0
    max_frequency: float = 0.0  # 0: half the sample rate
    standardize: Literal["clip", "constants"] = "clip"
    mean: float = -40.0  # dB; of `constants`
    std: float = 20.0
    num_frames: int = 0  # more are cut, fewer padded; 0: those of audio_length, and what fills the tower's patches
    dtype: str = "float32"
    param_dtype: str = "float32"
    matmul_dtype: str = ""  # what factors of matrix products are rounded to, with float32 sums; "": dtype

    def __post_init__(self) -> None:
        if min(self.sample_rate, self.audio_length) < 1:
            raise ValueError(
                f"model.name=spectrogram with sample_rate={self.sample_rate} and audio_length={self.audio_length}: it "
                "reads sounds, and the data give none; use data.name=audio_classification, or another model"
            )
        if self.std <= 0.0 or self.num_frames < 0:
            raise ValueError(f"model.std={self.std}, num_frames={self.num_frames}: wanted a std above 0, frames from 0")
        # Which refuses what makes no filters.
        jax.eval_shape(self.decibels, jax.ShapeDtypeStruct((1, self.audio_length), jnp.float32))
        for key, value in (("num_mels", self.num_mels), ("num_frames", self.num_frames)):
            if value % self._patch_size:
                raise ValueError(
                    f"model.{key}={value} does not divide into model.tower.patch_size={self._patch_size}; use a "
                    f"multiple, such as {math.ceil(value / self._patch_size) * self._patch_size}"
                )
        tower = self.image_tower
        if tower.num_channels != 1:
            raise ValueError(f"model.tower.num_channels={tower.num_channels}: a spectrogram has 1; leave it out")
        if getattr(tower, "patch_dropout", 0.0):
            raise ValueError(
                f"model.tower.patch_dropout={tower.patch_dropout} could leave a clip with padding alone; set it to 0.0"
            )
        shape = (self.num_rows, self.num_mels)
        if getattr(tower, "position", "") == "learned" and shape != (tower.image_size,) * 2:
            raise ValueError(
                f"model.tower.position=learned is for images of {tower.image_size} x {tower.image_size}, and the "
                f"spectrograms have {shape[0]} frames x {shape[1]} mels; use model.tower.position=sincos"
            )

    @property
    def image_tower(self) -> Any:
        return build(self._block, IMAGE_MODELS, kind="model.tower", **self._offers)

    @property
    def width(self) -> int:
        return self.image_tower.width

    @property
    def window_size(self) -> int:
        return round(self.sample_rate * self.window_seconds)

    @property
    def hop(self) -> int:
        return round(self.sample_rate * self.hop_seconds)

    @property
    def num_rows(self) -> int:
        """Frames of the image."""
        frames = frame_count(self.audio_length, window_size=self.window_size, hop=self.hop)
        return self.num_frames or math.ceil(frames / self._patch_size) * self._patch_size

    def module(self) -> nn.Module:
        return self.image_tower.module()

    def decibels(self, waves: Float[Array, "B T"]) -> Float[Array, "B F S"]:
        """[B frames mels]; raises ValueError where numbers of the config make no filters."""
        return log_mel(
            waves,
            sample_rate=self.sample_rate,
            window_size=self.window_size,
            hop=self.hop,
            num_mels=self.num_mels,
            min_frequency=self.min_frequency,
            max_frequency=self.max_frequency or self.sample_rate / 2,
        )

    def num_flops(self, audio_length: int, **options: float) -> float:
        """Floating-point operations a clip, forward and backward: the tower's, whose image is of one size."""
        del audio_length
        return self.image_tower.num_flops(self.num_rows, num_columns=self.num_mels, **options)

    @property
    def _block(self) -> dict[str, Any]:
        """The tower's, without what the data offer of images (nothing) and with the types of the whole."""
        block = {key: value for key, value in self.tower.items() if value or key not in ("image_size", "num_channels")}
        return block | {"dtype": self.dtype, "param_dtype": self.param_dtype, "matmul_dtype": self.matmul_dtype}

    @property
    def _offers(self) -> dict[str, int]:
        return {"image_size": self.num_mels, "num_channels": 1}

    @property
    def _patch_size(self) -> int:
        return resolve(self._block, IMAGE_MODELS, kind="model.tower", **self._offers).get("patch_size", 1)


class AudioModel(ImageModel, kw_only=True):
    """A backbone that reads spectrograms as images, with the head that an objective asked for."""

    config: SpectrogramConfig

    def spectrogram(
        self, audio: Int[Array, "B T"] | Float[Array, "B T"], lengths: Int[Array, " B"]
    ) -> tuple[Float[Array, "B Y X 1"], Int[Array, " B"]]:
        """The clips, int16 or floats in [-1, 1], as images in float32, and the rows of each that are real."""
        config = self.config
        waves = audio.astype(jnp.float32) / (32768.0 if jnp.issubdtype(audio.dtype, jnp.integer) else 1.0)
        waves = jnp.where(jnp.arange(waves.shape[1])[None, :] < lengths[:, None], waves, 0.0)
        decibels = config.decibels(waves)[:, : config.num_rows]
        decibels = jnp.pad(decibels, ((0, 0), (0, config.num_rows - decibels.shape[1]), (0, 0)))
        num_rows = jnp.minimum(frame_count(lengths, window_size=config.window_size, hop=config.hop), config.num_rows)
        real = jnp.broadcast_to((jnp.arange(config.num_rows)[None, :] < num_rows[:, None])[..., None], decibels.shape)
        mean, std = config.mean, config.std
        if config.standardize == "clip":
            mean, std = _mean_and_std(decibels, real)
        return jnp.where(real, (decibels - mean) / std, 0.0)[..., None], num_rows


def _mean_and_std(
    values: Float[Array, "B F S"], where: Bool[Array, "B F S"]
) -> tuple[Float[Array, "B 1 1"], Float[Array, "B 1 1"]]:
    """Of each clip; a clip of silence, which has no spread, is divided by 1 mB."""
    count = jnp.sum(where, axis=(1, 2), keepdims=True)
    mean = jnp.sum(jnp.where(where, values, 0.0), axis=(1, 2), keepdims=True) / count
    square = jnp.sum(jnp.where(where, jnp.square(values - mean), 0.0), axis=(1, 2), keepdims=True) / count
    return mean, jnp.maximum(jnp.sqrt(square), 0.01)
