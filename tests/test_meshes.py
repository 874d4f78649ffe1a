"""Any mesh gives what one device gives: losses of ten steps, the first gradient, parameters after ten SGD steps."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.batch import AXES
from research.training.sharding import MeshShape, batch_shardings, local_rows, make_layout, put_batch
from research.training.state import abstract_state, init_state, shardings_of
from research.training.step import make_train_step
from tests.objectives import test_image_text_loss as pictures_and_texts
from tests.objectives import test_simclr as pictures
from tests.small import difference, packed_batch, small_objective

TOLERANCE = 1e-5
RATES = {"simclr": 2e-4, "clip": 2e-3}  # at larger ones round-off grows with every step: biases start at zero
LENGTH = 12  # divides over `context`
TEXT_MESHES = [
    dict(fsdp=4, tensor=2),
    dict(context=4, fsdp=2),
    dict(fsdp=8),
    dict(replica=2, tensor=2, context=2),
    dict(replica=2, data=2, fsdp=2),
]
PAIR_MESHES = [
    dict(fsdp=4, tensor=2),
    dict(fsdp=2, data=4),
    dict(data=8),
    dict(replica=2, fsdp=4),
    dict(replica=2, data=2, tensor=2),
]
IMAGE_MESHES = [
    dict(data=2, fsdp=4),
    dict(fsdp=8),
    dict(data=8),
    dict(replica=2, fsdp=4),
    dict(replica=2, data=2, fsdp=2),
]
MESHES = {"masked_lm": TEXT_MESHES, "causal_lm": TEXT_MESHES, "clip": PAIR_MESHES, "simclr": IMAGE_MESHES}
# Each case compiles two steps: one of them is enough for the default suite.
CASES = [
    pytest.param(
        name,
        shape,
        marks=[] if (name, index) == ("causal_lm", 0) else [pytest.mark.slow],
        id=f"{name}-{'-'.join(map(str, shape))}",
    )
    for name, shapes in MESHES.items()
    for index, shape in enumerate(shapes)
]


def objective_of(name: str) -> Any:
    if name == "clip":
        image = dict(name="mlp", width=8, depth=1)
        return pictures_and_texts.objective("clip", image=image, model=dict(embed_dim=8))
    if name == "simclr":
        return pictures.objective(norm="batch")
    return small_objective(name)


def batch_of(name: str) -> dict[str, np.ndarray]:
    if name == "clip":
        return pictures_and_texts.draw()
    if name == "simclr":
        return pictures.draw()
    batch = packed_batch()
    return {key: value[:, :LENGTH] if value.ndim == 2 else value for key, value in batch.items()}


def remembers() -> optax.GradientTransformation:
    """Keeps the first gradient in its state, which lies as the parameters do."""

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        first, count = state
        kept = jax.tree.map(lambda old, new: jnp.where(count == 0, new, old), first, grads)
        return grads, (kept, count + 1)

    return optax.GradientTransformation(
        lambda params: (jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32)), update
    )


def ten_steps(name: str, shape: dict[str, int]) -> tuple[Any, Any, Any, Any]:
    objective, batch = objective_of(name), batch_of(name)
    layout = make_layout(MeshShape(**shape))
    transform = optax.chain(remembers(), optax.sgd(RATES.get(name, 0.02)))
    places = batch_shardings(batch, AXES, layout)
    with layout.active():
        placed = put_batch(batch, places)
        shardings = shardings_of(abstract_state(objective, transform, placed, layout, ema=True))
        state = init_state(objective, transform, placed, seed=1, shardings=shardings)
        step = jax.jit(
            make_train_step(objective, transform, seed=3, ema_decay=0.5),
            in_shardings=(shardings, places),
            out_shardings=(shardings, None),
        )
        losses = []
        for index in range(10):
            batch["example_id"] = np.arange(8, dtype=np.uint32) + 8 * index
            state, metrics = step(state, put_batch(batch, places))
            losses.append(float(metrics["loss"].total / metrics["loss"].weight))
    return losses, state.opt_state[0][0], state.variables["params"], state


@functools.cache
def on_one_device(name: str) -> tuple[Any, Any, Any]:
    return ten_steps(name, dict(devices=1))[:3]


def assert_near(first: Any, second: Any) -> None:
    for (path, a), b in zip(jax.tree.leaves_with_path(first), jax.tree.leaves(second), strict=True):
        if np.max(np.abs(a)) < 1e-7:  # a gradient that is zero but for round-off has no scale
            assert np.max(np.abs(b)) < 1e-7, jax.tree_util.keystr(path)
        else:
            assert difference(np.asarray(a), np.asarray(b)) < TOLERANCE, jax.tree_util.keystr(path)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_mesh_gives_what_one_device_gives(name, shape):
    wanted = on_one_device(name)
    losses, gradient, params, state = ten_steps(name, shape)
    np.testing.assert_allclose(losses, wanted[0], rtol=TOLERANCE)
    assert_near(wanted[1], gradient)
    assert_near(wanted[2], params)
    fsdp, tensor = shape.get("fsdp", 1), shape.get("tensor", 1)
    for kind in (params, gradient, state.ema):
        for path, leaf in jax.tree.leaves_with_path(kind):
            held = leaf.size / leaf.addressable_shards[0].data.size
            assert held in (1, fsdp, tensor, fsdp * tensor), jax.tree_util.keystr(path)
    large = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1 and min(leaf.shape[-2:]) >= 8]
    assert large
    assert all(leaf.size / leaf.addressable_shards[0].data.size >= fsdp for leaf in large)


def test_axes_that_a_page_may_name_are_laid_out_with_the_fastest_last():
    layout = make_layout(MeshShape(replica=2, fsdp=2, tensor=2))
    assert dict(layout.mesh.shape) == dict(replica=2, data=1, fsdp=2, tensor=2, context=1)
    assert [device.id for device in layout.mesh.devices.reshape(-1)] == list(range(8))
    assert layout.batch_parts == 4
    assert local_rows(layout, 12) == slice(0, 12)


def test_the_table_can_be_changed():
    layout = make_layout(MeshShape(fsdp=4, tensor=2, rules=("vocab=fsdp", "embed=none", "batch=data+fsdp+tensor")))
    assert layout.batch_parts == 8
    assert layout.parts("vocab") == 4
    assert layout.parts("embed") == 1


def test_the_mesh_is_the_whole_of_the_devices():
    assert math.prod(make_layout(MeshShape()).mesh.shape.values()) == 8
    with pytest.raises(ValueError, match="fsdp=3 does not multiply to the 8 devices"):
        make_layout(MeshShape(data=1, fsdp=3))
