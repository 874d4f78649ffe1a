"""The walk of a traced step: operations and sends against counts by hand, memory against shapes."""

import jax
import jax.numpy as jnp
import pytest

from research.planning.placement import Rules
from research.planning.values import Axes, Cost, reshaped
from research.planning.walk import Walk

NHWC = ("NHWC", "HWIO", "NHWC")
SIZES = {"replica": 1, "data": 1, "fsdp": 4, "tensor": 2, "context": 1}


def walk(function, *arguments, axes: list[Axes], weights: list[bool], parameters=None, platform="tpu") -> Cost:
    jaxpr = jax.make_jaxpr(function)(*arguments)
    rules = Rules(SIZES, parameters or {}, scatters=platform != "cpu")
    return Walk(rules, platform).program(jaxpr, axes, weights)


def shape(*sides: int):
    return jax.ShapeDtypeStruct(sides, jnp.float32)


def test_a_parameter_that_lies_over_the_batch_s_axis_is_gathered():
    axes: list[Axes] = [(("fsdp",), ()), (("fsdp",), ("tensor",))]
    found = walk(lambda x, w: x @ w, shape(32, 16), shape(16, 24), axes=axes, weights=[False, True])
    assert found.flops == 2 * 32 * 16 * 24 / 8
    assert found.sent == {("all-gather", "fsdp"): 16 * 12 * 4 * 3 / 4}


def test_a_sum_over_a_divided_dimension_is_reduced():
    axes: list[Axes] = [(("fsdp",), ("tensor",)), (("tensor",), ())]
    found = walk(lambda x, w: x @ w, shape(32, 16), shape(16, 24), axes=axes, weights=[False, True])
    assert found.flops == 2 * 32 * 16 * 24 / 8
    assert found.sent == {("all-reduce", "tensor"): 2 * (8 * 24 * 4) / 2}


def test_a_gradient_is_scattered_as_its_parameter_lies():
    places = {(16, 24): (("fsdp",), ())}
    axes: list[Axes] = [(("fsdp",), ()), (("fsdp",), ())]
    found = walk(lambda x, y: x.T @ y, shape(32, 16), shape(32, 24), axes=axes, weights=[False] * 2, parameters=places)
    assert found.sent == {("reduce-scatter", "fsdp"): 16 * 24 * 4 * 3 / 4}
    assert found.peak == 16 * 24 * 4  # before its sum a device has all of it; its part is the result


def test_on_cpu_gradients_are_summed_together_in_copies():
    def function(x, y, z):
        return [jnp.sum(jnp.sin(gradient) @ gradient.T) for gradient in (x.T @ y, x.T @ z)]

    arguments = shape(32, 16), shape(32, 24), shape(32, 40)
    given = dict(axes=[(("fsdp",), ())] * 3, weights=[False] * 3, platform="cpu")
    places = {(16, 24): (("fsdp",), ()), (16, 40): (("fsdp",), ())}
    both = 16 * (24 + 40) * 4
    found = walk(function, *arguments, parameters=places, **given)
    assert found.peak == 2 * both
    assert [what.split()[0] for _, what in found.largest].count("sum") == 2
    assert walk(function, *arguments, **given).peak < 2 * both


def test_a_loop_works_as_often_as_it_turns_and_keeps_what_it_stacks():
    def function(x, w):
        return jax.lax.scan(lambda carry, each: (carry @ each, carry), x, w)[1].sum()

    nothing: list[Axes] = [((), ()), ((), (), ())]
    found = walk(function, shape(8, 8), shape(5, 8, 8), axes=nothing, weights=[False, True])
    assert found.flops == 5 * 2 * 8**3
    assert 5 * 256 <= found.peak <= 5 * 256 + 4 * 256


@pytest.mark.parametrize(
    ("size", "platform", "filled"), [(64, "tpu", 128), (128, "tpu", 128), (16, "tpu", 16), (64, "gpu", 64)]
)
def test_rows_of_a_tpu_are_filled_up(size, platform, filled):
    def heads(x, w):
        return jnp.sum(jnp.sort(jnp.einsum("bld,dhk->blhk", x, w)))

    axes: list[Axes] = [((), (), ()), ((), (), ())]
    arguments = shape(4, 8, 32), shape(32, 2, size)
    found = walk(heads, *arguments, axes=axes, weights=[False, True], platform=platform)
    assert max(size for size, _ in found.largest) == 4 * 8 * 2 * filled * 4


def test_channels_of_a_convolution_are_not_filled_up():
    def convolve(x, w):
        return jnp.sum(jnp.sort(jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC)))

    axes: list[Axes] = [((),) * 4, ((),) * 4]
    found = walk(convolve, shape(4, 8, 8, 3), shape(3, 3, 3, 64), axes=axes, weights=[False, True])
    assert max(size for size, _ in found.largest) == 4 * 8 * 8 * 64 * 4


def test_what_is_computed_element_by_element_is_in_no_memory():
    def function(x):
        return jnp.sum((x * 2.0 + 1.0) * x)

    assert walk(function, shape(64, 64), axes=[((), ())], weights=[False]).peak < 100


@pytest.mark.parametrize(
    ("before", "axes", "after", "wanted"),
    [
        ((8, 6), (("fsdp",), ()), (48,), (("fsdp",),)),
        ((48,), (("fsdp",),), (8, 6), (("fsdp",), ())),
        ((8, 1, 6), (("fsdp",), (), ("tensor",)), (8, 6), (("fsdp",), ("tensor",))),
        ((4, 6, 5), (("fsdp",), (), ("tensor",)), (24, 5), (("fsdp",), ("tensor",))),
    ],
)
def test_axes_follow_a_reshape(before, axes, after, wanted):
    assert reshaped(before, axes, after) == wanted
