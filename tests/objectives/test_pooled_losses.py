"""Several labels and numbers: losses equal plain float64 formulas of the logits, and rows that fill do not count."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.objectives.pooled import pooled_logits
from research.types import Keys
from tests.small import packed_batch, small_objective

ROWS = 5


def full_batch():
    rng = np.random.default_rng(9)
    batch = packed_batch(rows=ROWS)
    batch["labels"] = (rng.random((ROWS, 3)) < 0.4).astype(np.float32)
    batch["value"] = (1000.0 + 70.0 * rng.normal(size=ROWS)).astype(np.float32)
    return {key: jnp.asarray(values) for key, values in batch.items()}


@pytest.fixture(scope="module")
def variables():
    made = nn.meta.unbox(small_objective("multi_label").init(jax.random.key(1), full_batch()))
    # A head that starts near zero would leave all rows alike.
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), made)


def mean(objective, variables, batch, *, train=False):
    keys = Keys(jax.random.key(2), jax.random.key(3))
    return objective.loss(variables, batch, rng=keys, step=jnp.zeros((), jnp.int32), train=train)


def value(objective, variables, batch, **options):
    pair = mean(objective, variables, batch, **options).terms["loss"][1]
    return float(pair.total / pair.weight)


def of_logits(objective, monkeypatch, logits, batch, *, train=False):
    """The loss, and its gradient, as a function of the head's logits alone."""
    module = type(objective).__module__

    def loss(logits):
        monkeypatch.setattr(f"{module}.pooled_logits", lambda *args, **options: (logits, {}))
        pair = mean(objective, {}, batch, train=train).terms["loss"][1]
        return pair.total / pair.weight

    return jax.value_and_grad(loss)(logits)


def plain_binary(logits, labels, weight):
    share = 1.0 / (1.0 + np.exp(-logits))
    losses = -weight * labels * np.log(share) - (1 - labels) * np.log(1 - share)
    return losses.mean(axis=1).mean(), (-weight * labels * (1 - share) + (1 - labels) * share) / logits.size


@pytest.mark.parametrize("balanced", [False, True])
def test_several_labels_are_the_mean_over_rows_of_the_mean_over_labels(variables, monkeypatch, balanced):
    options = dict(positive_weight="balanced", label_counts=(5, 2, 10), num_rows=11) if balanced else {}
    objective, batch = small_objective("multi_label"), full_batch()
    objective = dataclasses.replace(objective, **options)
    logits, _ = pooled_logits(objective.model, variables, batch)
    found, gradient = of_logits(objective, monkeypatch, logits, batch, train=True)
    weight = np.array([6 / 5, 9 / 2, 1 / 10]) if balanced else 1.0
    wanted = plain_binary(np.asarray(logits, np.float64), np.asarray(batch["labels"], np.float64), weight)
    assert float(found) == pytest.approx(wanted[0], rel=1e-5)
    np.testing.assert_allclose(gradient, wanted[1], rtol=1e-5, atol=1e-8)
    plain = plain_binary(np.asarray(logits, np.float64), np.asarray(batch["labels"], np.float64), 1.0)
    assert float(of_logits(objective, monkeypatch, logits, batch)[0]) == pytest.approx(plain[0], rel=1e-5)


def test_a_row_is_right_where_every_label_is(variables):
    objective, batch = small_objective("multi_label"), full_batch()
    scores = np.asarray(objective.outputs(variables, batch)["scores"])
    right = ((scores > 0.5) == (np.asarray(batch["labels"]) > 0)).all(axis=1).sum()
    assert float(mean(objective, variables, batch).metrics["accuracy"].total) == right
    told = batch | {"labels": jnp.asarray(scores > 0.5, jnp.float32)}
    assert float(mean(objective, variables, told).metrics["accuracy"].total) == ROWS


def test_balanced_weights_need_both_kinds_of_rows():
    objective = small_objective("multi_label")
    with pytest.raises(ValueError, match="a class is in every one of the 11 training rows"):
        dataclasses.replace(objective, positive_weight="balanced", label_counts=(5, 2, 11), num_rows=11)


def test_a_number_s_loss_is_the_squared_error_in_units_of_the_training_split(variables, monkeypatch):
    objective, batch = small_objective("regression", target_mean=990.0, target_scale=35.0), full_batch()
    logits, _ = pooled_logits(objective.model, variables, batch)
    found, gradient = of_logits(objective, monkeypatch, logits, batch)
    first = np.asarray(logits, np.float64)[:, 0]
    errors = first - (np.asarray(batch["value"], np.float64) - 990.0) / 35.0
    assert float(found) == pytest.approx((errors**2).mean(), rel=1e-5)
    np.testing.assert_allclose(gradient[:, 0], 2 * errors / ROWS, rtol=1e-5)
    assert not gradient[:, 1:].any()
    monkeypatch.undo()
    outputs = objective.outputs(variables, batch)["values"]
    np.testing.assert_allclose(outputs, 990.0 + 35.0 * first, rtol=1e-6)


@pytest.mark.parametrize("name", ["multi_label", "regression"])
def test_rows_that_fill_the_last_batch_do_not_count(variables, name):
    objective, batch = small_objective(name), full_batch()
    mask = jnp.arange(ROWS) < 2
    filler = {"labels": batch["labels"], "value": jnp.where(mask, batch["value"], jnp.nan)}
    padded = mean(objective, variables, batch | filler | {"example_mask": mask}).terms["loss"][1]
    half = mean(objective, variables, {key: values[:2] for key, values in batch.items()}).terms["loss"][1]
    assert float(padded.weight) == float(half.weight) == 2
    assert float(padded.total) == pytest.approx(float(half.total), rel=1e-6)


@pytest.mark.parametrize("name", ["multi_label", "regression"])
def test_tokens_are_hidden_in_training_only(variables, name):
    plain, hiding, batch = small_objective(name), small_objective(name, token_dropout=0.5), full_batch()
    assert value(hiding, variables, batch) == value(plain, variables, batch)
    assert value(hiding, variables, batch, train=True) != value(plain, variables, batch, train=True)
    with pytest.raises(ValueError, match="token_dropout=1.0"):
        small_objective(name, token_dropout=1.0)
