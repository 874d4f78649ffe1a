"""Contrastive losses against plain loops in float64, values and gradients; padding and repeated texts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.contrastive import clip, nt_xent, siglip

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


def plain_nt_xent(first, second, *, counted, temperature):
    """Chen et al. 2020, equation 1 and algorithm 1: the mean over the two views of an example, by loops."""
    views = np.concatenate([first, second])
    size = len(first)
    losses = np.zeros(size)
    for i in (row + side for row in counted for side in (0, size)):
        others = [k + side for k in counted for side in (0, size) if k + side != i]
        total = sum(np.exp(views[i] @ views[k] / temperature) for k in others)
        losses[i % size] += 0.5 * (np.log(total) - views[i] @ views[(i + size) % (2 * size)] / temperature)
    return losses


def plain_siglip(first, second, *, counted, scale, bias):
    """Zhai et al. 2023, algorithm 1, before the mean over images: the sum over an image's texts, by loops."""
    losses = np.zeros(len(first))
    for i in counted:
        for j in counted:
            sign = 1.0 if i == j else -1.0
            losses[i] += np.log(1.0 + np.exp(-sign * (scale * first[i] @ second[j] + bias)))
    return losses


@pytest.mark.parametrize("counted", [[0, 1, 2, 3, 4], [0, 2, 3], []])
@pytest.mark.parametrize(
    ("loss", "reference", "scalars"),
    [(nt_xent, plain_nt_xent, dict(temperature=0.3)), (siglip, plain_siglip, dict(scale=SCALE, bias=-2.0))],
)
def test_values_and_gradients_are_those_of_loops_in_float64(loss, reference, scalars, counted):
    """Relative to the largest: 1e-6 for values, 1e-5 for gradients, those of scale, bias and temperature too."""
    first, second = draw()
    weights = np.random.default_rng(5).normal(size=5)  # each loss pulls differently
    exact = dict(first=first, second=second) | {name: np.array(value) for name, value in scalars.items()}
    where = jnp.isin(jnp.arange(5), jnp.array(counted, jnp.int32))

    def traced(arrays):
        losses = loss(arrays.pop("first"), arrays.pop("second"), where=where, **arrays)
        return jnp.sum(jnp.asarray(weights, jnp.float32) * losses), losses

    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in exact.items()}
    found, losses = jax.jit(jax.grad(lambda arrays: traced(dict(arrays)), has_aux=True))(arrays)
    wanted = reference(**exact, counted=counted)
    np.testing.assert_allclose(losses, wanted, rtol=0, atol=1e-6 * np.max(np.abs(wanted)))
    for name, value in exact.items():
        wanted = np.zeros_like(value)
        for index in np.ndindex(*value.shape):
            moved = []
            for step in (1e-6, -1e-6):
                changed = value.copy()
                changed[index] += step
                moved.append(weights @ reference(**{**exact, name: changed}, counted=counted))
            wanted[index] = (moved[0] - moved[1]) / 2e-6
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-5 * np.max(np.abs(wanted)), err_msg=name)


@pytest.mark.parametrize(
    ("loss", "scalars"),
    [(nt_xent, dict(temperature=0.3)), (clip, dict(scale=SCALE)), (siglip, dict(scale=7, bias=-2.0))],
)
def test_nan_in_rows_that_do_not_count_reaches_nothing(loss, scalars):
    first, second = (jnp.asarray(side, jnp.float32) for side in draw())
    where = jnp.array([True, False, True, True, False])

    @jax.jit
    @jax.grad
    def gradients(arrays):
        return jnp.sum(loss(*arrays["sides"], where=where, **arrays["scalars"]))

    scalars = {name: jnp.float32(value) for name, value in scalars.items()}
    spoilt = [jnp.where(where[:, None], side, jnp.nan) for side in (first, second)]
    found, wanted = (gradients(dict(sides=sides, scalars=scalars)) for sides in (spoilt, [first, second]))
    for side in found["sides"]:
        np.testing.assert_array_equal(side[~where], 0.0)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
