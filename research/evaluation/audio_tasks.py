"""What is measured of sounds beside a network: cepstra of a few moments of each clip, with a support vector machine."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.fft import dct

from research.batch import Dataset, Split
from research.ops.log_mel import frame_count, log_mel

NUM_CEPSTRA, NUM_MOMENTS = 12, 16
_NUM_MELS = 26
_MOST = 5_000  # training rows that the floor learns from: it takes the square of their number
_ROWS = 256  # clips that are transformed at a time


def audio_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """Accuracy of an SVM (RBF, C = 10) on the standardised `cepstra` of at most 5,000 training clips; none without
    labels."""
    from sklearn.pipeline import make_pipeline  # a second to import: only when asked for
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    train, part = dataset.splits["train"], dataset.splits[split]
    if not len(part.labels) or not len(train.labels):
        return {}
    rate = dataset.spec.sample_rate
    known = cepstra(*_read_clips(train, most=_MOST), sample_rate=rate)
    labels = np.asarray(train.labels)[: len(known)]
    if len(np.unique(labels)) < 2:
        return {}
    machine = make_pipeline(StandardScaler(), SVC(C=10.0, kernel="rbf", gamma="scale")).fit(known, labels)
    told = machine.predict(cepstra(*_read_clips(part, most=len(part.examples)), sample_rate=rate))
    return {"mfcc_svm_accuracy": float((told == np.asarray(part.labels)).mean())}


def cepstra(audio: np.ndarray, lengths: np.ndarray, *, sample_rate: int) -> np.ndarray:
    """The coefficients 1 to 12 of the orthonormal DCT of 26 log-mel bands (32 ms, every 10 ms), at 16 moments evenly
    spread over each clip (linear in between), float64 [N 192]; `audio` is int16 [N T]."""
    window_size, hop = round(0.032 * sample_rate), round(0.01 * sample_rate)
    numbers = dict(sample_rate=sample_rate, window_size=window_size, hop=hop, num_mels=_NUM_MELS)
    transform = jax.jit(functools.partial(log_mel, **numbers, max_frequency=sample_rate / 2))
    found = []
    for first in range(0, len(audio), _ROWS):
        rows = audio[first : first + _ROWS]
        padded = np.pad(rows, ((0, _ROWS - len(rows)), (0, 0)))  # one program
        mels = np.asarray(transform(jnp.asarray(padded, jnp.float32) / 32768.0), np.float64)[: len(rows)]
        coefficients = np.asarray(dct(mels, axis=-1, norm="ortho"))[:, :, 1 : NUM_CEPSTRA + 1]
        for values, length in zip(coefficients, lengths[first : first + _ROWS], strict=True):
            num_frames = frame_count(int(length), window_size=window_size, hop=hop)
            moments = np.linspace(0.0, num_frames - 1, NUM_MOMENTS)
            columns = [np.interp(moments, np.arange(num_frames), each) for each in values[:num_frames].T]
            found.append(np.stack(columns, axis=1).reshape(-1))
    return np.stack(found)


def _read_clips(part: Split, *, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the first `most` rows of a split."""
    places, rows = np.arange(min(len(part.examples), most)), getattr(part.examples, "rows", None)
    if rows is not None:
        found = rows(places)
        return found["audio"], found["audio_length"]
    each = [part.examples[int(place)] for place in places]
    return np.stack([row["audio"] for row in each]), np.array([row["audio_length"] for row in each])
