"""The number of each row at its id: fetched and compared alike, with their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.pick import _compare, _fetch, pick


@pytest.mark.parametrize("way", [pick, _fetch, _compare])
def test_each_row_gives_the_number_at_its_id(way):
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(2, 3, 7)).astype(np.float32)
    ids = draw.integers(0, 7, (2, 3))
    wanted = np.take_along_axis(rows, ids[..., None], -1)[..., 0]
    np.testing.assert_array_equal(way(jnp.asarray(rows), jnp.asarray(ids)), wanted)
    gradient = jax.grad(lambda each: jnp.sum(jnp.sin(way(each, jnp.asarray(ids)))))(jnp.asarray(rows))
    one_hot = np.eye(7, dtype=np.float32)[ids]
    np.testing.assert_allclose(gradient, one_hot * np.cos(wanted)[..., None], rtol=1e-6)
