"""SimCLR: the loss is NT-Xent of its own views, which depend on the example alone; batch statistics move; it learns."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.build import build
from research.models import HEADS, IMAGE_MODELS, join
from research.objectives import OBJECTIVES
from research.types import CoupledObjective, Keys
from tests.small import difference
from tests.test_equivalence import assert_equal, loss_and_gradient

ROWS = 8
AUGMENTATION = dict(name="none", flip_probability=0.5, pad=1, brightness=0.3)
NET = dict(name="resnet18", stem="cifar", depths=(1,), widths=(8,), stem_width=8, zero_init=False)


def objective(*, norm: str = "group", **changes: Any) -> Any:
    block = NET | dict(norm=norm) | (dict(num_groups=2) if norm == "group" else {})
    config = build(block, IMAGE_MODELS, kind="model", num_channels=1)
    head = build(dict(name="projection", embed_dim=6, hidden=8, norm=norm == "batch"), HEADS, kind="head")
    changes = dict(temperature=0.3, augmentation=AUGMENTATION) | changes
    return build(dict(name="simclr", **changes), OBJECTIVES, kind="objective", model=join(config, head))


def draw(rows: int = ROWS, seed: int = 0) -> dict[str, Any]:
    image = np.random.default_rng(seed).integers(0, 256, (rows, 6, 6, 1)).astype(np.uint8)
    return {"image": image, "example_id": np.arange(rows, dtype=np.uint32)}


def keys() -> Keys:
    return Keys(noise=jax.random.key(3), dropout=jax.random.key(4))


def started(found: Any, batch: Any) -> Any:
    return nn.meta.unbox(jax.jit(found.init)(jax.random.key(0), batch))


@pytest.fixture(scope="module")
def whole():
    return loss_and_gradient(objective(), draw())


def test_the_loss_is_nt_xent_of_the_views_in_float64():
    found, batch = objective(), jax.tree.map(jnp.asarray, draw())
    variables = started(found, batch)
    loss = found.loss(variables, batch, rng=keys(), step=jnp.int32(0), train=True)
    views = found.encode(variables, batch, rng=keys(), step=jnp.int32(0), train=True)
    first, second = (np.asarray(views[side], np.float64) for side in ("first", "second"))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, atol=1e-5)
    both = np.concatenate([first, second])
    logits = both @ both.T / 0.3
    np.fill_diagonal(logits, -np.inf)
    partner = (np.arange(2 * ROWS) + ROWS) % (2 * ROWS)
    wanted = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(2 * ROWS), partner])
    np.testing.assert_allclose(float(loss.value()), wanted, rtol=1e-5)
    hits = np.mean((first @ second.T).argmax(axis=1) == np.arange(ROWS))
    accuracy = loss.metrics["accuracy"]
    assert float(accuracy.total / accuracy.weight) == pytest.approx(hits)


def test_views_depend_on_the_example_alone():
    found = objective()
    views = jax.jit(lambda batch, noise: found.views(batch, noise)["image"])
    batch, noise = draw(), jax.random.key(3)
    whole = np.asarray(views(batch, noise))
    order = np.random.default_rng(1).permutation(ROWS)
    moved = np.asarray(views({key: values[order] for key, values in batch.items()}, noise))
    np.testing.assert_array_equal(moved, whole[:, order])
    assert np.abs(whole[0] - whole[1]).max() > 0.05  # two views, not one
    assert np.abs(whole - np.asarray(views(batch, jax.random.key(5)))).max() > 0.05


@pytest.mark.slow
def test_cached_features_give_the_gradient_of_the_whole_batch(whole):
    assert isinstance(objective(), CoupledObjective)
    assert_equal(whole, loss_and_gradient(objective(), draw(), accumulate=2))


@pytest.mark.slow
def test_batch_statistics_are_those_of_both_views_and_are_used_in_evaluation():
    found, batch = objective(norm="batch"), jax.tree.map(jnp.asarray, draw())
    variables = started(found, batch)
    loss = jax.jit(lambda variables: found.loss(variables, batch, rng=keys(), step=jnp.int32(0), train=True))
    state = loss(variables).model_state["batch_stats"]
    assert jax.tree.structure(state) == jax.tree.structure(variables["batch_stats"])
    moved = [
        difference(a, b) > 1e-4 for a, b in zip(*map(jax.tree.leaves, (state, variables["batch_stats"])), strict=True)
    ]
    assert all(moved)
    before = found.features(variables, batch).pooled
    after = found.features({**variables, "batch_stats": state}, batch).pooled
    assert difference(before, after) > 1e-3


@pytest.mark.slow
def test_rows_that_fill_the_last_batch_do_not_count():
    found, batch = objective(), jax.tree.map(jnp.asarray, draw())
    variables = started(found, batch)
    few = {key: values[:5] for key, values in batch.items()}
    padded = {**batch, "example_mask": jnp.arange(ROWS) < 5}
    losses = [found.loss(variables, each, rng=keys(), step=jnp.int32(0), train=False).value() for each in (few, padded)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="objective.temperature=0"):
        objective(temperature=0.0)
