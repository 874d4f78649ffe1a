"""Layers that every model shares: projections with named axes, norms, embeddings, dropout."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jaxtyping import Array, Float, Int

from research.ops.product import product

VOCABULARY_MULTIPLE = 128  # tables are padded to it, so that they divide over devices and fill a matrix unit

ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda values: values * jax.nn.sigmoid(1.702 * values),  # Hendrycks and Gimpel 2016; CLIP's
    "relu": jax.nn.relu,
    "squared_relu": lambda values: jnp.square(jax.nn.relu(values)),  # So et al. 2021, Primer
    "swiglu": jax.nn.silu,  # Shazeer 2020: the gate's activation
}


def named(init: Callable[..., Any], axes: tuple[str | None, ...]) -> Callable[..., Any]:
    """An initializer whose parameter carries logical axis names."""
    return nn.with_logical_partitioning(init, axes)


def padded_vocabulary(vocab_size: int) -> int:
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


class Projection(nn.Module):
    """A linear map by einsum: `equation` names input, kernel and output letters, `shape` and `axes` are the kernel's.

    The kernel is drawn from a normal of standard deviation `stddev`, or 1/sqrt(fan in) when it is 0. `matmul_dtype` is
    that of `ops.product`.
    """

    equation: str
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    num_inputs: int = 1  # leading kernel axes that are contracted
    bias: bool = False
    stddev: float = 0.0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    matmul_dtype: Any = ""

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        stddev = self.stddev or math.prod(self.shape[: self.num_inputs]) ** -0.5
        kernel = self.param("kernel", named(nn.initializers.normal(stddev), self.axes), self.shape, self.param_dtype)
        factors = inputs.astype(self.dtype), kernel.astype(self.dtype)
        outputs = product(self.equation, *factors, dtype=self.dtype, matmul_dtype=self.matmul_dtype)
        if self.bias:
            shape, axes = self.shape[self.num_inputs :], self.axes[self.num_inputs :]
            bias = self.param("bias", named(nn.initializers.zeros_init(), axes), shape, self.param_dtype)
            outputs = outputs + bias.astype(self.dtype).reshape((1,) * (outputs.ndim - bias.ndim) + bias.shape)
        return outputs


class Norm(nn.Module):
    """LayerNorm or RMSNorm over the last axis, computed in float32; `kind` is "layer" or "rms"."""

    kind: str = "layer"
    epsilon: float = 1e-6
    bias: bool = True
    axis: str | None = "embed"
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        values = inputs.astype(jnp.float32)
        if self.kind == "layer":
            values = values - jnp.mean(values, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(values), axis=-1, keepdims=True)
        values = values * jax.lax.rsqrt(variance + self.epsilon)
        shape = (inputs.shape[-1],)
        broadcast = (1,) * (inputs.ndim - 1) + shape
        scale = self.param("scale", named(nn.initializers.ones_init(), (self.axis,)), shape, self.param_dtype)
        values = values * scale.astype(jnp.float32).reshape(broadcast)
        if self.bias and self.kind == "layer":
            bias = self.param("bias", named(nn.initializers.zeros_init(), (self.axis,)), shape, self.param_dtype)
            values = values + bias.astype(jnp.float32).reshape(broadcast)
        return values.astype(self.dtype)


class Embedding(nn.Module):
    """A table of vectors, looked up by id; `table` gives it whole, for tied heads."""

    num_embeddings: int
    width: int
    axes: tuple[str | None, ...] = ("vocab", "embed")
    stddev: float = 0.02
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        init = named(nn.initializers.normal(self.stddev), self.axes)
        self.embedding = self.param("embedding", init, (self.num_embeddings, self.width), self.param_dtype)

    def __call__(self, ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        # Gathered over its width first: a lookup in a table that is sharded both ways copies it whole.
        table = with_logical_constraint(jnp.asarray(self.embedding), (self.axes[0], None))
        return with_logical_constraint(jnp.take(table, ids, axis=0).astype(self.dtype), ("batch", "length", "hidden"))

    def table(self) -> Float[Array, "V D"]:
        return jnp.asarray(self.embedding)


class Dropout(nn.Module):
    """Zeroes each value with probability `rate` while training and scales the rest by 1 / (1 - rate)."""

    rate: float

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool) -> Array:
        if not train or self.rate == 0.0:
            return inputs
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, inputs.shape)
        return jnp.where(kept, inputs / (1.0 - self.rate), jnp.zeros_like(inputs))
