"""Products of rounded factors: against float64 of the same rounded factors, values and gradients, to 1e-5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.product import product
from tests.small import difference

SIZES = {"b": 2, "l": 3, "d": 5, "h": 7, "k": 11, "e": 13, "f": 17, "p": 3, "q": 2, "c": 5}
EQUATIONS = ("bld,dhk->blhk", "blhk,hkd->bld", "bld,df->blf", "blf,fd->bld", "bd,dhk->bhk", "blpqc,pqcd->bld")


def drawn(equation):
    draw = np.random.default_rng(0)
    factors, out = equation.split("->")
    shapes = [[SIZES[letter] for letter in term] for term in [*factors.split(","), out]]
    return [jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in shapes]


def rounded(array):
    return np.asarray(jnp.asarray(array).astype(jnp.bfloat16).astype(jnp.float32), np.float64)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_product_is_that_of_rounded_factors_in_both_directions(equation):
    first, second, cotangent = drawn(equation)
    value, back = jax.vjp(
        lambda *factors: product(equation, *factors, dtype="float32", matmul_dtype="bfloat16"), first, second
    )
    (left, right), out = equation.split("->")[0].split(","), equation.split("->")[1]
    first, second, turned = rounded(first), rounded(second), rounded(cotangent)
    assert difference(np.einsum(equation, first, second), value) < 1e-5
    wanted = np.einsum(f"{out},{right}->{left}", turned, second), np.einsum(f"{left},{out}->{right}", first, turned)
    found = back(cotangent)
    assert [gradient.dtype for gradient in found] == [jnp.float32] * 2
    for gradient, expected in zip(found, wanted, strict=True):
        assert difference(expected, gradient) < 1e-5


def test_an_ellipsis_stands_for_the_axes_before_the_last():
    first, second, cotangent = drawn("bld,de->ble")
    options = dict(dtype="float32", matmul_dtype="bfloat16")
    named, back = jax.vjp(lambda *factors: product("bld,de->ble", *factors, **options), first, second)
    dotted, dotted_back = jax.vjp(lambda *factors: product("...d,de->...e", *factors, **options), first, second)
    assert difference(named, dotted) == 0.0
    for ours, theirs in zip(back(cotangent), dotted_back(cotangent), strict=True):
        assert difference(ours, theirs) == 0.0


def test_without_a_matmul_dtype_it_is_the_plain_einsum():
    first, second, _ = drawn("bld,df->blf")
    plain = jnp.einsum("bld,df->blf", first, second)
    assert difference(plain, product("bld,df->blf", first, second, dtype="float32")) == 0.0
    assert difference(plain, product("bld,df->blf", first, second, dtype="float32", matmul_dtype="bfloat16")) > 1e-4
