"""Dropout on a mesh: every device draws the bits of its own rows, and any mesh draws the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models.layers import Dropout
from research.training.sharding import MeshShape, make_layout
from research.training.step import step_keys

ROWS, WIDTH = 64, 256


def dropped(mesh):
    """What dropout makes of ones that lie over the batch's devices, and the program of one of these."""

    def draw(values, step):
        return Dropout(0.5).apply({}, values, train=True, rngs={"dropout": step_keys(0, step)[1]})

    layout = make_layout(MeshShape(**mesh))
    rows = jax.NamedSharding(layout.mesh, jax.P(("data", "fsdp")))
    with layout.active():
        values = jax.device_put(jnp.ones((ROWS, WIDTH)), rows)
        step = jax.device_put(jnp.zeros((), jnp.int32), layout.replicated())
        compiled = jax.jit(draw, out_shardings=rows).lower(values, step).compile()
        return np.asarray(compiled(values, step)), compiled.as_text()


def test_each_device_draws_its_own_bits_and_any_mesh_the_same():
    (one, _), (first, program), (second, _) = dropped(dict(devices=1)), dropped({}), dropped(dict(data=2, fsdp=4))
    assert f"[{ROWS},{WIDTH}]" not in program and f"[{ROWS // 8},{WIDTH}]" in program
    np.testing.assert_array_equal(first, second)
    for values in (one, first):
        assert np.mean(values) == pytest.approx(1.0, abs=0.05) and set(np.unique(values)) == {0.0, 2.0}
