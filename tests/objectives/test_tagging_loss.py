"""Tagging: the loss counts tagged positions alone, and equals a plain float64 sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.types import Keys
from tests.small import packed_batch, small_objective


def tagged_batch():
    batch = packed_batch(rows=4)
    rng = np.random.default_rng(9)
    tags = rng.integers(0, 3, batch["tokens"].shape).astype(np.int32)
    hidden = (rng.random(tags.shape) < 0.4) | (batch["segment_ids"] == 0)
    return {key: jnp.asarray(value) for key, value in (batch | {"tags": np.where(hidden, -1, tags)}).items()}


@pytest.fixture(scope="module")
def made():
    objective, batch = small_objective("tagging"), tagged_batch()
    variables = objective.init(jax.random.key(1), batch)
    return objective, batch, jax.tree.map(lambda leaf: leaf.value if hasattr(leaf, "value") else leaf, variables)


def loss(objective, variables, batch, *, train=False):
    keys = Keys(jax.random.key(2), jax.random.key(3))
    return objective.loss(variables, batch, rng=keys, step=jnp.zeros((), jnp.int32), train=train)


def test_the_loss_is_the_mean_over_tagged_words(made):
    objective, batch, variables = made
    found = loss(objective, variables, batch)
    logits = np.asarray(objective.logits(variables, batch), np.float64)
    tags = np.asarray(batch["tags"])
    shifted = logits - logits.max(axis=-1, keepdims=True)
    nats = (
        np.log(np.exp(shifted).sum(axis=-1)) - np.take_along_axis(shifted, np.maximum(tags, 0)[..., None], -1)[..., 0]
    )
    _, mean = found.terms["loss"]
    assert float(mean.weight) == (tags >= 0).sum()
    assert float(mean.total) == pytest.approx(nats[tags >= 0].sum(), rel=1e-5)
    right = (logits.argmax(axis=-1) == tags)[tags >= 0].sum()
    assert float(found.metrics["accuracy"].total) == right


def test_rows_that_fill_the_last_batch_do_not_count(made):
    objective, batch, variables = made
    mask = jnp.array([True, True, False, False])
    padded = loss(objective, variables, batch | {"example_mask": mask}).terms["loss"][1]
    half = loss(objective, variables, {key: value[:2] for key, value in batch.items()}).terms["loss"][1]
    assert float(padded.total) == pytest.approx(float(half.total), rel=1e-6)
    assert float(padded.weight) == float(half.weight)


def test_token_dropout_hides_tokens_in_training_only(made):
    objective, batch, variables = made
    noisy = small_objective("tagging", token_dropout=0.5)
    assert float(loss(noisy, variables, batch).terms["loss"][1].total) == pytest.approx(
        float(loss(objective, variables, batch).terms["loss"][1].total)
    )
    assert float(loss(noisy, variables, batch, train=True).terms["loss"][1].total) != pytest.approx(
        float(loss(objective, variables, batch, train=True).terms["loss"][1].total), rel=1e-4
    )
