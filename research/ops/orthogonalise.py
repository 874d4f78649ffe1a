"""Matrices brought near to orthogonal ones by products alone, as Muon wants its updates."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float

from research.ops.product import product

# Quintic coefficients of Jordan et al. 2024 (Muon): five steps bring singular values to about 0.7 … 1.2.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(
    matrices: Float[Array, "layers M N"], *, num_iterations: int, matmul_dtype: str = ""
) -> Float[Array, "layers M N"]:
    """U Vᵀ of each matrix U S Vᵀ, nearly, by Newton-Schulz iterations: X ← aX + (b XXᵀ + c (XXᵀ)²) X.

    The factors of its products are rounded to `matmul_dtype` where it is named (Jordan et al. 2024 take bfloat16, in
    which the iterations stay stable), with float32 sums.
    """
    a, b, c = _NEWTON_SCHULZ
    times = functools.partial(product, dtype=matrices.dtype, matmul_dtype=matmul_dtype)
    tall = matrices.shape[1] > matrices.shape[2]
    norms = jnp.sqrt(jnp.sum(jnp.square(matrices), axis=(1, 2), keepdims=True))
    matrices = matrices / (norms + 1e-7)
    for _ in range(num_iterations):
        # The Gram matrix of the shorter side; tall matrices are not transposed, which would copy them.
        gram = times("lmn,lmk->lnk" if tall else "lmn,lkn->lmk", matrices, matrices)
        polynomial = b * gram + c * times("lmn,lnk->lmk", gram, gram)
        factors = (matrices, polynomial) if tall else (polynomial, matrices)
        matrices = a * matrices + times("lmn,lnk->lmk", *factors)
    return matrices
