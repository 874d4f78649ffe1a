"""Newton-Schulz iterations against the singular value decomposition, and against themselves in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.orthogonalise import orthogonalise
from tests.small import difference

SHAPES = [(3, 31, 31), (3, 31, 127), (3, 127, 31)]


def drawn(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("matmul_dtype", "tolerance"), [("", 2e-3), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalised_matrices_have_singular_values_near_one(shape, matmul_dtype, tolerance):
    matrices = drawn(shape)
    result = np.asarray(orthogonalise(jnp.asarray(matrices), num_iterations=5, matmul_dtype=matmul_dtype))
    for before, after in zip(matrices, result, strict=True):
        singular = np.linalg.svd(after, compute_uv=False)
        left, known, right = np.linalg.svd(before.astype(np.float64), full_matrices=False)
        well_conditioned = known > 0.02 * known.max()
        assert singular.max() < 1.25 and singular[well_conditioned].min() > 0.6
        # The singular vectors stay: the result is symmetric positive in their basis.
        core = left.T @ after @ right.T
        np.testing.assert_allclose(core, np.diag(np.diag(core)), rtol=0, atol=tolerance)
        assert np.all(np.diag(core)[well_conditioned] > 0.6)


def to_bfloat16(array):
    return np.asarray(jnp.asarray(array, jnp.float32).astype(jnp.bfloat16).astype(jnp.float32), np.float64)


def by_hand(matrix, num_iterations, rounded):
    """The iterations in float64, of factors that `rounded` rounds."""
    a, b, c = 3.4445, -4.7750, 2.0315
    matrix = np.float64(matrix) / np.linalg.norm(matrix)
    for _ in range(num_iterations):
        factor = rounded(matrix)
        tall = matrix.shape[0] > matrix.shape[1]
        gram = factor.T @ factor if tall else factor @ factor.T
        polynomial = rounded(b * gram + c * rounded(gram) @ rounded(gram))
        matrix = a * matrix + (factor @ polynomial if tall else polynomial @ factor)
    return matrix


# One iteration where factors are rounded: of the next a sum that lies between two bfloat16 may round either way.
@pytest.mark.parametrize(
    ("matmul_dtype", "rounded", "num_iterations", "tolerance"),
    [("", np.float64, 5, 1e-5), ("bfloat16", to_bfloat16, 1, 1e-6)],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_iterations_are_those_of_the_paper_with_exact_and_with_rounded_factors(
    shape, matmul_dtype, rounded, num_iterations, tolerance
):
    matrices = drawn(shape)
    found = orthogonalise(jnp.asarray(matrices), num_iterations=num_iterations, matmul_dtype=matmul_dtype)
    wanted, exact = (
        np.stack([by_hand(matrix, num_iterations, factor) for matrix in matrices]) for factor in (rounded, np.float64)
    )
    assert difference(wanted, found) < tolerance
    if matmul_dtype:
        assert difference(exact, found) > 2e-4
