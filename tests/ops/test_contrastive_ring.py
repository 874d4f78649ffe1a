"""The forms of the contrastive losses on one and on eight devices: the same values and gradients as the plain one.

Tolerances are relative to the largest: 1e-5 for values, 1e-4 for gradients.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from research.ops.contrastive import clip, nt_xent, siglip

# Three rows a device, two columns at a time: chunks are filled up.
B, D, CHUNK = 24, 5, 2
LOSSES = {nt_xent: dict(temperature=0.3), clip: dict(scale=7.0), siglip: dict(scale=7.0, bias=-2.0)}
WHERE = np.arange(B) % 3 != 1


def make_mesh(*shape):
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    return Mesh(devices, ("data", "model")[: len(shape)], axis_types=(AxisType.Auto,) * len(shape))


def draw(batch_size=B):
    rng = np.random.default_rng(7)
    sides = rng.normal(size=(2, batch_size, D))
    return (sides / np.linalg.norm(sides, axis=-1, keepdims=True)).astype(np.float32)


@functools.cache
def traced(loss, form, mesh, *, axes=("data",), with_where=True, with_groups=False):
    """Losses, and the gradients of the vectors and the scalars, for sides, scalars and where."""
    more = dict(groups=jnp.asarray(np.random.default_rng(1).integers(0, 9, B), jnp.int32)) if with_groups else {}

    def weighted(differentiable, where):
        sides, scalars = differentiable
        if with_where:
            more["where"] = where
        losses = loss(*sides, form=form, chunk=CHUNK, axes=axes, **scalars, **more)
        return jnp.sum(losses * jnp.linspace(-1.0, 2.0, B)), losses  # each loss pulls differently

    function = jax.jit(jax.grad(weighted, has_aux=True))

    def run(sides, where=WHERE):
        scalars = {name: jnp.float32(value) for name, value in LOSSES[loss].items()}
        if mesh is None:
            gradients, losses = function((jnp.asarray(sides), scalars), jnp.asarray(where))
        else:
            split = NamedSharding(mesh, PartitionSpec(axes))
            with jax.set_mesh(mesh):
                gradients, losses = function(
                    (tuple(jax.device_put(side, split) for side in sides), scalars), jax.device_put(where, split)
                )
        return np.asarray(losses), jax.tree.map(np.asarray, gradients)

    return run


def assert_same(found, wanted):
    def close(found, wanted, tolerance):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.max(np.abs(wanted)))

    close(found[0], wanted[0], 1e-5)
    (sides, scalars), (wanted_sides, wanted_scalars) = found[1], wanted[1]
    for side, wanted_side in zip(sides, wanted_sides, strict=True):
        close(side, wanted_side, 1e-4)
    for name, scalar in scalars.items():
        close(scalar, wanted_scalars[name], 1e-4)


EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
EVERY_FORM = pytest.mark.parametrize("form", ["gathered", "chunked"])


@EVERY_LOSS
@EVERY_FORM
@pytest.mark.parametrize("num_devices", [1, 8])
def test_forms_have_the_values_and_gradients_of_the_plain_one(loss, form, num_devices):
    sides = draw()
    run, plain = traced(loss, form, make_mesh(num_devices)), traced(loss, "plain", None)
    for where in (WHERE, np.ones(B, bool), np.zeros(B, bool)):
        assert_same(run(sides, where), plain(sides, where))


@EVERY_LOSS
def test_plain_form_is_the_same_on_eight_devices(loss):
    assert_same(traced(loss, "plain", make_mesh(8))(draw()), traced(loss, "plain", None)(draw()))


@pytest.mark.parametrize("loss", [nt_xent, clip], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize(("form", "num_devices"), [("plain", 0), ("gathered", 8), ("chunked", 8)])
def test_a_row_without_negatives_has_neither_loss_nor_gradient(loss, form, num_devices):
    run = traced(loss, form, make_mesh(num_devices) if num_devices else None)
    losses, gradients = run(draw(), np.arange(B) == 5)
    for array in (losses, *jax.tree.leaves(gradients)):
        np.testing.assert_allclose(array, 0.0, atol=1e-5)  # of rounding, at logits of 7


@EVERY_LOSS
@EVERY_FORM
def test_nan_in_rows_that_do_not_count_crosses_no_device(loss, form):
    sides = draw()
    run = traced(loss, form, make_mesh(8))
    losses, gradients = run(np.where(WHERE[:, None], sides, np.nan))
    wanted_losses, wanted_gradients = run(sides)
    np.testing.assert_array_equal(losses, wanted_losses)
    jax.tree.map(np.testing.assert_array_equal, gradients, wanted_gradients)
    assert not np.any(losses[~WHERE]) and not np.any(gradients[0][0][~WHERE]) and not np.any(gradients[0][1][~WHERE])


@EVERY_FORM
@pytest.mark.parametrize(("loss", "with_where"), [(clip, False), (clip, True), (siglip, True)])
def test_rows_of_one_group_on_several_devices_are_no_negatives(form, loss, with_where):
    more = dict(with_groups=True, with_where=with_where)
    found, wanted = (traced(loss, *place, **more)(draw()) for place in ((form, make_mesh(8)), ("plain", None)))
    assert_same(found, wanted)
    without = traced(loss, "plain", None)(draw(), WHERE if with_where else np.ones(B, bool))
    assert np.all(found[0] <= without[0] + 1e-6) and np.any(found[0] < without[0] - 0.1)


@EVERY_FORM
@pytest.mark.parametrize("axes", [("data",), ("data", "model")])
def test_the_batch_may_lie_over_one_axis_or_over_two(form, axes):
    run = traced(clip, form, make_mesh(4, 2), axes=axes)
    assert_same(run(draw()), traced(clip, "plain", None)(draw()))


@EVERY_LOSS
@pytest.mark.parametrize("form", ["plain", "gathered", "chunked"])
def test_forms_need_no_mesh_and_no_jit(loss, form):
    first, second = draw(batch_size=7)
    found = loss(jnp.asarray(first), jnp.asarray(second), form=form, chunk=3, **LOSSES[loss])
    wanted = loss(jnp.asarray(first), jnp.asarray(second), **LOSSES[loss])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.max(np.abs(wanted)))


@EVERY_LOSS
@EVERY_FORM
def test_bfloat16_vectors_give_float32_losses_and_bfloat16_gradients(loss, form):
    """bfloat16 has 8 bits: a ring rounds the gradient of the logits, and every form that of the vectors."""
    sides = [jnp.asarray(side, jnp.bfloat16) for side in draw()]

    def total(sides, form, chunk):
        losses = loss(*sides, form=form, chunk=chunk, **LOSSES[loss])
        return jnp.sum(losses), losses

    with jax.set_mesh(make_mesh(8)):
        run = jax.jit(jax.grad(total, has_aux=True), static_argnums=(1, 2))
        gradients, losses = run(sides, form, CHUNK)
    wanted_gradients, wanted = run([side.astype(jnp.float32) for side in sides], "plain", CHUNK)
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, wanted, rtol=0, atol=1e-5 * np.max(np.abs(wanted)))
    for gradient, wanted in zip(gradients, wanted_gradients, strict=True):
        assert gradient.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            np.asarray(gradient, np.float32), wanted, rtol=0, atol=2**-7 * np.max(np.abs(wanted))
        )


@EVERY_LOSS
def test_logits_are_never_whole_in_memory(loss):
    batch_size, chunk, mesh = 2048, 32, make_mesh(8)

    def total(first, second):
        return jnp.sum(loss(first, second, form="chunked", chunk=chunk, **LOSSES[loss]))

    split = NamedSharding(mesh, PartitionSpec("data"))
    side = jax.ShapeDtypeStruct((batch_size, D), jnp.float32, sharding=split)
    with jax.set_mesh(mesh):
        analysis = jax.jit(jax.grad(total, argnums=(0, 1))).lower(side, side).compile().memory_analysis()
    rows = batch_size // 8
    assert analysis is not None and analysis.temp_size_in_bytes < rows * batch_size * 4 / 4


def test_mistakes_are_told_before_any_work():
    first, second = (jnp.asarray(side) for side in draw(batch_size=7))
    with jax.set_mesh(make_mesh(8)):
        with pytest.raises(ValueError, match="a batch of 7 does not divide over 8 devices"):
            clip(first, second, scale=1.0, form="gathered")
        with pytest.raises(ValueError, match="the mesh has"):
            clip(first, second, scale=1.0, form="chunked", axes=("batch",))
    with pytest.raises(ValueError, match="chunk=0"):
        clip(first, second, scale=1.0, form="chunked", chunk=0)
