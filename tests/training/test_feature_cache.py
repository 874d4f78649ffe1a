"""Feature caching: a compared batch in microbatches has the loss and the gradient of the whole batch."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.metrics import Mean
from research.objectives.pairs import Pairs
from research.training.sharding import MeshShape, make_layout
from research.types import CoupledObjective, Keys, Loss
from tests.small import LENGTH, VOCAB, small_objective
from tests.test_equivalence import assert_equal, loss_and_gradient

ROWS = 16


@dataclasses.dataclass(frozen=True)
class Learned(Pairs):
    """Pairs whose temperature is a parameter, so that the comparison has a gradient of its own."""

    def init(self, rng, batch):
        params = super().init(rng, batch)["params"]
        return {"params": {**params, "log_scale": jnp.float32(1.0)}}

    def vectors(self, variables, batch, **more):
        params = {name: value for name, value in variables["params"].items() if name != "log_scale"}
        return super().vectors({"params": params}, batch, **more)

    def compare(self, variables, features, batch, *, step, train) -> Loss:
        scale = jnp.exp(variables["params"]["log_scale"])
        logits = scale * features["first"] @ features["second"].T
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(ROWS))
        weights = 1.0 + batch["example_id"].astype(jnp.float32)
        return Loss(terms={"loss": (0.5, Mean(jnp.sum(losses * weights), jnp.sum(weights)))}, metrics={})


def draw() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    batch = {"example_id": np.arange(ROWS, dtype=np.uint32), "group": np.arange(ROWS, dtype=np.int32) // 2}
    for prefix in ("", "pair_"):
        real = np.arange(LENGTH) < rng.integers(3, LENGTH, ROWS)[:, None]
        batch[f"{prefix}tokens"] = np.where(real, rng.integers(5, VOCAB, real.shape), 0).astype(np.int32)
        batch[f"{prefix}segment_ids"] = real.astype(np.int32)
        batch[f"{prefix}positions"] = np.where(real, np.arange(LENGTH), 0).astype(np.int32)
    return batch


def objective_of(kind: str) -> Any:
    pairs = small_objective("pairs", token_dropout=0.3)
    if kind == "pairs":
        return pairs
    return Learned(**{field.name: getattr(pairs, field.name) for field in dataclasses.fields(pairs)})


@pytest.fixture(scope="module")
def whole():
    return loss_and_gradient(objective_of("pairs"), draw())


def test_cached_features_give_the_gradient_of_the_whole_batch(whole):
    assert_equal(whole, loss_and_gradient(objective_of("pairs"), draw(), accumulate=4))


@pytest.mark.slow
def test_cached_features_with_a_comparison_that_has_parameters():
    objective = objective_of("learned scale")
    assert_equal(loss_and_gradient(objective, draw()), loss_and_gradient(objective, draw(), accumulate=2))


@pytest.mark.slow
def test_cached_features_on_eight_devices_give_the_gradient_of_the_whole_batch(whole):
    assert len(jax.devices()) == 8
    assert_equal(whole, loss_and_gradient(objective_of("pairs"), draw(), accumulate=2, mesh=make_layout(MeshShape())))


@pytest.mark.slow
def test_microbatches_compared_by_themselves_would_differ(whole):
    """The reason for the cache: the mean of two halves' losses is another loss."""
    objective = objective_of("pairs")
    keys = Keys(noise=jax.random.key(0), dropout=jax.random.key(1))
    variables = objective.init(jax.random.key(0), jax.tree.map(jnp.asarray, draw()))

    def loss(batch):
        batch = jax.tree.map(jnp.asarray, batch)
        return float(objective.loss(variables, batch, rng=keys, step=jnp.int32(0), train=False).value())

    halves = [{key: values[part::2] for key, values in draw().items()} for part in (0, 1)]
    assert abs(np.mean([loss(half) for half in halves]) - loss(draw())) > 0.1


def test_which_objectives_compare_examples():
    assert isinstance(small_objective("pairs"), CoupledObjective)
    assert not isinstance(small_objective("classification"), CoupledObjective)
