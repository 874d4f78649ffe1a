"""The vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929): patches of an image as a text's tokens."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.models.layers import Dropout, Embedding, Norm, Projection, named
from research.models.transformer import TransformerConfig, stack
from research.ops.rotary import sinusoidal


@dataclass(frozen=True)
class ViTConfig:
    """What a vision transformer is; `module()` makes it. Images are square, of `image_size` pixels a side.

    `position`: a learned table; sines of column and row, not trained (MAE, He et al. 2022); or rotary ones by row and
    column, for which a class token stands at the first patch. The last two take images of other sizes too.
    """

    image_size: int
    patch_size: int = 16
    num_channels: int = 3
    width: int = 192
    depth: int = 12
    num_heads: int = 3
    mlp_dim: int = 0  # 0: 4 · width
    class_token: bool = True
    embed_bias: bool = True
    embed_norm: bool = False  # CLIP's norm between the positions and the first layer
    position: Literal["learned", "sincos", "rotary"] = "learned"
    rotary_base: float = 100.0  # as in Heo et al. 2024: an image has few rows
    patch_dropout: float = 0.0  # share of patches that a training step leaves out (FLIP, Li et al. 2023)
    norm_epsilon: float = 1e-6
    qkv_bias: bool = True
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    dropout: float = 0.0
    remat: Literal["none", "full", "dots", "names"] = "none"
    unroll: int = 1  # layers per scan iteration: more is faster on CPU and slower to compile
    pixel_mean: tuple[float, ...] = (0.5,)  # of each channel, or of all: taken off images in [0, 1],
    pixel_std: tuple[float, ...] = (0.5,)  # which are then divided by it
    dtype: str = "float32"
    param_dtype: str = "float32"
    matmul_dtype: str = ""  # what factors of matrix products are rounded to, with float32 sums; "": dtype

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"model.image_size={self.image_size} does not divide into patches of {self.patch_size}; "
                "use a multiple, or another patch_size"
            )
        if not 0.0 <= self.patch_dropout < 1.0:
            raise ValueError(f"model.patch_dropout={self.patch_dropout}; wanted a share from 0 to below 1")
        if self.position == "sincos" and self.width % 4:
            raise ValueError(f"model.width={self.width}: sincos positions need a multiple of 4")
        head_dim = self.trunk.head_dim  # which refuses heads that do not divide
        if self.position == "rotary" and head_dim % 4:
            raise ValueError(f"rotary positions turn pairs by row and column: {head_dim} must be a multiple of 4")

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def trunk(self) -> TransformerConfig:
        """The blocks; vocabulary and length are the stem's business."""
        return TransformerConfig(
            vocab_size=0,
            length=0,
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            norm_epsilon=self.norm_epsilon,
            position="rotary" if self.position == "rotary" else "none",
            rotary_base=self.rotary_base,
            activation=self.activation,
            qkv_bias=self.qkv_bias,
            dropout=self.dropout,
            remat=self.remat,
            unroll=self.unroll,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            matmul_dtype=self.matmul_dtype,
        )

    def module(self) -> ViT:
        return ViT(self)

    def grid(self, num_rows: int, num_columns: int) -> tuple[int, int]:
        """Rows and columns of the patches of an image."""
        return num_rows // self.patch_size, num_columns // self.patch_size

    def num_flops(self, image_size: int, *, num_columns: int = 0, share: float = 1.0) -> float:
        """Floating-point operations an image, forward and backward, when this share of its patches is encoded.

        An image has `image_size` rows and as many columns, or `num_columns`.

        L tokens · (6 · matrix parameters of the blocks + 12 · depth · width · L) + 6 · parameters of the patch
        embedding · patches; the head is not counted.
        """
        patches = round(share * math.prod(self.grid(image_size, num_columns or image_size)))
        tokens = patches + self.class_token
        embedding = self.patch_size**2 * self.num_channels * self.width
        return tokens * self.trunk.num_flops(tokens) + 6.0 * embedding * patches


class ViT(nn.Module):
    """Images to one vector a patch, after the class token's where there is one: `[B Y X C]` to `[B L D]`."""

    config: ViTConfig

    def setup(self) -> None:
        config = self.config
        types: dict[str, Any] = dict(dtype=config.dtype, param_dtype=config.param_dtype)
        shape, axes = (config.patch_size, config.patch_size, config.num_channels), (None, None, None, "embed")
        options: dict[str, Any] = types | dict(bias=config.embed_bias, matmul_dtype=config.matmul_dtype)
        self.embed = Projection("blpqc,pqcd->bld", (*shape, config.width), axes, 3, **options)
        if config.class_token:
            init = named(nn.initializers.normal(0.02), (None, None, "embed"))
            self.class_token = self.param("class_token", init, (1, 1, config.width), config.param_dtype)
        if config.position == "learned":
            tokens = config.num_patches + config.class_token
            self.positions = Embedding(tokens, config.width, axes=(None, "embed"), **types)
        if config.embed_norm:
            self.stem_norm = Norm("layer", config.norm_epsilon, **types)
        self.stem_dropout = Dropout(config.dropout)
        self.layers = stack(config.trunk)
        self.final_norm = Norm("layer", config.norm_epsilon, **types)

    def __call__(
        self,
        image: Float[Array, "B Y X C"],
        *,
        keep: Int[Array, "B K"] | None = None,
        where: Bool[Array, " B"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        """Vectors after the last norm. `keep` are the patches (row by row) that are encoded, in the order to come.

        A class token is always kept. In training `patch_dropout` draws `keep` where none is given.

        Raises:
          ValueError: an image that does not divide into patches, or is of another size than the position table.
        """
        del where  # padded examples do not meet the others
        config = self.config
        patches = split_into_patches(image, config.patch_size)
        columns = image.shape[2] // config.patch_size
        if config.position == "learned" and image.shape[1:3] != (config.image_size,) * 2:
            raise ValueError(
                f"an image of {image.shape[1]} x {image.shape[2]} for learned positions of model.image_size="
                f"{config.image_size}; resize it, or use model.position=sincos"
            )
        if keep is None and train and config.patch_dropout:
            keep = self._draw(*patches.shape[:2])
        index = jnp.arange(patches.shape[1])
        places = jnp.broadcast_to(jnp.stack([index // columns, index % columns], axis=-1), (*patches.shape[:2], 2))
        table = self._table(places[:1])
        if keep is not None:
            patches = jnp.take_along_axis(patches, keep[:, :, None, None, None], axis=1)
            places = jnp.take_along_axis(places, keep[:, :, None], axis=1)
            table = None if table is None else jnp.take(table[0], keep, axis=0)
        hidden = self.embed(patches)
        if table is not None:
            hidden = hidden + table.astype(hidden.dtype)
        if config.class_token:
            hidden, places = self._with_class_token(hidden), jnp.pad(places, ((0, 0), (1, 0), (0, 0)))
        if config.embed_norm:
            hidden = self.stem_norm(hidden)
        hidden = self.stem_dropout(hidden, train=train)
        mask = jnp.ones((*hidden.shape[:2], hidden.shape[1]), bool)
        hidden, _ = self.layers(hidden, None, places, mask, None, train)
        return self.final_norm(hidden)

    def _draw(self, batch_size: int, num_patches: int) -> Int[Array, "B K"]:
        """A random subset of each image's patches, in their order."""
        count = max(1, round(num_patches * (1.0 - self.config.patch_dropout)))
        noise = jax.random.uniform(self.make_rng("dropout"), (batch_size, num_patches))
        return jnp.sort(jnp.argsort(noise, axis=1)[:, :count], axis=1)

    def _table(self, places: Int[Array, "1 L 2"]) -> Float[Array, "1 L D"] | None:
        """What is added to the patches of an image; None for rotary positions."""
        if self.config.position == "learned":
            return self.positions.table()[None, int(self.config.class_token) :]
        return sincos(places, self.config.width) if self.config.position == "sincos" else None

    def _with_class_token(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B M D"]:
        token = jnp.asarray(self.class_token)
        if self.config.position == "learned":
            token = token + self.positions.table()[None, :1]
        shape = (hidden.shape[0], 1, hidden.shape[2])
        return jnp.concatenate([jnp.broadcast_to(token.astype(hidden.dtype), shape), hidden], axis=1)


def split_into_patches(image: Float[Array, "B Y X C"], size: int) -> Float[Array, "B L P P C"]:
    """Squares of `size` pixels, row by row. Raises ValueError where the image does not divide into them."""
    batch, height, width, channels = image.shape
    if height % size or width % size:
        raise ValueError(f"an image of {height} x {width} does not divide into patches of {size} pixels")
    rows = image.reshape(batch, height // size, size, width // size, size, channels)
    return jnp.swapaxes(rows, 2, 3).reshape(batch, -1, size, size, channels)


def sincos(places: Int[Array, "B L 2"], width: int) -> Float[Array, "B L D"]:
    """Sines and cosines of the column in the first half, of the row in the second: MAE's order."""
    rows, columns = places[:, :, 0], places[:, :, 1]
    return jnp.concatenate([sinusoidal(columns, width // 2), sinusoidal(rows, width // 2)], axis=-1)


vit_tiny = functools.partial(ViTConfig, width=192, depth=12, num_heads=3)
vit_small = functools.partial(ViTConfig, width=384, depth=12, num_heads=6)
vit_base = functools.partial(ViTConfig, width=768, depth=12, num_heads=12)
