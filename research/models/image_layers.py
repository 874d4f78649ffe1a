"""Layers of image models: the scale of pixels; convolution, norms over images, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from research.models.layers import named
from research.ops.convolution import convolve


def standardise(image: Float[Array, "B Y X C"], mean: Sequence[float], std: Sequence[float]) -> Float[Array, "B Y X C"]:
    """Each channel less its `mean` and divided by its `std`; one value stands for all channels."""
    taken, divided = (jnp.array(values, image.dtype)[None, None, None, :] for values in (mean, std))
    return (image - taken) / divided


class Convolution(nn.Module):
    """A convolution without bias, from `size` x `size` pixels to `width` channels.

    The kernel is drawn from a normal of variance 2 / (size² · width), He et al. 2015's for the backward pass.
    """

    width: int
    size: int = 3
    stride: int = 1
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    matmul_dtype: Any = ""

    @nn.compact
    def __call__(self, image: Float[Array, "B Y X C"]) -> Float[Array, "B V W D"]:
        shape = (self.size, self.size, image.shape[-1], self.width)
        init = named(nn.initializers.normal((2.0 / (self.size**2 * self.width)) ** 0.5), (None, None, None, "embed"))
        kernel = self.param("kernel", init, shape, self.param_dtype)
        return convolve(image, kernel, stride=self.stride, dtype=self.dtype, matmul_dtype=self.matmul_dtype)


class BatchNorm(nn.Module):
    """Each channel by its mean and variance over the batch (Ioffe and Szegedy 2015), in float32.

    While training they are those of the whole batch, on however many devices it lies, of the examples in `where`; the
    collection `batch_stats` goes `momentum` of the way from them to what it was, and is used otherwise. Both variances
    divide by the count (flax's convention; torch's running one by the count less 1).
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    zero_scale: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "B Y X C"], *, where: Bool[Array, " B"] | None, train: bool
    ) -> Float[Array, "B Y X C"]:
        values = image.astype(jnp.float32)
        shape = image.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        if train:
            found_mean = _mean(values, where)
            # Not the mean square less the squared mean: where the mean is large, nothing would be left of it.
            found_variance = _mean(jnp.square(values - found_mean[None, None, None, :]), where)
            if not self.is_initializing():
                for kept, found in ((mean, found_mean), (variance, found_variance)):
                    kept.value = self.momentum * kept.value + (1.0 - self.momentum) * found
        else:
            found_mean, found_variance = mean.value, variance.value
        scale, bias = _scale_and_bias(self, shape)
        factor = scale * jax.lax.rsqrt(found_variance + self.epsilon)
        values = (values - found_mean[None, None, None, :]) * factor[None, None, None, :] + bias[None, None, None, :]
        return values.astype(self.dtype)


class GroupNorm(nn.Module):
    """Each image's channels in `num_groups` groups, each by its own mean and variance (Wu and He 2018), in float32."""

    num_groups: int = 32
    epsilon: float = 1e-5
    zero_scale: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
        channels = image.shape[-1]
        if channels % self.num_groups:
            raise ValueError(f"model.norm=group: {channels} channels do not divide into {self.num_groups} groups")
        values = image.astype(jnp.float32).reshape(*image.shape[:3], self.num_groups, -1)
        values = values - jnp.mean(values, axis=(1, 2, 4), keepdims=True)
        variance = jnp.mean(jnp.square(values), axis=(1, 2, 4), keepdims=True)
        values = (values * jax.lax.rsqrt(variance + self.epsilon)).reshape(image.shape)
        scale, bias = _scale_and_bias(self, (channels,))
        return (values * scale[None, None, None, :] + bias[None, None, None, :]).astype(self.dtype)


def max_pool(image: Float[Array, "B Y X C"], *, size: int, stride: int, padding: int = 0) -> Float[Array, "B V W C"]:
    """The largest of `size` x `size` pixels; what does not fill a last step is left out, as in torch.

    Raises:
      ValueError: an image smaller than that.
    """
    _check_size(image, size - 2 * padding)
    bounds: Any = [(padding, padding)] * 2  # flax has no type for it but its default's
    return nn.max_pool(image, (size, size), (stride, stride), bounds)


def mean_pool(image: Float[Array, "B Y X C"]) -> Float[Array, "B V W C"]:
    """The mean of 2 x 2 pixels; a last odd row or column is left out. Raises as `max_pool`."""
    _check_size(image, 2)
    return nn.avg_pool(image, (2, 2), (2, 2))


def _check_size(image: Array, size: int) -> None:
    if min(image.shape[1:3]) < size:
        raise ValueError(
            f"the image is down to {image.shape[1]} x {image.shape[2]} pixels and is to be halved again; use larger "
            "images or a model with fewer stages"
        )


def _mean(values: Float[Array, "B Y X C"], where: Bool[Array, " B"] | None) -> Float[Array, " C"]:
    """Of each channel; of the examples in `where` if given."""
    if where is None:
        return jnp.mean(values, axis=(0, 1, 2))
    # Select before summing: a NaN in a padded example must not reach the sum.
    total = jnp.sum(jnp.where(where[:, None, None, None], values, 0.0), axis=(0, 1, 2))
    return total / jnp.maximum(jnp.sum(where) * values.shape[1] * values.shape[2], 1)


def _scale_and_bias(norm: BatchNorm | GroupNorm, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A norm's parameters, within its compact method, in float32."""
    init = nn.initializers.zeros_init() if norm.zero_scale else nn.initializers.ones_init()
    scale = norm.param("scale", named(init, ("embed",)), shape, norm.param_dtype)
    bias = norm.param("bias", named(nn.initializers.zeros_init(), ("embed",)), shape, norm.param_dtype)
    return jnp.asarray(scale, jnp.float32), jnp.asarray(bias, jnp.float32)
