"""MoCo: the loss is InfoNCE against the queue, which holds the last keys; the teacher follows; nothing leaks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.build import build
from research.models import HEADS, IMAGE_MODELS, join
from research.objectives import OBJECTIVES
from research.objectives.low_rank import LowRank
from research.training.feature_cache import check_accumulation
from research.training.sharding import MeshShape, make_layout
from research.training.state import TrainState, abstract_state, init_state, shardings_of
from research.training.step import make_train_step, step_keys
from research.types import CoupledObjective, FollowedObjective, Keys
from tests.small import difference
from tests.test_equivalence import assert_equal, initial_state, loss_and_gradient

ROWS, QUEUE = 8, 24
SEED, RATE, MOMENTUM = 3, 0.1, 0.7


def objective(*, norm: bool = False, param_dtype: str = "float32", **changes: Any) -> Any:
    config = build(
        dict(name="mlp", width=5, depth=1, param_dtype=param_dtype), IMAGE_MODELS, kind="model", num_channels=1
    )
    block = dict(name="projection", embed_dim=6, hidden=7, norm=norm, param_dtype=param_dtype)
    augmentation = dict(name="none", flip_probability=0.5, brightness=0.3)
    changes = dict(temperature=0.3, momentum=MOMENTUM, queue_size=QUEUE, augmentation=augmentation) | changes
    model = join(config, build(block, HEADS, kind="head"))
    return build(dict(name="moco", **changes), OBJECTIVES, kind="objective", model=model)


def draw(step: int = 0, rows: int = ROWS) -> dict[str, Any]:
    image = np.random.default_rng(step).integers(0, 256, (rows, 3, 3, 1)).astype(np.uint8)
    return {"image": image, "example_id": np.arange(rows, dtype=np.uint32) + step * rows}


def placed(batch: Any) -> Any:
    return jax.tree.map(jnp.asarray, batch)


def started(found: Any, batch: Any) -> Any:
    return nn.meta.unbox(jax.jit(found.init)(jax.random.key(0), batch))


def keys_of(step: Any) -> Keys:
    noise, dropout = step_keys(SEED, jnp.int32(step))
    return Keys(noise=noise, dropout=jax.random.fold_in(dropout, 0))


def trained(found: Any, steps: int, *, accumulate: int = 1) -> list[TrainState]:
    """The states before the first step and after each."""
    transform = optax.sgd(RATE)
    step = jax.jit(make_train_step(found, transform, seed=SEED, accumulate=accumulate))
    states = [initial_state(found, draw(), transform)]
    for index in range(steps):
        states.append(step(states[-1], draw(index))[0])
    return states


@pytest.fixture(scope="module")
def normed():
    """Four steps with batch norm: one more than the queue has room for."""
    return objective(norm=True), trained(objective(norm=True), 4)


def test_the_loss_is_info_nce_against_the_queue_in_float64():
    found, batch = objective(), placed(draw())
    variables = started(found, batch)
    variables["queue"]["vectors"] = variables["queue"]["vectors"].at[0].set(0.5)  # a rival that some queries prefer
    rivals = variables["queue"]["vectors"]
    call: Any = dict(rng=keys_of(0), step=jnp.int32(0), train=True)

    @jax.jit
    def measured(params: Any) -> Any:
        sides = found.encode(variables, batch, **call)

        def own(params: Any) -> Any:
            loss = found.loss({**variables, "params": params}, batch, **call)
            return loss.value(), loss.metrics["accuracy"]

        def of_fixed_keys(params: Any) -> Any:
            query = found.encode({**variables, "params": params}, batch, **call)["query"]
            logits = jnp.concatenate([jnp.sum(query * sides["key"], axis=1)[:, None], query @ rivals.T], axis=1) / 0.3
            return jnp.mean(jax.nn.logsumexp(logits, axis=1) - logits[:, 0])

        return sides, jax.value_and_grad(own, has_aux=True)(params), jax.grad(of_fixed_keys)(params)

    sides, ((value, accuracy), grads), wanted = measured(variables["params"])
    assert difference(wanted, grads) < 1e-5
    query, key, queue = (np.asarray(each, np.float64) for each in (sides["query"], sides["key"], rivals))
    for vectors in (query, key, queue[1:]):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert difference(query, key) > 1e-3  # two views
    own, others = (query * key).sum(axis=1), query @ queue.T
    logits = np.concatenate([own[:, None], others], axis=1) / 0.3
    wanted = np.mean(np.log(np.exp(logits).sum(axis=1)) - own / 0.3)
    np.testing.assert_allclose(float(value), wanted, rtol=1e-5)
    assert float(accuracy.total) == np.sum(own > others.max(axis=1))
    assert float(accuracy.weight) == ROWS


def test_steps_are_those_of_a_plain_loop(normed):
    """Queue, teacher, parameters and batch statistics, kept by numpy from gradients and keys alone."""
    found, states = normed

    @jax.jit
    def parts(variables: Any, batch: Any, step: Any) -> Any:
        call: Any = dict(rng=keys_of(step), step=step, train=True)

        def scalar(params: Any) -> Any:
            loss = found.loss({**variables, "params": params}, batch, **call)
            return loss.value(), loss.model_state

        grads, state = jax.grad(scalar, has_aux=True)(variables["params"])
        keys = found.encode(variables, batch, **call)["key"]
        return grads, keys, state["batch_stats"], state["teacher"]["batch_stats"]

    variables, keys = states[0].variables, []
    for step in range(4):
        grads, fresh, statistics, of_teacher = parts(variables, draw(step), jnp.int32(step))
        keys = [*keys, np.asarray(fresh)]
        params = jax.tree.map(lambda old, grad: old - RATE * grad, variables["params"], grads)
        average = variables["teacher"]["params"]
        average = jax.tree.map(lambda old, new: MOMENTUM * old + (1.0 - MOMENTUM) * new, average, params)
        vectors = np.array(variables["queue"]["vectors"])
        start = step * ROWS % QUEUE
        vectors[start : start + ROWS] = fresh
        queue = {"vectors": jnp.asarray(vectors), "cursor": jnp.int32((start + ROWS) % QUEUE)}
        teacher = {"params": average, "batch_stats": of_teacher}
        variables = {"params": params, "batch_stats": statistics, "teacher": teacher, "queue": queue}
        assert difference(variables, dict(states[step + 1].variables)) < 1e-5
    for count, order in ((3, (0, 1, 2)), (4, (3, 1, 2))):  # the fourth batch takes the place of the first
        held = states[count].variables["queue"]["vectors"]
        np.testing.assert_allclose(held, np.concatenate([keys[index] for index in order]), atol=1e-5)


def test_the_teacher_is_the_average_of_the_parameters_after_each_step(normed):
    _, states = normed
    average = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), states[0].variables["params"])
    for state in states[1:]:
        params, teacher = state.variables["params"], state.variables["teacher"]
        average = jax.tree.map(lambda old, new: MOMENTUM * old + (1.0 - MOMENTUM) * np.asarray(new), average, params)
        assert difference(average, teacher["params"]) < 1e-6
    assert difference(teacher["params"], params) > 1e-3
    statistics = [state.variables["teacher"]["batch_stats"] for state in states[:2]]
    assert difference(*statistics) > 1e-3
    assert difference(statistics[1], states[1].variables["batch_stats"]) > 1e-4  # of other views


def test_a_bad_step_leaves_queue_and_teacher_as_they_were():
    found, transform = objective(), optax.sgd(RATE)
    state = initial_state(found, draw(), transform)
    bias = state.variables["params"]["head"]["linear2"]["bias"]
    state.variables["params"]["head"]["linear2"]["bias"] = bias.at[0].set(jnp.nan)
    after, _ = jax.jit(make_train_step(found, transform, seed=SEED))(state, draw())
    assert int(after.first_bad_step) == 0
    pairs = zip(jax.tree.leaves(state.variables), jax.tree.leaves(after.variables), strict=True)
    assert all(np.array_equal(before, now, equal_nan=True) for before, now in pairs)


@pytest.mark.slow
def test_microbatches_give_the_gradient_and_the_queue_of_the_whole_batch():
    found = objective()
    assert isinstance(found, CoupledObjective) and isinstance(found, FollowedObjective)
    whole, cut = (trained(found, 1, accumulate=parts) for parts in (1, 2))
    assert difference(dict(whole[1].variables), dict(cut[1].variables)) < 1e-5
    steps = [jax.tree.map(jnp.subtract, *(each.variables["params"] for each in states)) for states in (whole, cut)]
    assert difference(*steps) < 1e-4  # the gradient, less the digits that subtracting the parameters costs
    with pytest.raises(ValueError, match="batch norm's statistics"):
        check_accumulation(objective(norm=True), {"batch_stats": {}}, 2)


@pytest.mark.slow
def test_eight_devices_equal_one_and_keep_the_queue_whole():
    found, mesh = objective(norm=True), make_layout(MeshShape())
    assert_equal(loss_and_gradient(found, draw()), loss_and_gradient(found, draw(), mesh=mesh))  # batch norm's too
    places = shardings_of(abstract_state(found, optax.sgd(RATE), placed(draw()), mesh, ema=False)).variables
    assert places["teacher"]["params"] == places["params"]
    assert all(place.is_fully_replicated for place in jax.tree.leaves(places["queue"]))


@pytest.mark.slow
def test_a_teacher_starts_as_the_model_that_was_given_in_float32():
    found, transform, mesh = (
        objective(norm=True, param_dtype="bfloat16"),
        optax.sgd(RATE),
        make_layout(MeshShape(devices=1)),
    )
    abstract = abstract_state(found, transform, placed(draw()), mesh, ema=False)
    given = {
        "params": {
            "backbone": jax.tree.map(
                lambda leaf: jnp.full(leaf.shape, 0.25, leaf.dtype), abstract.variables["params"]["backbone"]
            )
        }
    }
    state = init_state(found, transform, draw(), seed=0, shardings=shardings_of(abstract), given=given)
    params, teacher = state.variables["params"], state.variables["teacher"]["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(teacher)} == {jnp.dtype("float32")}
    assert difference(params, teacher) == 0.0
    assert float(teacher["backbone"]["linear1"]["kernel"][0, 0]) == 0.25
    after = jax.jit(make_train_step(found, transform, seed=SEED), donate_argnums=0)(state, draw())[0]
    assert difference(after.variables["params"], after.variables["teacher"]["params"]) > 0.0


def test_rows_that_fill_the_last_batch_do_not_count():
    found, batch = objective(), placed(draw())
    vectors = np.random.default_rng(0).normal(size=(2 * ROWS + QUEUE, 6)).astype(np.float32)
    query, key, queue = np.split(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), [ROWS, 2 * ROWS])
    sides, state = (
        {"query": query, "key": key.copy()},
        {"queue": {"vectors": jnp.asarray(queue), "cursor": jnp.int32(0)}},
    )
    few = [{name: values[:5] for name, values in each.items()} for each in (sides, batch)]
    sides["query"][6], sides["key"][7] = np.nan, np.nan
    padded = (sides, {**batch, "example_mask": jnp.arange(ROWS) < 5})
    compare = jax.jit(lambda sides, batch: found.compare(state, sides, batch, step=jnp.int32(0), train=False))
    losses = [compare(*map(placed, each)) for each in (few, padded)]
    np.testing.assert_allclose(losses[0].value(), losses[1].value(), rtol=1e-5)
    assert losses[1].metrics["accuracy"].weight == 5 and not losses[1].model_state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(queue_size=20), "objective.queue_size=20 does not hold whole batches of batch_size=8; .* such as 16"),
        (dict(queue_size=4), "such as 8"),
        (dict(temperature=0.0), "objective.temperature=0.0"),
        (dict(momentum=1.5), "objective.momentum=1.5"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(objective(**changes).init, jax.random.key(0), draw())


def test_low_rank_updates_do_not_reach_a_teacher():
    with pytest.raises(ValueError, match="this objective has queue, teacher too"):
        jax.eval_shape(LowRank(objective(), rank=1, alpha=1.0, targets=("query",)).init, jax.random.key(0), draw())
