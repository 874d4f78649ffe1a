"""The same batch must mean the same, however it is cut, packed, spread or computed: to 1e-5 in loss and gradient."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.batch import AXES
from research.training.sharding import MeshShape, batch_shardings, make_layout, put_batch
from research.training.state import TrainState
from research.training.step import make_train_step, step_keys
from research.types import Keys
from tests.small import difference, packed_batch, separate_documents, small_objective

TOLERANCE = 1e-5
OBJECTIVES = ("causal_lm", "masked_lm", "classification")


def initial_state(objective, batch, transform) -> TrainState:
    variables = jax.jit(lambda batch: nn.meta.unbox(objective.init(jax.random.key(0), batch)))(batch)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=transform.init(variables["params"]),
        ema=None,
        first_bad_step=jnp.full((), -1, jnp.int32),
    )


def loss_and_gradient(objective, batch, *, accumulate=1, mesh=None):
    """One step of an optimizer that only remembers the gradient."""
    transform = optax.GradientTransformation(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda grads, state, params=None: (jax.tree.map(jnp.zeros_like, grads), grads),
    )
    state = initial_state(objective, batch, transform)
    step = make_train_step(objective, transform, seed=3, accumulate=accumulate)
    if mesh is not None:
        batch = put_batch(batch, batch_shardings(batch, AXES, mesh))
        with mesh.active():
            new, metrics = jax.jit(step)(state, batch)
    else:
        new, metrics = jax.jit(step)(state, batch)
    return metrics["loss"].total / metrics["loss"].weight, new.opt_state


@functools.cache
def whole_batch(name: str):
    return loss_and_gradient(small_objective(name), packed_batch())


def assert_equal(first, second):
    assert difference(first[0], second[0]) < TOLERANCE
    leaves = zip(jax.tree.leaves_with_path(first[1]), jax.tree.leaves(second[1]), strict=True)
    for (path, a), b in leaves:
        if jax.tree_util.keystr(path).endswith("['key']['bias']"):
            # Softmax does not see what is added to every key: the true gradient is 0, and round-off has no scale.
            assert max(float(jnp.max(jnp.abs(a))), float(jnp.max(jnp.abs(b)))) < 1e-8
        else:
            assert difference(a, b) < TOLERANCE, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_accumulated_microbatches_equal_the_whole_batch(name):
    assert_equal(whole_batch(name), loss_and_gradient(small_objective(name), packed_batch(), accumulate=4))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_eight_devices_equal_one(name):
    assert len(jax.devices()) == 8
    assert_equal(
        whole_batch(name), loss_and_gradient(small_objective(name), packed_batch(), mesh=make_layout(MeshShape()))
    )


@pytest.mark.slow
def test_accumulated_microbatches_on_eight_devices_equal_the_whole_batch():
    batch = packed_batch(rows=16)
    first = loss_and_gradient(small_objective("causal_lm"), batch)
    assert_equal(
        first, loss_and_gradient(small_objective("causal_lm"), batch, accumulate=2, mesh=make_layout(MeshShape()))
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_step_equals_a_data_parallel_pmap(name):
    objective, batch = small_objective(name), packed_batch()
    params = initial_state(objective, batch, optax.identity()).variables["params"]
    noise, dropout = step_keys(3, jnp.zeros((), jnp.int32))

    def gradient(params, batch):
        def total(params):
            loss = objective.loss(
                {"params": params}, batch, rng=Keys(noise, dropout), step=jnp.zeros((), jnp.int32), train=True
            )
            return loss.terms["loss"][1].total, loss.terms["loss"][1].weight

        (value, weight), grads = jax.value_and_grad(total, has_aux=True)(params)
        weight = jax.lax.psum(weight, "devices")
        return jax.lax.psum(value, "devices") / weight, jax.tree.map(
            lambda leaf: jax.lax.psum(leaf, "devices") / weight, grads
        )

    split = {key: value.reshape(8, -1, *value.shape[1:]) for key, value in batch.items()}
    value, grads = jax.pmap(gradient, axis_name="devices", in_axes=(None, 0))(params, split)
    assert_equal(whole_batch(name), (value[0], jax.tree.map(lambda leaf: leaf[0], grads)))


@pytest.mark.parametrize(
    "model",
    ["modern", "bert", "lstm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "llama", "gru"))],
)
def test_packed_rows_equal_their_documents_alone(model):
    objective = small_objective("causal_lm", model=model)
    batch = packed_batch()
    assert_equal(loss_and_gradient(objective, batch), loss_and_gradient(objective, separate_documents(batch)))


@pytest.mark.parametrize("model", ["modern", "bert", "lstm"])
def test_packed_rows_encode_both_ways_as_their_documents_alone(model):
    objective = small_objective("masked_lm", model=model)
    packed = packed_batch()
    alone = separate_documents(packed)
    variables = initial_state(objective, packed, optax.identity()).variables
    features = [jax.jit(objective.features)(variables, batch) for batch in (packed, alone)]
    real = [np.asarray(each.sequence)[np.asarray(each.mask)] for each in features]
    assert difference(real[0], real[1]) < TOLERANCE


@pytest.mark.parametrize("unit", ["tokens", pytest.param("spans", marks=pytest.mark.slow)])
def test_masked_positions_alone_equal_the_full_head(unit):
    both = [
        loss_and_gradient(small_objective("masked_lm", gather=gather, unit=unit), packed_batch())
        for gather in (True, False)
    ]
    assert_equal(*both)


@pytest.mark.parametrize("name", ["causal_lm", "masked_lm"])
def test_chunked_cross_entropy_equals_plain(name):
    assert_equal(whole_batch(name), loss_and_gradient(small_objective(name, chunk=5), packed_batch()))


@pytest.mark.parametrize("remat", ["full", "dots", "names"])
def test_rematerialised_layers_equal_kept_ones(remat):
    changed = small_objective("causal_lm", model_changes={"remat": remat})
    assert_equal(whole_batch("causal_lm"), loss_and_gradient(changed, packed_batch()))


def test_unrolled_layers_equal_scanned_ones():
    changed = small_objective("causal_lm", model_changes={"unroll": 2})
    assert_equal(whole_batch("causal_lm"), loss_and_gradient(changed, packed_batch()))


@pytest.mark.slow
def test_ten_sgd_steps_give_equal_parameters_on_eight_devices_and_one():
    objective, transform = small_objective("masked_lm"), optax.sgd(0.1)
    states = []
    for mesh in (make_layout(MeshShape(devices=1)), make_layout(MeshShape())):
        batch = packed_batch()
        state = initial_state(objective, batch, transform)
        step = jax.jit(make_train_step(objective, transform, seed=3))
        with mesh.active():
            for index in range(10):
                batch["example_id"] = np.arange(8, dtype=np.uint32) + 8 * index
                state, _ = step(state, put_batch(batch, batch_shardings(batch, AXES, mesh)))
        states.append(state.variables["params"])
    assert difference(states[0], states[1]) < TOLERANCE
