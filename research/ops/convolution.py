"""Convolutions of images whose factors may be rounded to a narrower type, with float32 sums, in both directions."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def convolve(
    image: Float[Array, "B Y X C"],
    kernel: Float[Array, "P Q C D"],
    *,
    stride: int = 1,
    dtype: Any,
    matmul_dtype: Any = "",
) -> Float[Array, "B V W D"]:
    """Each output pixel sees the P x Q pixels around its own; zeros outside (P//2 rows, Q//2 columns: torch's padding).

    `matmul_dtype` is that of `ops.product`: image, kernel and, in the backward pass, the cotangent are rounded to it.
    The products are still taken in float32, which a TPU does with bfloat16 factors by default; a CPU gains nothing.
    """
    image, kernel = image.astype(dtype), kernel.astype(dtype)
    if not matmul_dtype:
        return _convolve(image, kernel, stride)
    product = _rounded(image.astype(jnp.float32), kernel.astype(jnp.float32), stride, matmul_dtype)
    return jnp.asarray(product, dtype)


def _convolve(image: Array, kernel: Array, stride: int) -> Array:
    padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(image, kernel, (stride, stride), padding, dimension_numbers=axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _rounded(image: Array, kernel: Array, stride: int, matmul_dtype: Any) -> Array:
    return _forward(image, kernel, stride, matmul_dtype)[0]


def _forward(image: Array, kernel: Array, stride: int, matmul_dtype: Any) -> tuple[Array, tuple[Array, Array]]:
    factors = _round(image, matmul_dtype), _round(kernel, matmul_dtype)
    return _convolve(*factors, stride), factors


def _backward(stride: int, matmul_dtype: Any, factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    _, back = jax.vjp(functools.partial(_convolve, stride=stride), *factors)
    return back(_round(cotangent, matmul_dtype))


def _round(array: Array, dtype: Any) -> Array:
    # A conversion there and back is one that the compiler may leave out.
    narrow = jnp.finfo(dtype)
    return jax.lax.reduce_precision(array, exponent_bits=narrow.nexp, mantissa_bits=narrow.nmant)


_rounded.defvjp(_forward, _backward)
