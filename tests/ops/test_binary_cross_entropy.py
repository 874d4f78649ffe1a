"""Binary cross-entropy equals the plain formula in float64, values and gradients, at any logit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.binary_cross_entropy import binary_cross_entropy

LOGITS = np.array([[-1.3, 0.0, 2.1], [0.7, -3.0, 5.0]])
LABELS = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
WEIGHT = np.array([0.5, 7.0, 1.3])
BOTH = jnp.array([True, True])


def plain(logits, labels, *, smoothing=0.0, weight=1.0):
    share = 1.0 / (1.0 + np.exp(-logits))
    labels = labels * (1 - smoothing) + smoothing / 2
    return -weight * labels * np.log(share) - (1 - labels) * np.log(1 - share)


def slope(logits, labels, *, smoothing=0.0, weight=1.0):
    share = 1.0 / (1.0 + np.exp(-logits))
    labels = labels * (1 - smoothing) + smoothing / 2
    return -weight * labels * (1 - share) + (1 - labels) * share


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_values_and_gradients_are_those_of_float64(smoothing, weighted):
    weight = jnp.asarray(WEIGHT, jnp.float32) if weighted else None

    def total(logits):
        labels = jnp.asarray(LABELS, jnp.float32)
        losses = binary_cross_entropy(logits, labels, BOTH, label_smoothing=smoothing, positive_weight=weight)
        return losses.sum(), losses

    gradient, losses = jax.grad(total, has_aux=True)(jnp.asarray(LOGITS, jnp.float32))
    options = dict(smoothing=smoothing, weight=WEIGHT[None] if weighted else 1.0)
    np.testing.assert_allclose(losses, plain(LOGITS, LABELS, **options), rtol=2e-6)
    np.testing.assert_allclose(gradient, slope(LOGITS, LABELS, **options), rtol=2e-6, atol=1e-6)


def test_the_largest_logits_are_exact():
    logits, labels = jnp.array([[100.0, -100.0, 1e4]]), jnp.array([[0.0, 1.0, 1.0]])
    losses = binary_cross_entropy(logits, labels, jnp.array([True]))
    np.testing.assert_allclose(losses, [[100.0, 100.0, 0.0]], rtol=1e-6)


def test_a_row_that_does_not_count_has_no_loss_and_no_gradient_whatever_it_holds():
    logits = jnp.array([[0.3, -0.2], [jnp.nan, jnp.inf]])
    labels, where = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([True, False])
    gradient = jax.grad(lambda x: binary_cross_entropy(x, labels, where).sum())(logits)
    assert np.isfinite(gradient).all() and not gradient[1].any() and gradient[0].all()
    assert not binary_cross_entropy(logits, labels, where)[1].any()
