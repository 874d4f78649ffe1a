"""The CLIP loss against a plain loop in float64, values and gradients; padding and repeated texts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.contrastive import clip

SCALE = 7.0


def draw(size=5, width=3):
    rng = np.random.default_rng(3)
    sides = rng.normal(size=(2, size, width))
    return sides / np.linalg.norm(sides, axis=-1, keepdims=True)


def plain(first, second, *, counted, groups):
    """One loss a pair, by loops."""
    losses = np.zeros(len(first))
    for i in counted:
        rivals = [j for j in counted if j == i or groups[j] != groups[i]]
        rows = np.log(sum(np.exp(SCALE * first[i] @ second[j]) for j in rivals))
        columns = np.log(sum(np.exp(SCALE * first[j] @ second[i]) for j in rivals))
        losses[i] = 0.5 * (rows + columns) - SCALE * first[i] @ second[i]
    return losses


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4], [0, 1, 0, 3, 1]])
@pytest.mark.parametrize("counted", [[0, 1, 2, 3, 4], [0, 1, 2]])
def test_values_are_those_of_a_plain_loop(groups, counted):
    first, second = draw()
    where = jnp.isin(jnp.arange(5), jnp.array(counted))
    found = clip(
        jnp.asarray(first, jnp.float32),
        jnp.asarray(second, jnp.float32),
        scale=SCALE,
        where=where,
        groups=jnp.array(groups, jnp.int32),
    )
    np.testing.assert_allclose(found, plain(first, second, counted=counted, groups=groups), rtol=2e-6, atol=2e-6)


def test_gradients_are_those_of_finite_differences_in_float64():
    first, second = draw()
    counted, groups = [0, 1, 2], [0, 1, 0, 3, 1]
    where = jnp.isin(jnp.arange(5), jnp.array(counted))

    def total(first, second):
        return jnp.sum(clip(first, second, scale=SCALE, where=where, groups=jnp.array(groups, jnp.int32)))

    found = jax.grad(total, argnums=(0, 1))(jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32))
    for side, gradient in enumerate(found):
        wanted = np.zeros_like(first)
        for index in np.ndindex(*first.shape):
            moved = []
            for step in (1e-6, -1e-6):
                sides = [first.copy(), second.copy()]
                sides[side][index] += step
                moved.append(plain(*sides, counted=counted, groups=groups).sum())
            wanted[index] = (moved[0] - moved[1]) / 2e-6
        np.testing.assert_allclose(gradient, wanted, atol=3e-5)


def test_rows_that_pad_have_neither_loss_nor_gradient():
    first, second = (jnp.asarray(side, jnp.float32) for side in draw())
    where = jnp.array([True, True, True, False, False])
    spoilt = second.at[3:].set(1e6)
    losses = [clip(first, side, scale=SCALE, where=where) for side in (second, spoilt)]
    np.testing.assert_array_equal(*losses)
    gradient = jax.grad(lambda side: jnp.sum(clip(first, side, scale=SCALE, where=where)))(spoilt)
    assert np.isfinite(gradient).all() and not np.any(gradient[3:])
