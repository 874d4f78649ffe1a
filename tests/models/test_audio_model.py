"""Sounds as images: what a spectrogram holds, which positions are real, and what is refused."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.build import build, resolve
from research.models import ALL_MODELS, HEADS, IMAGE_MODELS, join
from research.ops.log_mel import mel_filters

RATE, LENGTH, MELS = 1000, 310, 6
VIT = dict(name="vit", patch_size=3, width=8, depth=1, num_heads=2, position="sincos")
CNN = dict(name="resnet18", stem="cifar", depths=(1, 1), widths=(4, 6), stem_width=4, norm="group", num_groups=2)


def config(tower: Any = CNN, **changes: Any) -> Any:
    offers = dict(image_size=0, num_channels=0, sample_rate=RATE, audio_length=LENGTH)
    block = dict(name="spectrogram", tower=tower, num_mels=MELS, window_seconds=0.05, hop_seconds=0.02) | changes
    full = resolve(block, ALL_MODELS, kind="model", **offers)
    return build(full, ALL_MODELS, kind="model")


def model(tower: Any = CNN, **changes: Any) -> Any:
    head = build(dict(name="classification", num_classes=3), HEADS, kind="head")
    return join(config(tower, **changes), head)


def clips() -> tuple[np.ndarray, np.ndarray]:
    audio = np.random.default_rng(0).integers(-9000, 9000, (2, LENGTH)).astype(np.int16)
    return audio, np.array([LENGTH, 119], np.int32)


def plain_decibels(samples: np.ndarray) -> np.ndarray:
    """[frames mels] of one clip, frame by frame, in float64."""
    filters = mel_filters(sample_rate=RATE, window_size=50, num_mels=MELS, min_frequency=0.0, max_frequency=500.0)
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(50) / 50)
    padded = np.pad(samples.astype(np.float64) / 32768.0, 25)
    frames = [padded[20 * f : 20 * f + 50] * window for f in range(1 + len(samples) // 20)]
    return np.array([10.0 * np.log10(filters @ np.abs(np.fft.rfft(frame)) ** 2) for frame in frames])


@pytest.mark.parametrize("standardize", ["clip", "constants"])
def test_a_spectrogram_is_that_of_the_clip_alone_and_zero_behind_it(standardize):
    audio, lengths = clips()
    audio[1, 119:] = 500  # which nobody must hear
    made = model(standardize=standardize, mean=-30.0, std=7.0)
    for given in (audio, (audio / 32768.0).astype(np.float32)):
        image, num_rows = made.apply({}, jnp.asarray(given), jnp.asarray(lengths), method="spectrogram")
        assert image.shape == (2, 16, MELS, 1) and num_rows.tolist() == [16, 6]
        for row, length in enumerate(lengths):
            wanted = plain_decibels(audio[row, :length])
            mean, std = (wanted.mean(), wanted.std()) if standardize == "clip" else (-30.0, 7.0)
            np.testing.assert_allclose(image[row, : len(wanted), :, 0], (wanted - mean) / std, atol=2e-4)
            assert not np.any(image[row, len(wanted) :])


def test_silence_is_zero_and_long_clips_are_cut():
    made = model(num_frames=5)
    silent = jnp.zeros((1, LENGTH), jnp.int16)
    image, num_rows = made.apply({}, silent, jnp.array([LENGTH], jnp.int32), method="spectrogram")
    assert image.shape == (1, 5, MELS, 1) and num_rows.tolist() == [5]
    np.testing.assert_array_equal(image, 0.0)


def test_positions_are_real_where_they_show_a_real_frame():
    image = jax.ShapeDtypeStruct((2, 18, MELS, 1), jnp.float32)
    rows = jnp.array([18, 7], jnp.int32)
    # Three rows a position of the ViT, two of the convnet; two and three positions a row.
    for tower, first, per_row, positions in ((VIT, 1, 2, (6, 3)), (CNN, 0, 3, (9, 4))):
        made = model(tower, num_frames=18)
        real = np.asarray(made._real(jnp.zeros(image.shape), rows))
        assert real.sum(axis=1).tolist() == [count * per_row for count in positions]
        assert real[1, : positions[1] * per_row].all()
        hidden, mask = jax.eval_shape(
            lambda image, rows, made=made: made.init_with_output(jax.random.key(0), image, num_rows=rows)[0],
            image,
            rows,
        )
        assert mask.shape == hidden.shape[:2] == (2, first + real.shape[1])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit", dict(patch_size=5, position="sincos", class_token=False, width=8, depth=1, num_heads=2)),
        ("cnn", dict()),
        ("resnet18", dict(depths=(1, 1, 1), widths=(4, 4, 4))),
        ("resnet18", dict(depths=(1, 1), widths=(4, 4), stem="cifar")),
        ("densenet", dict(depths=(1, 1, 1), growth=4)),
        ("mlp", dict(width=8)),
    ],
)
def test_a_backbone_tells_the_grid_of_its_positions(name, options):
    made = build(dict(name=name, **options), IMAGE_MODELS, kind="model", image_size=70, num_channels=1)
    rows, columns = (70, 35) if name == "vit" else (71, 38)
    image = jax.ShapeDtypeStruct((1, rows, columns, 1), jnp.float32)
    hidden = jax.eval_shape(lambda image: made.module().init_with_output(jax.random.key(0), image)[0], image)
    assert math.prod(made.grid(rows, columns)) == hidden.shape[1]
    half = made.num_flops(rows, num_columns=columns)
    assert 0.3 * made.num_flops(rows) < half < 0.7 * made.num_flops(rows) or name == "mlp"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(sample_rate=0), "it reads sounds, and the data give none"),
        (dict(num_mels=300), "makes filters that fall between"),
        (dict(hop_seconds=0.0), "hop=0"),
        (dict(max_frequency=600.0), "half the sample rate"),
        (dict(std=0.0), "model.std=0.0"),
        (dict(tower=VIT, num_mels=7), "model.num_mels=7 does not divide into model.tower.patch_size=3; use a multiple"),
        (dict(tower=VIT, num_frames=16), "such as 18"),
        (dict(tower=VIT | dict(position="learned")), "have 18 frames x 6 mels; use model.tower.position=sincos"),
        (dict(tower=VIT | dict(patch_dropout=0.5)), "model.tower.patch_dropout=0.5"),
        (dict(tower=CNN | dict(num_channels=3)), "a spectrogram has 1"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_a_square_spectrogram_may_have_learned_positions_and_the_tower_computes_in_the_types_of_the_whole():
    made = config(VIT | dict(position="learned"), num_frames=6, dtype="bfloat16")
    assert (made.image_tower.num_patches, made.image_tower.dtype, made.width) == (4, "bfloat16", 8)
