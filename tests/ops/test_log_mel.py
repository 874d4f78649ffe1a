"""Log mel spectrograms against librosa's (golden file; log_mel_golden.py has the command) and a float64 reference."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import get_window

from research.ops.log_mel import frame_count, log_mel, mel_filters
from tests.ops.log_mel_golden import CASES, GOLDEN, signal

IDS = [str(case["window_size"]) for case in CASES]


@functools.cache
def jitted(number):
    return jax.jit(functools.partial(log_mel, **CASES[number]))


def plain(wave, *, sample_rate, window_size, hop, num_mels, min_frequency, max_frequency):
    """Frame by frame, band by band, a slow Fourier sum, in float64."""

    def to_mel(hertz):
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)

    def to_hertz(mel):
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    ends = to_mel(min_frequency), to_mel(max_frequency)
    edges = [to_hertz(ends[0] + (ends[1] - ends[0]) * i / (num_mels + 1)) for i in range(num_mels + 2)]
    half = window_size // 2
    padded = np.concatenate([np.zeros(half), wave, np.zeros(half)])
    window, samples = get_window("hann", window_size), np.arange(window_size)
    frames = []
    for start in range(0, len(padded) - window_size + 1, hop):
        windowed = padded[start : start + window_size] * window
        power = [abs(np.sum(windowed * np.exp(-2j * np.pi * k * samples / window_size))) ** 2 for k in range(half + 1)]
        bands = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for k, value in enumerate(power):
                hertz = k * sample_rate / window_size
                if low < hertz <= middle:
                    total += value * (hertz - low) / (middle - low) * 2 / (high - low)
                elif middle < hertz < high:
                    total += value * (high - hertz) / (high - middle) * 2 / (high - low)
            bands.append(10 * np.log10(max(total, 1e-10)))
        frames.append(bands)
    return np.array(frames)


@pytest.mark.parametrize("number", range(len(CASES)), ids=IDS)
def test_is_what_librosa_computes(number):
    golden = json.loads(GOLDEN.read_text())
    assert golden["librosa"] == "0.11.0"
    wanted = np.array(golden["decibels"][number])
    found = np.asarray(jitted(number)(jnp.asarray(signal(), jnp.float32)[None]))[0]
    assert found.shape == wanted.shape and np.ptp(wanted) > 30.0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("number", range(len(CASES)), ids=IDS)
def test_is_a_plain_sum_in_float64_for_each_clip_of_a_batch(number):
    waves = np.random.default_rng(number).normal(size=(2, 1999)) * 0.1
    waves[1] = signal()
    found = np.asarray(jitted(number)(jnp.asarray(waves, jnp.float32)))
    for row in range(2):
        wanted = plain(waves[row], **CASES[number])
        np.testing.assert_allclose(found[row], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("number", range(len(CASES)), ids=IDS)
@pytest.mark.parametrize("length", [400, 797, 1201])
def test_frame_count_gives_the_frames_of_a_clip_that_padding_does_not_change(number, length):
    case = CASES[number]
    wave = np.where(np.arange(1999) < length, signal(), 0.0)
    wanted = plain(wave[:length], **case)
    count = frame_count(length, window_size=case["window_size"], hop=case["hop"])
    assert len(wanted) == count
    counts = frame_count(jnp.array([length]), window_size=case["window_size"], hop=case["hop"])
    assert counts.tolist() == [count]
    found = np.asarray(jitted(number)(jnp.asarray(wave, jnp.float32)[None]))[0, :count]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_silence_is_the_floor():
    np.testing.assert_allclose(jitted(0)(jnp.zeros((1, 1999))), -100.0, atol=1e-4)


def test_filters_have_area_one_where_bins_are_dense():
    filters = mel_filters(sample_rate=16000, window_size=16000, num_mels=11, min_frequency=100.0, max_frequency=7000.0)
    np.testing.assert_allclose(filters.sum(axis=1), 1.0, rtol=1e-3)  # bins are 1 Hz apart


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(num_mels=200), "num_mels=200 between .* fewer mels or a longer window"),
        (dict(max_frequency=8001.0), "max_frequency=8001: wanted .* 8000 Hz, half the sample rate"),
        (dict(min_frequency=-1.0), "min_frequency=-1"),
        (dict(hop=0), "hop=0; wanted 1 or more"),
        (dict(window_size=1), "window_size=1; wanted 2"),
    ],
)
def test_impossible_numbers_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        log_mel(jnp.zeros((1, 800)), **CASES[0] | change)
