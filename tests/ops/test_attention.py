"""Attention and rotary positions against loops in float64: values to 1e-5, gradients to 1e-4 of their largest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.attention import Packed, attention, packed_attention
from research.ops.attention_mask import attention_mask
from research.ops.rotary import rotary, sinusoidal
from research.ops.splash_attention import fits, splash_attention
from research.training.sharding import MeshShape, make_layout
from tests.small import difference

B, L, M, H, G, K = 2, 3, 5, 4, 2, 6


def inputs():
    draw = np.random.default_rng(0)
    query, key, value = (draw.normal(size=shape) for shape in ((B, L, H, K), (B, M, G, K), (B, M, G, K)))
    mask = draw.random((B, L, M)) < 0.6
    mask[:, :, 0] = True
    return query, key, value, mask


@jax.jit
def plain_attention(query, key, value, mask):
    """One head, row and query at a time."""
    rows = []
    for b in range(B):
        for position in range(L):
            for head in range(H):
                group = head // (H // G)
                scores = jnp.stack([jnp.dot(query[b, position, head], key[b, m, group]) for m in range(M)]) * K**-0.5
                weights = jnp.where(mask[b, position], jnp.exp(scores - jnp.max(scores)), 0.0)
                rows.append((weights / weights.sum()) @ value[b, :, group])
    return jnp.stack(rows).reshape(B, L, H, K)


def test_attention_equals_loops_in_float64_in_values_and_gradients():
    query, key, value, mask = inputs()
    with jax.enable_x64(True):
        wanted = plain_attention(*map(jnp.asarray, (query, key, value)), mask)
        gradients = jax.grad(lambda *a: jnp.sum(jnp.sin(plain_attention(*a, mask))), argnums=(0, 1, 2))(
            *map(jnp.asarray, (query, key, value))
        )
        wanted, gradients = jax.device_get((wanted, gradients))
    single, mask = [jnp.asarray(array, jnp.float32) for array in (query, key, value)], jnp.asarray(mask)
    assert difference(wanted, attention(*single, mask)) < 1e-5
    found = jax.grad(lambda *a: jnp.sum(jnp.sin(attention(*a, mask))), argnums=(0, 1, 2))(*single)
    assert difference(gradients, found) < 1e-4


def test_a_row_without_keys_has_finite_values_and_gradients():
    query, key, value, mask = inputs()
    mask[1, 2] = False
    single, mask = [jnp.asarray(array, jnp.float32) for array in (query, key, value)], jnp.asarray(mask)
    for gradient in jax.grad(lambda *a: jnp.sum(attention(*a, mask)), argnums=(0, 1, 2))(*single):
        assert bool(jnp.all(jnp.isfinite(gradient)))


@pytest.mark.parametrize("causal", [True, False])
def test_the_mask_keeps_to_the_segment_and_the_past(causal):
    positions = jnp.array([[0, 1, 2, 0, 1, 0]])
    segments = jnp.array([[1, 1, 1, 2, 2, 0]])
    mask = attention_mask(positions, positions, segments, segments, causal=causal)
    for query in range(6):
        for key in range(6):
            same = segments[0, query] == segments[0, key] > 0
            assert bool(mask[0, query, key]) == (same and (not causal or positions[0, key] <= positions[0, query]))


def test_rotary_turns_pairs_by_their_position():
    heads = np.random.default_rng(1).normal(size=(1, 3, 1, 6))
    positions = jnp.array([[0, 4, 9]])
    found = np.asarray(rotary(jnp.asarray(heads, jnp.float32), positions, base=100.0))
    for index, position in enumerate((0, 4, 9)):
        for pair in range(3):
            turned = complex(heads[0, index, 0, pair], heads[0, index, 0, pair + 3]) * np.exp(
                1j * position * 100.0 ** (-pair / 3)
            )
            assert abs(complex(found[0, index, 0, pair], found[0, index, 0, pair + 3]) - turned) < 1e-5


def test_rotary_scores_depend_on_the_distance_alone():
    draw = np.random.default_rng(2)
    query, key = (jnp.asarray(draw.normal(size=(1, 1, 1, 8)), jnp.float32) for _ in range(2))

    def score(first, second):
        return float(jnp.sum(rotary(query, jnp.array([[first]])) * rotary(key, jnp.array([[second]]))))

    assert abs(score(3, 7) - score(103, 107)) < 1e-4
    assert abs(score(3, 7) - score(3, 8)) > 1e-3


def test_sinusoidal_positions_are_sines_and_cosines():
    found = np.asarray(sinusoidal(jnp.array([[0, 5]]), 6))
    angles = 5 * 10_000.0 ** (-np.arange(3) / 3)
    assert np.allclose(found[0, 1], np.concatenate([np.sin(angles), np.cos(angles)]), atol=1e-6)
    assert np.array_equal(found[0, 0], [0, 0, 0, 1, 1, 1])


def packed_rows(length: int, *, groups: int, size: int, rows: int = 2):
    draw = np.random.default_rng(1)
    heads = 2 * groups
    arrays = [draw.normal(size=(rows, length, count, size)).astype(np.float32) for count in (heads, groups, groups)]
    cuts = np.sort(draw.integers(1, length, (rows, 2)), axis=1)
    segments = 1 + (np.arange(length) >= cuts[:, :1]) + (np.arange(length) >= cuts[:, 1:])
    segments[:, -1] = 0  # padding
    starts = np.stack([np.zeros(rows, int), *cuts.T], axis=1)
    positions = np.arange(length) - np.take_along_axis(starts, np.maximum(segments - 1, 0), axis=1)
    where = Packed(jnp.asarray(positions, jnp.int32), jnp.asarray(segments, jnp.int32))
    return tuple(map(jnp.asarray, arrays)), where


def value_and_gradients(attend, arrays, where):
    real = (where.segment_ids > 0)[:, :, None, None]

    def total(*arrays):
        mixed = jnp.where(real, attend(*arrays), 0.0)
        return jnp.sum(jnp.sin(mixed)), mixed

    gradients, mixed = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(*arrays)
    return jax.device_get((mixed, gradients))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shape", [dict(context=4, data=2), dict(context=2, tensor=2, replica=2)])
def test_a_ring_over_the_length_equals_the_whole_rows(causal, shape):
    arrays, where = packed_rows(12, groups=2, size=3)
    wanted = value_and_gradients(lambda *a: packed_attention(*a, where, causal=causal), arrays, where)
    with make_layout(MeshShape(**{"data": 1} | shape)).active():
        found = value_and_gradients(lambda *a: packed_attention(*a, where, causal=causal), arrays, where)
    assert difference(wanted, found) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
def test_the_kernel_for_tpu_equals_the_plain_form_when_interpreted(causal):
    arrays, where = packed_rows(256, groups=1, size=128, rows=1)
    assert fits(256)
    assert not fits(257)
    assert not fits(128)
    kernel = functools.partial(splash_attention, segment_ids=where.segment_ids, causal=causal, axes=None)
    wanted = value_and_gradients(lambda *a: packed_attention(*a, where, causal=causal), arrays, where)
    found = value_and_gradients(lambda *a: kernel(*a, interpret=True), arrays, where)
    assert difference(wanted, found) < 1e-5
