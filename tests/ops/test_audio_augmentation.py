"""Augmentation of sound against plain float64 loops; padding, ratios in dB, and where masks fall."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.audio_augmentation import (
    AUDIO_AUGMENTATIONS,
    AudioAugmentation,
    add_noise,
    amplify,
    draw_spans,
    fill_with_mean,
    in_spans,
    shift_in_time,
    white_noise,
)

B, T = 5, 97
LENGTHS = np.array([97, 53, 1, 0, 31])
REAL = np.arange(T)[None] < LENGTHS[:, None]
WAVES = np.where(REAL, np.random.default_rng(3).normal(size=(B, T)), 0.0).astype(np.float32)
KEYS = jax.random.split(jax.random.key(13), B)
EVERYTHING = AudioAugmentation(shift=0.5, gain=(-6.0, 6.0), noise_probability=0.7, noise_ratio=(0.0, 20.0))
FRAMES, MELS = 23, 19
COUNTS = np.array([23, 11, 1, 0, 7])
WHERE = np.arange(FRAMES)[None] < COUNTS[:, None]
SPECTROGRAMS = np.random.default_rng(4).normal(size=(B, FRAMES, MELS)).astype(np.float32) - 40.0


@functools.cache
def jitted(augmentation):
    return jax.jit(augmentation)


@functools.cache
def masking(augmentation):
    return jax.jit(augmentation.mask_spectrograms)


@pytest.mark.parametrize("mode", ["roll", "zeros"])
@pytest.mark.parametrize("shift", [0, 7, -12, 53, -60])
def test_a_shift_stays_within_the_clip(mode, shift):
    move = jax.jit(functools.partial(shift_in_time, mode=mode))
    for wave, length in zip(WAVES, LENGTHS, strict=True):
        wanted = np.zeros(T)
        for t in range(length):
            if mode == "roll":
                wanted[t] = wave[(t - shift) % length]
            elif 0 <= t - shift < length:
                wanted[t] = wave[t - shift]
        np.testing.assert_array_equal(move(wave, jnp.int32(length), jnp.int32(shift)), wanted)


def test_gain_is_in_decibels():
    np.testing.assert_allclose(
        amplify(jnp.asarray(WAVES[0]), jnp.float32(-6.0)), WAVES[0].astype(float) * 10**-0.3, rtol=1e-5
    )


@pytest.mark.parametrize("ratio", [-3.0, 0.0, 17.0])
def test_noise_comes_at_its_ratio_over_the_real_samples(ratio):
    noisy = jax.jit(add_noise)
    noise = np.random.default_rng(5).normal(size=T).astype(np.float32)
    for wave, length in zip(WAVES, LENGTHS, strict=True):
        found = np.asarray(noisy(wave, jnp.int32(length), noise, jnp.float32(ratio)), np.float64)
        added = found - wave
        np.testing.assert_array_equal(found[length:], 0.0)
        if length:
            measured = 10 * np.log10(np.mean(wave[:length].astype(float) ** 2) / np.mean(added[:length] ** 2))
            np.testing.assert_allclose(measured, ratio, atol=1e-3)
            scale = added[:length] / noise[:length]
            np.testing.assert_allclose(scale, scale[0], rtol=1e-3, atol=1e-5)


def test_a_silent_clip_stays_silent():
    found = add_noise(jnp.zeros(T), jnp.int32(T), jnp.ones(T), jnp.float32(0.0))
    np.testing.assert_array_equal(found, 0.0)


def test_white_noise_is_standard_normal_and_its_beginning_does_not_depend_on_its_length():
    noise = np.asarray(white_noise(jax.random.key(0), 9000))
    assert abs(noise.mean()) < 0.053 and abs(noise.var() - 1.0) < 0.075  # five standard errors of 9,000
    assert abs(np.corrcoef(noise[:4096], noise[4096:8192])[0, 1]) < 0.08
    np.testing.assert_array_equal(white_noise(jax.random.key(0), 5000), noise[:5000])


def test_a_clip_depends_on_its_key_alone_and_not_on_padding():
    found = np.asarray(jitted(EVERYTHING)(WAVES, jnp.asarray(LENGTHS), KEYS))
    np.testing.assert_array_equal(found[~REAL], 0.0)
    assert (np.abs(found - WAVES).max(axis=1)[[0, 1, 2, 4]] > 0.01).all()
    order = np.array([4, 2, 0, 1, 3])
    again = jitted(EVERYTHING)(WAVES[order], jnp.asarray(LENGTHS[order]), KEYS[order])
    np.testing.assert_allclose(again, found[order], rtol=0, atol=1e-5)
    # Two of the five, longer padding, and rubbish in it.
    padded = np.concatenate([WAVES[1:3], np.full((2, 10), 9.0, np.float32)], axis=1)
    again = np.asarray(jitted(EVERYTHING)(padded, jnp.asarray(LENGTHS[1:3]), KEYS[1:3]))
    np.testing.assert_allclose(again[:, :T], found[1:3], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(again[:, T:], 0.0)


def test_nothing_is_the_default():
    np.testing.assert_array_equal(AudioAugmentation()(jnp.asarray(WAVES), jnp.asarray(LENGTHS), KEYS), WAVES)
    found = AudioAugmentation().mask_spectrograms(jnp.asarray(SPECTROGRAMS), jnp.asarray(WHERE), KEYS)
    np.testing.assert_array_equal(found, SPECTROGRAMS)


def test_draws_cover_their_ranges():
    num = 2000
    keys = jax.random.split(jax.random.key(21), num)
    impulse = np.zeros((num, 41), np.float32)
    impulse[:, 20] = 1.0
    lengths = jnp.full(num, 41)
    moved = np.asarray(jitted(AudioAugmentation(shift=0.25))(impulse, lengths, keys)).argmax(axis=1) - 20
    assert moved.min() == -10 and moved.max() == 10 and abs(moved.mean()) < 0.67  # a standard error is 0.132
    gain = 20 * np.log10(np.asarray(jitted(AudioAugmentation(gain=(-9.0, 3.0)))(impulse, lengths, keys))[:, 20])
    assert -9.001 < gain.min() < -8.95 and 2.95 < gain.max() < 3.001 and abs(gain.mean() + 3.0) < 0.39
    block = dict(noise_probability=0.3, noise_ratio=(5.0, 15.0))
    noise = np.asarray(jitted(AudioAugmentation(**block))(impulse, lengths, keys), np.float64) - impulse
    power = (noise**2).sum(axis=1)
    assert abs((power > 0).mean() - 0.3) < 0.051
    ratio = -10 * np.log10(power[power > 0])
    assert 4.99 < ratio.min() < 5.2 and 14.8 < ratio.max() < 15.01 and abs(ratio.mean() - 10.0) < 0.59


def test_spans_are_uniform_in_width_and_place():
    draw = functools.partial(draw_spans, num_spans=2, widest=jnp.asarray(4), among=jnp.asarray(11))
    firsts, widths = map(
        np.asarray, jax.jit(jax.vmap(lambda key: draw(key)))(jax.random.split(jax.random.key(8), 2500))
    )
    counts = np.bincount(widths.ravel(), minlength=5)
    assert len(counts) == 5 and np.abs(counts - 1000).max() < 142  # five standard errors of 1,000 of 5,000
    for width in range(5):
        places = np.bincount(firsts[widths == width], minlength=12 - width)
        expected = (widths == width).sum() / (12 - width)
        assert len(places) == 12 - width and np.abs(places - expected).max() < 5 * np.sqrt(expected)
    assert abs(np.corrcoef(widths[:, 0], widths[:, 1])[0, 1]) < 0.1


def test_spans_are_marked_and_filled_with_the_real_frames_mean():
    spans = jnp.array([2, 4, 9]), jnp.array([3, 2, 0])
    np.testing.assert_array_equal(np.flatnonzero(in_spans(spans, size=11)), [2, 3, 4, 5])
    masked = np.random.default_rng(0).uniform(size=(FRAMES, MELS)) < 0.4
    wanted = SPECTROGRAMS[1].astype(np.float64)
    wanted = np.where(masked & WHERE[1][:, None], wanted[:11].mean(), wanted)
    np.testing.assert_allclose(jax.jit(fill_with_mean)(SPECTROGRAMS[1], WHERE[1], masked), wanted, rtol=1e-6)


def test_masks_fall_on_real_frames_and_no_wider_than_asked():
    block = dict(num_time_masks=1, time_mask_frames=6, time_mask_share=0.5, num_mel_masks=1, mel_mask_bands=4)
    widths = {row: [] for row in range(B)}
    for seed in range(60):
        keys = jax.random.split(jax.random.key(seed), B)
        found = np.asarray(masking(AudioAugmentation(**block))(SPECTROGRAMS, WHERE, keys))
        np.testing.assert_array_equal(found[~WHERE], SPECTROGRAMS[~WHERE])
        for row, count in enumerate(COUNTS):
            changed = (found[row] != SPECTROGRAMS[row])[:count]
            bands = changed.all(axis=0) if count else np.zeros(MELS, bool)
            frames = changed[:, ~bands].all(axis=1)
            for hit in (bands, frames):  # one piece each
                assert np.abs(np.diff(hit.astype(int), prepend=0, append=0)).sum() in (0, 2)
            np.testing.assert_array_equal(changed, frames[:, None] | bands[None, :])
            widths[row].append((frames.sum(), bands.sum()))
    widest = {row: tuple(np.max(pairs, axis=0)) for row, pairs in widths.items()}
    # Half of 23 frames is more than 6, of 11 it is 5, of 7 it is 3; a clip of one frame gets no mask in time.
    assert widest[0] == (6, 4) and widest[1] == (5, 4) and widest[4] == (3, 4)
    assert widest[3] == (0, 0)
    assert all(np.min(pairs) == 0 for pairs in widths.values())


def test_masks_of_an_example_do_not_depend_on_the_batch():
    augmentation = AUDIO_AUGMENTATIONS["spec_augment_double"](time_mask_frames=5, mel_mask_bands=3)
    assert augmentation.num_time_masks == augmentation.num_mel_masks == 2
    found = np.asarray(masking(augmentation)(SPECTROGRAMS, WHERE, KEYS))
    assert (found != SPECTROGRAMS).any(axis=(1, 2))[[0, 1]].all()
    order = np.array([4, 2, 0, 1, 3])
    np.testing.assert_allclose(
        masking(augmentation)(SPECTROGRAMS[order], WHERE[order], KEYS[order]), found[order], rtol=1e-6
    )
    np.testing.assert_allclose(masking(augmentation)(SPECTROGRAMS[1:3], WHERE[1:3], KEYS[1:3]), found[1:3], rtol=1e-6)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (dict(shift=1.5), "augmentation.shift=1.5; wanted 0 to 1: a share"),
        (dict(gain=(3.0, -3.0)), r"augmentation.gain=\(3.0, -3.0\); wanted two numbers \(low, high\): dB"),
        (dict(gain=(0.0, float("inf"))), "augmentation.gain="),
        (dict(noise_probability=-0.1), "augmentation.noise_probability=-0.1; wanted a probability"),
        (dict(time_mask_frames=0), "augmentation.time_mask_frames=0; wanted 1 or more: frames"),
        (dict(num_mel_masks=-1), "augmentation.num_mel_masks=-1; wanted 0 or more"),
    ],
)
def test_impossible_blocks_are_refused(block, words):
    with pytest.raises(ValueError, match=words):
        AudioAugmentation(**block)


def test_masks_wider_than_the_spectrogram_are_refused():
    augmentation = AUDIO_AUGMENTATIONS["spec_augment_basic"]()
    with pytest.raises(ValueError, match="augmentation.mel_mask_bands=27 is more than the 19 bands"):
        augmentation.mask_spectrograms(jnp.asarray(SPECTROGRAMS), jnp.asarray(WHERE), KEYS)
