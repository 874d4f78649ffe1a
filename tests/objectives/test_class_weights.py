"""Class weights: values and gradients against a plain float64 reference, and what they do to no other loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.objectives.text import labels_loss, weigh_classes

WEIGHTS = (0.5, 2.0, 1.25)


def draw():
    rng = np.random.default_rng(5)
    return rng.normal(size=(7, 3)), rng.integers(0, 3, 7), np.array([True] * 5 + [False] * 2)


def plain(logits, labels, where):
    """Mean over weights, and its gradient, in float64."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    each = np.array(WEIGHTS)[labels] * where
    value = -(each * np.log(probabilities[np.arange(7), labels])).sum() / each.sum()
    return value, (probabilities - np.eye(3)[labels]) * each[:, None] / each.sum()


def test_weighted_loss_and_gradient_are_those_of_a_plain_reference():
    logits, labels, where = draw()

    def loss(logits):
        _, mean = labels_loss(logits, jnp.asarray(labels), jnp.asarray(where), weights=WEIGHTS).terms["loss"]
        return mean.total / mean.weight

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(logits, jnp.float32))
    wanted, wanted_gradient = plain(logits, labels, where)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    np.testing.assert_allclose(gradient, wanted_gradient, atol=1e-7)


def test_equal_weights_change_nothing():
    logits, labels, where = (jnp.asarray(part) for part in draw())
    means = [labels_loss(logits, labels, where, weights=weights).terms["loss"][1] for weights in ((), (2.0, 2.0, 2.0))]
    np.testing.assert_allclose(means[0].total / means[0].weight, means[1].total / means[1].weight, rtol=1e-6)


def test_balanced_classes_weigh_the_same():
    counts = (2, 10, 3)
    weights = weigh_classes("balanced", counts, 3)
    assert [count * weight for count, weight in zip(counts, weights, strict=True)] == pytest.approx([5.0] * 3)


@pytest.mark.parametrize("wanted", [(1.0,), (1.0, 0.0, 2.0)])
def test_weights_that_fit_no_classes_are_refused(wanted):
    with pytest.raises(ValueError, match="wanted a positive number for each of 3 classes, or balanced"):
        weigh_classes(wanted, (1, 1, 1), 3)
