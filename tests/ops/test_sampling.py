"""Sampling against the truncated distribution, computed one row at a time in numpy float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.sampling import sample

V, NUM_VALID, NUM_DRAWS = 13, 11, 20_011


def distribution(logits, *, temperature, top_k, top_p, num_valid):
    logits = np.asarray(logits[:num_valid], np.float64) / temperature
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    order = order[: top_k or None]
    probabilities = np.exp(logits[order] - logits[order[0]])
    probabilities /= probabilities.sum()
    kept = 1
    while probabilities[:kept].sum() < top_p and kept < len(order):
        kept += 1
    result = np.zeros(V)
    result[order[:kept]] = probabilities[:kept] / probabilities[:kept].sum()
    return result


@pytest.fixture
def logits():
    values = np.random.default_rng(0).normal(size=V).astype(np.float32) * 1.5
    values[NUM_VALID:] = 9.0  # padding of the vocabulary table that would win
    values[3] = values[7]
    return values


@pytest.mark.parametrize(
    "options",
    [
        dict(temperature=1.0, top_k=0, top_p=1.0),
        dict(temperature=0.7, top_k=0, top_p=1.0),
        dict(temperature=1.5, top_k=4, top_p=1.0),
        dict(temperature=1.0, top_k=0, top_p=0.8),
        dict(temperature=1.3, top_k=6, top_p=0.7),
        dict(temperature=1.0, top_k=100, top_p=1e-6),
    ],
)
def test_draws_follow_the_truncated_distribution(logits, options):
    rows = jnp.tile(jnp.asarray(logits)[None], (NUM_DRAWS, 1))
    tokens = np.asarray(sample(jax.random.key(0), rows, num_valid=NUM_VALID, **options))
    expected = distribution(logits, num_valid=NUM_VALID, **options)
    counts = np.bincount(tokens, minlength=V)
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(expected))
    # Five standard deviations of each share.
    assert np.all(np.abs(counts / NUM_DRAWS - expected) <= 5 * np.sqrt(expected * (1 - expected) / NUM_DRAWS))


def test_temperature_zero_is_greedy(logits):
    rows = jnp.stack([jnp.asarray(logits), -jnp.asarray(logits)])
    tokens = sample(jax.random.key(0), rows, temperature=0.0, top_k=3, top_p=0.5, num_valid=NUM_VALID)
    np.testing.assert_array_equal(tokens, np.argmax(np.asarray(rows)[:, :NUM_VALID], axis=1))


@pytest.mark.parametrize("temperature", [1e-29, 1e-45])
def test_a_tiny_temperature_is_greedy_too(logits, temperature):
    rows = 1e10 * jnp.asarray(logits)[None]
    tokens = sample(jax.random.key(0), rows, temperature=temperature, top_p=0.9, num_valid=NUM_VALID)
    assert tokens[0] == np.argmax(logits[:NUM_VALID])


def test_top_k_one_is_greedy_and_ties_go_to_the_lower_id():
    logits = jnp.zeros((5, V)).at[:, 2].set(-1.0).at[:, [4, 6]].set(1.0)
    tokens = sample(jax.random.key(3), logits, top_k=1)
    np.testing.assert_array_equal(tokens, 4)


def test_a_row_does_not_depend_on_how_many_there_are(logits):
    rows = jax.random.normal(jax.random.key(1), (7, V))
    choices: list[dict[str, Any]] = [dict(), dict(top_k=5, top_p=0.9)]
    for options in choices:
        together = sample(jax.random.key(2), rows, **options)
        np.testing.assert_array_equal(sample(jax.random.key(2), rows[:3], **options), together[:3])


def test_draws_are_seeded(logits):
    rows = jnp.zeros((31, V))
    first, again, other = (sample(jax.random.key(seed), rows) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other) and len(set(np.asarray(first).tolist())) > 3


@pytest.mark.parametrize("options", [dict(temperature=-1.0), dict(top_k=-1), dict(top_p=0.0), dict(top_p=1.1)])
def test_wrong_arguments_are_named(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        sample(jax.random.key(0), jnp.zeros((1, V)), **options)
