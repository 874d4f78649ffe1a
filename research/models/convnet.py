"""One convolutional network, its blocks joined plainly (VGG), by sums (ResNet) or by concatenation (DenseNet)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jaxtyping import Array, Bool, Float

from research.models.image_layers import BatchNorm, Convolution, GroupNorm, max_pool, mean_pool


@dataclass(frozen=True)
class ConvNetConfig:
    """What a convolutional network is; `module()` makes it. Images of any size will do.

    `connection`: `plain`, 3x3 convolutions with a max-pool after each stage (Simonyan and Zisserman 2015; with norms);
    `residual`, ResNet v1.5 (He et al. 2016, the stride in a bottleneck's 3x3 convolution); `dense`, DenseNet-BC (Huang
    et al. 2017), whose widths follow from `growth`. `stem`: `imagenet`, 7x7 of stride 2 and a max-pool; `cifar`, 3x3.
    """

    connection: Literal["plain", "residual", "dense"] = "residual"
    depths: tuple[int, ...] = (2, 2, 2, 2)  # blocks of each stage
    widths: tuple[int, ...] = ()  # channels that each stage gives; none for `dense`
    block: Literal["basic", "bottleneck"] = "basic"  # residual
    zero_init: bool = True  # residual: blocks begin as the identity (Goyal et al. 2017, section 5.1)
    growth: int = 32  # dense: channels that each block adds
    stem: Literal["imagenet", "cifar", "none"] = "imagenet"
    stem_width: int = 64
    num_channels: int = 3
    norm: Literal["batch", "group"] = "batch"
    num_groups: int = 32  # of norm=group
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9  # of norm=batch: what is kept of the running statistics
    pixel_mean: tuple[float, ...] = (0.5,)  # of each channel, or of all: taken off images in [0, 1],
    pixel_std: tuple[float, ...] = (0.5,)  # which are then divided by it
    dtype: str = "float32"
    param_dtype: str = "float32"
    matmul_dtype: str = ""  # what factors of convolutions are rounded to, with float32 sums; "": dtype

    def __post_init__(self) -> None:
        wanted = 0 if self.connection == "dense" else len(self.depths)
        if len(self.widths) != wanted:
            raise ValueError(
                f"model.widths={self.widths}: connection={self.connection} with depths={self.depths} wants {wanted}"
            )
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"model.depths={self.depths}: wanted the blocks of each stage, 1 or more")
        if self.connection == "residual" and self.block == "bottleneck" and any(width % 4 for width in self.widths):
            raise ValueError(f"model.widths={self.widths}: a bottleneck has a quarter of the width; use multiples of 4")

    @property
    def width(self) -> int:
        """Channels of the last feature map."""
        if self.connection != "dense":
            return self.widths[-1]
        width = self.stem_width if self.stem != "none" else self.num_channels
        for stage, depth in enumerate(self.depths):
            width = (width if stage == 0 else width // 2) + depth * self.growth
        return width

    @property
    def depth(self) -> int:
        """Blocks in all."""
        return sum(self.depths)

    def module(self) -> ConvNet:
        return ConvNet(self)

    def grid(self, num_rows: int, num_columns: int) -> tuple[int, int]:
        """Rows and columns of the last feature map of an image."""
        return self._halved(num_rows), self._halved(num_columns)

    def _halved(self, side: int) -> int:
        if self.stem == "imagenet":
            side = -(-side // 4)
        for stage in range(len(self.depths)):
            if self.connection == "residual":
                side = -(-side // 2) if stage else side
            elif stage or self.connection == "plain":
                side = side // 2
        return side

    def num_flops(self, image_size: int, *, num_columns: int = 0) -> float:
        """Floating-point operations an image, forward and backward: 6 · kernel parameters · output pixels, summed over
        the convolutions; norms, pooling and the head are not counted.

        An image has `image_size` rows and as many columns, or `num_columns`."""
        shape = (1, image_size, num_columns or image_size, self.num_channels)
        image = jax.ShapeDtypeStruct(shape, self.dtype)
        module = self.module()

        def trace(image: Array) -> Any:
            return module.init_with_output(
                jax.random.key(0), image, capture_intermediates=lambda layer, _: isinstance(layer, Convolution)
            )

        _, variables = jax.eval_shape(trace, image)
        kernels = jax.tree.leaves_with_path(nn.meta.unbox(variables["params"]))
        sizes = {path[:-1]: leaf.size for path, leaf in kernels if "kernel" in str(path[-1])}
        outputs = jax.tree.leaves_with_path(variables["intermediates"])
        pixels = {path[:-2]: leaf.shape[1] * leaf.shape[2] for path, leaf in outputs}
        return sum(6.0 * sizes[path] * pixels[path] for path in sizes)


class ConvNet(nn.Module):
    """Images to one vector a pixel of the last feature map: `[B Y X C]` to `[B L D]`, row by row."""

    config: ConvNetConfig

    @nn.compact
    def __call__(
        self, image: Float[Array, "B Y X C"], *, where: Bool[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, "B L D"]:
        """With norm=batch, training looks at the batch, of which `where` keeps padded examples out, and changes the
        collection `batch_stats`. Raises ValueError where the image is too small for that many stages."""
        config = self.config
        state: dict[str, Any] = dict(where=where, train=train)
        hidden = image.astype(config.dtype)
        if config.stem != "none":
            size, stride = (7, 2) if config.stem == "imagenet" else (3, 1)
            hidden = ConvNorm(config, config.stem_width, size, stride, name="stem")(hidden, **state)
        if config.stem == "imagenet":
            hidden = max_pool(hidden, size=3, stride=2, padding=1)
        for stage, depth in enumerate(config.depths):
            if stage and config.connection == "dense":
                hidden = _activated(config, f"transition{stage}_norm", hidden, **state)
                hidden = _convolution(config, hidden.shape[-1] // 2, 1, name=f"transition{stage}")(hidden)
                hidden = mean_pool(hidden)
            for block in range(depth):
                name = f"stage{stage + 1}_block{block + 1}"
                if config.connection == "plain":
                    hidden = ConvNorm(config, config.widths[stage], name=name)(hidden, **state)
                elif config.connection == "residual":
                    stride = 2 if stage and not block else 1
                    hidden = ResidualBlock(config, config.widths[stage], stride, name=name)(hidden, **state)
                else:
                    hidden = DenseBlock(config, name=name)(hidden, **state)
                hidden = with_logical_constraint(hidden, ("batch", None, None, "hidden"))
            if config.connection == "plain":
                hidden = max_pool(hidden, size=2, stride=2)
        if config.connection == "dense":
            hidden = _activated(config, "final_norm", hidden, **state)
        return hidden.reshape(hidden.shape[0], -1, hidden.shape[-1])


class ConvNorm(nn.Module):
    """Convolution, norm and, unless a sum comes first, ReLU."""

    config: ConvNetConfig
    width: int
    size: int = 3
    stride: int = 1
    relu: bool = True
    zero_scale: bool = False

    @nn.compact
    def __call__(self, hidden: Array, *, where: Array | None, train: bool) -> Array:
        hidden = _convolution(self.config, self.width, self.size, self.stride, name="convolution")(hidden)
        hidden = _normed(self.config, "norm", hidden, where=where, train=train, zero_scale=self.zero_scale)
        return jax.nn.relu(hidden) if self.relu else hidden


class ResidualBlock(nn.Module):
    """Two convolutions, or a bottleneck of three, added to the input, which is projected where the shape changes."""

    config: ConvNetConfig
    width: int
    stride: int

    @nn.compact
    def __call__(self, hidden: Array, **state: Any) -> Array:
        config, width = self.config, self.width
        last: dict[str, Any] = dict(relu=False, zero_scale=config.zero_init)
        shortcut = hidden
        if self.stride > 1 or hidden.shape[-1] != width:
            shortcut = ConvNorm(config, width, 1, self.stride, relu=False, name="shortcut")(hidden, **state)
        if config.block == "basic":
            hidden = ConvNorm(config, width, 3, self.stride, name="conv1")(hidden, **state)
            hidden = ConvNorm(config, width, 3, **last, name="conv2")(hidden, **state)
        else:
            hidden = ConvNorm(config, width // 4, 1, name="conv1")(hidden, **state)
            hidden = ConvNorm(config, width // 4, 3, self.stride, name="conv2")(hidden, **state)
            hidden = ConvNorm(config, width, 1, **last, name="conv3")(hidden, **state)
        return jax.nn.relu(hidden + shortcut)


class DenseBlock(nn.Module):
    """Norm, ReLU, 1x1 to four times the growth; norm, ReLU, 3x3 to the growth, set beside the input."""

    config: ConvNetConfig

    @nn.compact
    def __call__(self, hidden: Array, **state: Any) -> Array:
        config = self.config
        inner = _activated(config, "norm1", hidden, **state)
        inner = _convolution(config, 4 * config.growth, 1, name="conv1")(inner)
        inner = _activated(config, "norm2", inner, **state)
        return jnp.concatenate([hidden, _convolution(config, config.growth, 3, name="conv2")(inner)], axis=-1)


def _convolution(config: ConvNetConfig, width: int, size: int, stride: int = 1, *, name: str) -> Convolution:
    types: dict[str, Any] = dict(dtype=config.dtype, param_dtype=config.param_dtype, matmul_dtype=config.matmul_dtype)
    return Convolution(width, size, stride, name=name, **types)


def _normed(
    config: ConvNetConfig, name: str, hidden: Array, *, where: Array | None, train: bool, zero_scale: bool = False
) -> Array:
    options: dict[str, Any] = dict(zero_scale=zero_scale, dtype=config.dtype, param_dtype=config.param_dtype)
    if config.norm == "group":
        return GroupNorm(config.num_groups, config.norm_epsilon, name=name, **options)(hidden)
    norm = BatchNorm(config.norm_momentum, config.norm_epsilon, name=name, **options)
    return norm(hidden, where=where, train=train)


def _activated(config: ConvNetConfig, name: str, hidden: Array, **state: Any) -> Array:
    return jax.nn.relu(_normed(config, name, hidden, **state))


_PLAIN = dict(connection="plain", stem="none")
_VGG = dict(_PLAIN, widths=(64, 128, 256, 512, 512))
_RESNET = dict(connection="residual", widths=(64, 128, 256, 512))

cnn = functools.partial(ConvNetConfig, **_PLAIN, depths=(1, 1, 1), widths=(32, 64, 128))
# The convolutions of VGG; its three linear layers are counted in the name and left to the head.
vgg11 = functools.partial(ConvNetConfig, **_VGG, depths=(1, 1, 2, 2, 2))
vgg16 = functools.partial(ConvNetConfig, **_VGG, depths=(2, 2, 3, 3, 3))
resnet18 = functools.partial(ConvNetConfig, **_RESNET, depths=(2, 2, 2, 2))
resnet34 = functools.partial(ConvNetConfig, **_RESNET, depths=(3, 4, 6, 3))
resnet50 = functools.partial(
    ConvNetConfig, connection="residual", block="bottleneck", depths=(3, 4, 6, 3), widths=(256, 512, 1024, 2048)
)
densenet = functools.partial(ConvNetConfig, connection="dense", depths=(6, 12, 24, 16))  # DenseNet-121
