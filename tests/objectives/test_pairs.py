"""Pairs: the loss is the batch's own InfoNCE, padding does not count, and training brings counterparts together."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.types import Keys
from tests.small import LENGTH, VOCAB, small_objective

KEYS = Keys(noise=jax.random.key(0), dropout=jax.random.key(1))


def draw(rows=7, seed=0):
    rng = np.random.default_rng(seed)
    batch = {"example_id": jnp.arange(rows, dtype=jnp.uint32), "group": jnp.arange(rows, dtype=jnp.int32)}
    for prefix in ("", "pair_"):
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
