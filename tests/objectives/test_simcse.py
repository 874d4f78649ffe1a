"""SimCSE: the loss is InfoNCE of two views that dropout makes; a model without any, or packed rows, are refused."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models import Model
from research.objectives.low_rank import LowRank
from research.objectives.simcse import SimCSE
from research.training.feature_cache import cached_gradients, check_accumulation
from research.types import CoupledObjective, Keys
from tests.small import LENGTH, VOCAB, difference, small_model, small_objective
from tests.test_equivalence import assert_equal, loss_and_gradient

ROWS = 6
KEYS = Keys(noise=jax.random.key(0), dropout=jax.random.key(1))
STEP: Any = dict(step=jnp.int32(0), train=True)


def objective(dropout: float = 0.2, **changes: Any) -> Any:
    return small_objective("simcse", model="bert", model_changes=dict(dropout=dropout, depth=1), **changes)


def draw(rows: int = ROWS) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    real = np.arange(LENGTH) < rng.integers(3, LENGTH, rows)[:, None]
    return {
        "tokens": np.where(real, rng.integers(5, VOCAB, real.shape), 0).astype(np.int32),
        "segment_ids": real.astype(np.int32),
        "positions": np.where(real, np.arange(LENGTH), 0).astype(np.int32),
        "example_id": np.arange(rows, dtype=np.uint32),
    }


@pytest.fixture(scope="module")
def made():
    found, batch = objective(temperature=0.2), jax.tree.map(jnp.asarray, draw())
    variables = nn.meta.unbox(jax.jit(found.init)(jax.random.key(4), batch))
    views = jax.jit(lambda: found.encode(variables, batch, rng=KEYS, **STEP))()
    return found, variables, batch, views


def test_the_loss_is_info_nce_of_two_views_in_float64(made):
    found, variables, batch, views = made
    first, second = (np.asarray(views[name], np.float64) for name in ("first", "second"))
    plain = np.asarray(jax.jit(found.outputs)(variables, batch)["vectors"], np.float64)
    for vectors in (first, second, plain):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert min(np.abs(first - second).max(), np.abs(first - plain).max()) > 1e-3  # two views, and the text without
    logits = first @ second.T / 0.2
    rows, columns = (np.log(np.exp(logits).sum(axis=axis)) for axis in (1, 0))
    loss, evaluated = (
        jax.jit(lambda train: found.loss(variables, batch, rng=KEYS, step=jnp.int32(0), train=train), static_argnums=0)(
            train
        )
        for train in (True, False)
    )
    np.testing.assert_allclose(loss.value(), np.mean((rows + columns) / 2 - np.diagonal(logits)), rtol=1e-5)
    hits = sum(np.argmax(row) == index for index, row in enumerate(logits))
    assert float(loss.metrics["accuracy"].total) == hits
    assert float(evaluated.value()) == float(loss.value())  # of the same kind


@pytest.mark.slow
def test_rows_that_fill_the_last_batch_do_not_count(made):
    found, variables, batch, views = made
    few = [{key: values[:4] for key, values in each.items()} for each in (views, batch)]
    padded = {**batch, "example_mask": jnp.arange(ROWS) < 4}
    losses = [found.compare(variables, *each, **STEP) for each in (few, (views, padded))]
    np.testing.assert_allclose(losses[0].value(), losses[1].value(), rtol=1e-5)
    accuracies = [loss.metrics["accuracy"] for loss in losses]
    assert accuracies[0] == accuracies[1] and float(accuracies[1].weight) == 4


@pytest.mark.slow
def test_cached_features_give_the_gradient_of_the_views_that_were_drawn(made):
    found, variables, batch, _ = made
    assert isinstance(found, CoupledObjective)

    def plain(params: Any) -> Any:
        parts = []
        for index in range(2):
            keys = Keys(noise=KEYS.noise, dropout=jax.random.fold_in(KEYS.dropout, index))
            part = {key: values[index::2] for key, values in batch.items()}
            parts.append(found.encode({"params": params}, part, rng=keys, **STEP))
        views = jax.tree.map(lambda *each: jnp.stack(each, axis=1).reshape(ROWS, -1), *parts)
        return found.compare({"params": params}, views, batch, **STEP).value()

    wanted = jax.jit(jax.value_and_grad(plain))(variables["params"])
    cached = jax.jit(lambda: cached_gradients(found, variables, batch, parts=2, rng=KEYS, step=jnp.int32(0)))()
    assert_equal(wanted, (cached[1], cached[0]))


@pytest.mark.slow
def test_hidden_tokens_make_views_of_a_model_without_dropout_alike_in_microbatches():
    found, batch = objective(dropout=0.0, token_dropout=0.4), draw()
    variables = jax.jit(found.init)(jax.random.key(4), batch)
    views = jax.jit(lambda: found.encode(variables, jax.tree.map(jnp.asarray, batch), rng=KEYS, **STEP))()
    assert difference(views["first"], views["second"]) > 1e-3
    assert_equal(loss_and_gradient(found, batch), loss_and_gradient(found, batch, accumulate=2))


def test_equal_views_and_packed_rows_are_refused():
    with pytest.raises(ValueError, match="model.dropout=0: both views of a text would be equal; set it to 0.1"):
        objective(dropout=0.0)
    with pytest.raises(ValueError, match="data.packing=alone"):
        SimCSE(model=small_model("bert", head="embedding", dropout=0.1), packed=True)
    with pytest.raises(ValueError, match="objective.temperature=0.0"):
        objective(temperature=0.0)
    with pytest.raises(ValueError, match="batch_size=1"):
        jax.eval_shape(objective().init, jax.random.key(0), draw(1))


def test_low_rank_updates_of_compared_texts_do_not_accumulate():
    """Microbatches would be compared by themselves: LoRA has no cached features."""
    adapted = LowRank(objective(), rank=1, alpha=1.0, targets=("query",))
    assert isinstance(adapted.model, Model)
    with pytest.raises(ValueError, match="accumulate=2 would change this objective"):
        check_accumulation(adapted, {"params": {}}, 2)
