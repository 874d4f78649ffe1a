"""Pairs: the loss is the batch's own InfoNCE, padding does not count, and training brings counterparts together."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.types import Keys
from tests.small import LENGTH, VOCAB, small_objective
from tests.test_equivalence import assert_equal, loss_and_gradient

KEYS = Keys(noise=jax.random.key(0), dropout=jax.random.key(1))


def draw(rows=7, seed=0, prefixes=("", "pair_")):
    rng = np.random.default_rng(seed)
    batch = {"example_id": jnp.arange(rows, dtype=jnp.uint32), "group": jnp.arange(rows, dtype=jnp.int32)}
    for prefix in prefixes:
        real = np.arange(LENGTH) < rng.integers(3, LENGTH, rows)[:, None]
        batch[f"{prefix}tokens"] = jnp.asarray(np.where(real, rng.integers(5, VOCAB, real.shape), 0), jnp.int32)
        batch[f"{prefix}segment_ids"] = jnp.asarray(real, jnp.int32)
        batch[f"{prefix}positions"] = jnp.asarray(np.where(real, np.arange(LENGTH), 0), jnp.int32)
    return batch


@pytest.fixture(scope="module")
def made():
    objective, batch = small_objective("pairs", temperature=0.2), draw()
    return objective, objective.init(jax.random.key(4), batch), batch


def loss(objective, variables, batch):
    found = objective.loss(variables, batch, rng=KEYS, step=jnp.int32(0), train=False)
    mean = found.terms["loss"][1]
    return mean.total / mean.weight, found.metrics["accuracy"]


def test_the_loss_is_that_of_the_vectors_in_float64(made):
    objective, variables, batch = made
    found = objective.outputs(variables, batch)
    first, second = (np.asarray(found[name], np.float64) for name in ("first", "second"))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, atol=1e-6)
    logits = first @ second.T / 0.2
    rows, columns = (np.log(np.exp(logits).sum(axis=axis)) for axis in (1, 0))
    wanted = np.mean((rows + columns) / 2 - np.diagonal(logits))
    np.testing.assert_allclose(loss(objective, variables, batch)[0], wanted, rtol=1e-5)
    hits = loss(objective, variables, batch)[1]
    assert float(hits.total) == sum(np.argmax(row) == index for index, row in enumerate(logits))


# Row 1 has no negative; the negative of row 3 is the counterpart of row 5.
NEGATIVE_GROUPS = np.array([7, -1, 8, 5, 9, 7, 10])


def loss_with_negatives(first, second, negative, where, scale=5.0):
    """In float64, by loops."""
    total = 0.0
    for row in np.flatnonzero(where):
        others = [scale * first[row] @ second[column] for column in np.flatnonzero(where)]
        more = [
            scale * first[row] @ negative[column]
            for column in np.flatnonzero(where)
            if NEGATIVE_GROUPS[column] >= 0 and NEGATIVE_GROUPS[column] != row
        ]
        back = [scale * first[column] @ second[row] for column in np.flatnonzero(where)]
        own = scale * first[row] @ second[row]
        total += (np.log(np.exp([*others, *more]).sum()) + np.log(np.exp(back).sum())) / 2 - own
    return total / where.sum()


def test_hard_negatives_are_candidates_and_ask_for_nothing():
    objective = small_objective("pairs", temperature=0.2)
    batch = draw(prefixes=("", "pair_", "negative_")) | {"negative_group": jnp.asarray(NEGATIVE_GROUPS, jnp.int32)}
    where = np.arange(7) < 6
    batch["example_mask"] = jnp.asarray(where)
    rng = np.random.default_rng(1)
    sides = {name: rng.normal(size=(7, 5)) for name in ("first", "second", "negative")}
    sides["second"] = sides["first"] + 0.5 * sides["second"]
    sides["negative"][2] = sides["first"][2]  # nearer than the counterpart
    sides = {name: side / np.linalg.norm(side, axis=1, keepdims=True) for name, side in sides.items()}

    def value(features):
        found = objective.compare({}, features, batch, step=jnp.int32(0), train=True)
        return found.value(), found.metrics["accuracy"]

    given = {name: jnp.asarray(side, jnp.float32) for name, side in sides.items()}
    (found, accuracy), gradients = jax.value_and_grad(value, has_aux=True)(given)
    np.testing.assert_allclose(found, loss_with_negatives(**sides, where=where), rtol=1e-5)
    for name, side in sides.items():
        wanted = np.zeros_like(side)
        for place in np.ndindex(side.shape):
            change = np.zeros_like(side)
            change[place] = 1e-5
            ends = [loss_with_negatives(**(sides | {name: side + sign * change}), where=where) for sign in (1, -1)]
            wanted[place] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(gradients[name], wanted, atol=1e-5 * np.abs(wanted).max())
    assert not np.asarray(gradients["negative"])[[1, 6]].any()  # none, and a row that does not count
    near = sides["first"] @ np.concatenate([sides["second"][:6], sides["negative"][[0, 2, 3, 4, 5]]]).T
    near[5, 8] = -np.inf  # the negative of row 3, which is its own counterpart
    hits = [np.argmax(near[row]) == row for row in range(6)]
    assert float(accuracy.total) == sum(hits) < sum(np.argmax(near[row, :6]) == row for row in range(6))


@pytest.mark.slow
def test_negatives_pass_the_model_and_cached_features_keep_the_loss():
    objective = small_objective("pairs", temperature=0.2, token_dropout=0.3)
    batch = draw(rows=8, prefixes=("", "pair_", "negative_"))
    batch |= {"negative_group": jnp.asarray([8, -1, 9, 5, 10, 8, 11, 12], jnp.int32)}
    assert_equal(loss_and_gradient(objective, batch), loss_and_gradient(objective, batch, accumulate=2))
    without = {key: values for key, values in batch.items() if not key.startswith("negative_")}
    variables = objective.init(jax.random.key(4), batch)
    assert float(loss(objective, variables, batch)[0]) > float(loss(objective, variables, without)[0])
    assert objective.outputs(variables, batch).keys() == {"first", "second"}


def test_rows_that_fill_the_last_batch_do_not_count(made):
    objective, variables, batch = made
    mask = jnp.arange(7) < 4
    whole = {key: values[:4] for key, values in batch.items()}
    padded = loss(objective, variables, {**batch, "example_mask": mask})
    np.testing.assert_allclose(padded[0], loss(objective, variables, whole)[0], rtol=1e-5)
    assert float(padded[1].weight) == 4


def test_training_brings_counterparts_together(made):
    objective, variables, batch = made
    transform = optax.adam(0.03)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(lambda params: loss(objective, {"params": params}, batch)[0])(params)
        updates, state = transform.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    params, before = variables["params"], float(loss(objective, variables, batch)[0])
    state = transform.init(params)
    for _ in range(60):
        params, state, value = step(params, state)
    assert value < 0.3 * before


def test_a_temperature_of_nothing_is_refused():
    with pytest.raises(ValueError, match="objective.temperature=0.0: wanted a number above 0"):
        small_objective("pairs", temperature=0.0)
