"""Products of arrays whose factors may be rounded to a narrower type, with float32 sums, in the backward pass too."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def product(equation: str, first: Array, second: Array, *, dtype: Any, matmul_dtype: Any = "") -> Array:
    """`jnp.einsum(equation, first, second)` as `dtype`, with factors rounded to `matmul_dtype` where it is named.

    The cotangent is then rounded too before it meets the other factor: else the backward products, two thirds of the
    work, would be taken in the wider type. This is what a TPU does with float32 by default; a CPU with AMX multiplies
    bfloat16 several times faster than float32, but only where the result is asked for in float32.
    """
    if not matmul_dtype:
        return jnp.einsum(equation, first, second, preferred_element_type=dtype)
    if "..." in equation:  # every letter must have a name: a gradient sums over those that one factor lacks
        equation = equation.replace("...", "xyzw"[: max(first.ndim, second.ndim) - 1])
    return jnp.asarray(_rounded(equation, first, second, matmul_dtype), dtype)


def sum_of_outer_products(first: Float[Array, "N V"], second: Float[Array, "N D"]) -> Float[Array, "V D"]:
    """The sum over rows of first ⊗ second, in float32."""
    if first.dtype != jnp.float32:
        # Of a sum over two dimensions XLA on CPU turns narrow factors itself. That over one first dimension it takes
        # from float32 copies, three times as slow, or not at all ("Unsupported element type for DotThunk").
        return jnp.einsum("anv,and->vd", first[None], second[None], preferred_element_type=jnp.float32)
    return jnp.einsum("nv,nd->vd", first, second)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _rounded(equation: str, first: Array, second: Array, matmul_dtype: Any) -> Array:
    return _forward(equation, first, second, matmul_dtype)[0]


def _forward(equation: str, first: Array, second: Array, matmul_dtype: Any) -> tuple[Array, Any]:
    rounded = first.astype(matmul_dtype), second.astype(matmul_dtype)
    types = jnp.zeros((), first.dtype), jnp.zeros((), second.dtype)
    return jnp.einsum(equation, *rounded, preferred_element_type=jnp.float32), (rounded, types)


def _backward(equation: str, matmul_dtype: Any, residuals: Any, cotangent: Array) -> tuple[Array, Array]:
    (first, second), types = residuals
    factors, out = equation.split("->")
    left, right = factors.split(",")
    cotangent = cotangent.astype(matmul_dtype)
    d_first = jnp.einsum(f"{out},{right}->{left}", cotangent, second, preferred_element_type=jnp.float32)
    d_second = jnp.einsum(f"{left},{out}->{right}", first, cotangent, preferred_element_type=jnp.float32)
    return d_first.astype(types[0].dtype), d_second.astype(types[1].dtype)


_rounded.defvjp(_forward, _backward)
