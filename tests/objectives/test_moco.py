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
from research.training.sharding import make_mesh
from research.training.state import TrainState, abstract_state, init_state, shardings_of
from research.training.step import check_accumulation, make_train_step, step_keys
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
    augmentation = dict(name="none", flip_probability=0.5, pad=1, brightness=0.3)
    changes = dict(temperature=0.3, momentum=MOMENTUM, queue_size=QUEUE, augmentation=augmentation) | changes
    model = join(config, build(block, HEADS, kind="head"))
    return build(dict(name="moco", **changes), OBJECTIVES, kind="objective", model=model)


def draw(step: int = 0, rows: int = ROWS) -> dict[str, Any]:
    image = np.random.default_rng(step).integers(0, 256, (rows, 3, 3, 1)).astype(np.uint8)
    return {"image": image, "example_id": np.arange(rows, dtype=np.uint32) + step * rows}


def keys_of(step: int) -> Keys:
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
    found, batch = objective(), jax.tree.map(jnp.asarray, draw())
    variables = nn.meta.unbox(found.init(jax.random.key(0), batch))
    variables["queue"]["vectors"] = variables["queue"]["vectors"].at[0].set(0.5)  # a rival that some queries prefer
    loss = found.loss(variables, batch, rng=keys_of(0), step=jnp.int32(0), train=True)
    sides = found.encode(variables, batch, rng=keys_of(0), step=jnp.int32(0), train=True)
    query, key, queue = (np.asarray(each, np.float64) for each in (*sides.values(), variables["queue"]["vectors"]))
    for vectors in (query, key, queue[1:]):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert difference(query, key) > 1e-3  # two views
    own, others = (query * key).sum(axis=1), query @ queue.T
    logits = np.concatenate([own[:, None], others], axis=1) / 0.3
    wanted = np.mean(np.log(np.exp(logits).sum(axis=1)) - own / 0.3)
    np.testing.assert_allclose(float(loss.value()), wanted, rtol=1e-5)
    accuracy = loss.metrics["accuracy"]
    assert float(accuracy.total) == np.sum(own > others.max(axis=1))
    assert float(accuracy.weight) == ROWS


def test_the_gradient_is_that_of_fixed_keys():
    found, batch = objective(), jax.tree.map(jnp.asarray, draw())
    variables = nn.meta.unbox(found.init(jax.random.key(0), batch))
    fixed = found.encode(variables, batch, rng=keys_of(0), step=jnp.int32(0), train=True)["key"]

    def losses(params: Any) -> tuple[Any, Any]:
        given = {**variables, "params": params}
        query = found.encode(given, batch, rng=keys_of(0), step=jnp.int32(0), train=True)["query"]
        logits = jnp.concatenate([jnp.sum(query * fixed, axis=1)[:, None], query @ variables["queue"]["vectors"].T], 1)
        plain = jnp.mean(jax.nn.logsumexp(logits / 0.3, axis=1) - logits[:, 0] / 0.3)
        return plain, found.loss(given, batch, rng=keys_of(0), step=jnp.int32(0), train=True).value()

    plain, own = jax.jit(jax.jacrev(losses))(variables["params"])
    assert difference(plain, own) < 1e-5


def test_the_queue_holds_the_keys_of_the_last_batches_in_order(normed):
    found, states = normed
    encode = jax.jit(
        lambda variables, batch, step: found.encode(
            variables, batch, rng=keys_of(step), step=jnp.int32(step), train=True
        )["key"],
        static_argnums=2,
    )
    keys = [encode(state.variables, draw(step), step) for step, state in enumerate(states[:4])]
    for count, order in ((3, (0, 1, 2)), (4, (3, 1, 2))):  # the fourth batch takes the place of the first
        queue = states[count].variables["queue"]
        np.testing.assert_allclose(queue["vectors"], np.concatenate([keys[index] for index in order]), atol=1e-6)
        assert int(queue["cursor"]) == count * ROWS % QUEUE
    before, after = (states[index].variables["queue"]["vectors"] for index in (0, 1))
    np.testing.assert_array_equal(before[ROWS:], after[ROWS:])


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


def test_plain_steps_of_sgd_give_the_same_parameters():
    found, states = objective(), trained(objective(), 3)
    variables = states[0].variables
    gradient = jax.jit(
        lambda variables, batch, keys: jax.grad(
            lambda params: found.loss(
                {**variables, "params": params}, batch, rng=keys, step=jnp.int32(0), train=True
            ).value()
        )(variables["params"])
    )
    for step in range(3):
        keys = found.encode(variables, draw(step), rng=keys_of(step), step=jnp.int32(step), train=True)["key"]
        grads = gradient(variables, draw(step), keys_of(step))
        params = jax.tree.map(lambda old, grad: old - RATE * grad, variables["params"], grads)
        teacher = jax.tree.map(
            lambda old, new: MOMENTUM * old + (1.0 - MOMENTUM) * new, variables["teacher"]["params"], params
        )
        vectors = np.array(variables["queue"]["vectors"])
        vectors[step * ROWS : (step + 1) * ROWS] = keys
        queue = {"vectors": jnp.asarray(vectors), "cursor": jnp.int32((step + 1) * ROWS % QUEUE)}
        variables = {"params": params, "teacher": {"params": teacher}, "queue": queue}
    assert difference(variables, states[3].variables) < 1e-5


def test_a_bad_step_leaves_queue_and_teacher_as_they_were():
    found, transform = objective(norm=True), optax.sgd(RATE)
    state = initial_state(found, draw(), transform)
    bias = state.variables["params"]["head"]["linear2"]["bias"]
    state.variables["params"]["head"]["linear2"]["bias"] = bias.at[0].set(jnp.nan)
    after, _ = jax.jit(make_train_step(found, transform, seed=SEED))(state, draw())
    assert int(after.first_bad_step) == 0
    pairs = zip(jax.tree.leaves(state.variables), jax.tree.leaves(after.variables), strict=True)
    assert all(np.array_equal(before, now, equal_nan=True) for before, now in pairs)


def test_microbatches_give_the_gradient_and_the_queue_of_the_whole_batch():
    found = objective()
    assert isinstance(found, CoupledObjective) and isinstance(found, FollowedObjective)
    assert_equal(loss_and_gradient(found, draw()), loss_and_gradient(found, draw(), accumulate=2))
    whole, cut = (trained(found, 1, accumulate=parts)[1].variables for parts in (1, 2))
    assert difference(whole, cut) < 1e-5
    with pytest.raises(ValueError, match="batch norm's statistics"):
        check_accumulation(objective(norm=True), trained(objective(norm=True), 0)[0].variables, 2)


def test_eight_devices_equal_one_and_keep_the_queue_whole():
    found, mesh = objective(norm=True), make_mesh()
    assert_equal(loss_and_gradient(found, draw()), loss_and_gradient(found, draw(), mesh=mesh))
    places = shardings_of(abstract_state(found, optax.sgd(RATE), draw(), mesh, ema=False)).variables
    assert places["teacher"]["params"] == places["params"]
    assert all(place.is_fully_replicated for place in jax.tree.leaves(places["queue"]))


def test_a_teacher_starts_as_the_model_that_was_given_in_float32():
    found, transform, mesh = objective(norm=True, param_dtype="bfloat16"), optax.sgd(RATE), make_mesh(data=1)
    abstract = abstract_state(found, transform, draw(), mesh, ema=False)
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
    found, batch = objective(queue_size=40), jax.tree.map(jnp.asarray, draw())
    few = {key: values[:5] for key, values in batch.items()}
    variables = nn.meta.unbox(found.init(jax.random.key(0), batch))
    padded = {**batch, "example_mask": jnp.arange(ROWS) < 5}
    losses = [found.loss(variables, each, rng=keys_of(0), step=jnp.int32(0), train=False) for each in (few, padded)]
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
