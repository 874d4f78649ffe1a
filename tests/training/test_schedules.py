"""Schedules: their key points, as shares of the peak rate."""

import jax
import numpy as np
import pytest

from research.training.schedules import SCHEDULES

NUM_STEPS = 211


def shares(name, steps, **arguments):
    schedule = SCHEDULES[name](**arguments)
    return [float(schedule(step, num_steps=NUM_STEPS)) for step in steps]


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_is_linear_and_no_step_is_lost(name):
    np.testing.assert_allclose(shares(name, [0, 4, 9, 10], warmup_steps=10), [1 / 11, 5 / 11, 10 / 11, 1.0], rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_warmup_the_first_step_has_the_peak(name):
    assert shares(name, [0]) == [1.0]


@pytest.mark.parametrize(
    ("name", "arguments", "middle", "end"),
    [
        ("constant", {}, 1.0, 1.0),
        ("linear", dict(final_fraction=0.2), 0.6, 0.2),
        ("linear", {}, 0.5, 0.0),
        ("cosine", dict(final_fraction=0.2), 0.6, 0.2),
        ("cosine", {}, 0.55, 0.1),
        ("wsd", dict(decay_fraction=0.25, final_fraction=0.2), 1.0, 0.2),
        ("wsd", dict(decay_fraction=1.0), 0.5, 0.0),
    ],
)
def test_decay_runs_from_the_end_of_warmup_to_the_last_step(name, arguments, middle, end):
    found = shares(name, [11, 111, NUM_STEPS, 2 * NUM_STEPS], warmup_steps=11, **arguments)
    np.testing.assert_allclose(found, [1.0, middle, end, end], rtol=1e-5, atol=1e-6)


def test_cosine_is_a_cosine():
    expected = 0.1 + 0.9 * (1 + np.cos(np.pi * 50 / 200)) / 2
    np.testing.assert_allclose(shares("cosine", [61], warmup_steps=11), expected, rtol=1e-6)


def test_wsd_decays_over_the_last_fraction():
    found = shares("wsd", [110, 161, 186, 211], warmup_steps=11, decay_fraction=0.25, final_fraction=0.2)
    np.testing.assert_allclose(found, [1.0, 1.0, 0.6, 0.2], rtol=1e-5)


def test_a_schedule_is_the_same_under_jit():
    schedule = SCHEDULES["cosine"](warmup_steps=3)
    traced = jax.jit(lambda step: schedule(step, num_steps=NUM_STEPS))
    for step in (0, 3, 100):
        np.testing.assert_allclose(traced(step), schedule(step, num_steps=NUM_STEPS), rtol=1e-6)


@pytest.mark.parametrize("warmup_steps", [-1, NUM_STEPS])
def test_a_warmup_that_does_not_fit_is_named(warmup_steps):
    with pytest.raises(ValueError, match=f"warmup_steps={warmup_steps}"):
        shares("linear", [0], warmup_steps=warmup_steps)


def test_a_decay_fraction_out_of_range_is_named():
    with pytest.raises(ValueError, match="decay_fraction=0"):
        SCHEDULES["wsd"](decay_fraction=0.0)
