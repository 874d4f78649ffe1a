"""The floor of sounds: cepstra against a plain transform, and a machine that tells tones apart."""

import numpy as np
import pytest

from research.batch import Dataset, Spec, Split
from research.evaluation.audio_tasks import audio_floors, cepstra
from research.evaluation.tasks import class_floors
from research.ops.log_mel import mel_filters


class Clips:
    """Rows of sounds."""

    def __init__(self, audio, lengths):
        self._audio, self._lengths = audio, lengths

    def __len__(self):
        return len(self._audio)

    def __getitem__(self, index):
        return {"audio": self._audio[index], "audio_length": self._lengths[index]}


def tones(labels, seed):
    """Two chords, told apart by their upper tone, in noise, of different lengths."""
    draw = np.random.default_rng(seed)
    times = np.arange(900) / 4000.0
    waves = [np.sin(400.0 * np.pi * times) + np.sin((900.0 + 900.0 * label) * np.pi * times) for label in labels]
    lengths = draw.integers(500, 900, len(labels))
    audio = 6000.0 * (np.array(waves) + 0.3 * draw.normal(size=(len(labels), 900)))
    audio[np.arange(900)[None, :] >= lengths[:, None]] = 0
    return Split(Clips(audio.astype(np.int16), lengths.astype(np.int32)), labels=labels)


def test_cepstra_are_those_of_the_clip_alone():
    audio = np.random.default_rng(0).integers(-9000, 9000, (2, 700)).astype(np.int16)
    audio[1, 431:] = 0
    found = cepstra(audio, np.array([700, 431]), sample_rate=4000)
    assert found.shape == (2, 12 * 16)
    filters = mel_filters(sample_rate=4000, window_size=128, num_mels=26, min_frequency=0.0, max_frequency=2000.0)
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(128) / 128)
    for row, length in enumerate((700, 431)):
        padded = np.pad(audio[row, :length] / 32768.0, 64)
        frames = np.array([padded[40 * f : 40 * f + 128] * window for f in range(1 + length // 40)])
        mels = 10.0 * np.log10(np.abs(np.fft.rfft(frames)) ** 2 @ filters.T)
        k, n = np.arange(1, 13)[:, None], np.arange(26)[None, :]
        values = mels @ (np.sqrt(2.0 / 26) * np.cos(np.pi * k * (2 * n + 1) / 52)).T
        places = np.linspace(0.0, len(frames) - 1, 16)
        below = np.minimum(places.astype(int), len(frames) - 2)
        share = (places - below)[:, None]
        wanted = values[below] * (1.0 - share) + values[below + 1] * share
        np.testing.assert_allclose(found[row].reshape(16, 12), wanted, atol=2e-3)


def test_the_floor_tells_tones_apart_and_stands_beside_the_commonest_class():
    splits = {"train": tones([0, 1] * 15 + [1], 1), "val": tones([0, 1, 0], 2)}
    data = Dataset(splits, Spec(sample_rate=4000, audio_length=900, label_names=("low", "high")))
    found = class_floors(data, "val")
    assert found == {"mfcc_svm_accuracy": 1.0, "commonest_accuracy": pytest.approx(1.0 / 3.0)}


def test_there_is_no_floor_without_labels():
    data = Dataset({"train": tones([0, 1], 1), "val": Split(Clips(np.zeros((1, 9)), [9]))}, Spec(sample_rate=4000))
    assert audio_floors(data, "val") == {}
