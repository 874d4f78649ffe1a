"""Log mel spectrograms of waves [B T], as librosa computes them."""

from __future__ import annotations

import functools
import math
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

FLOOR = 1e-10  # the least power, -100 dB

Samples = TypeVar("Samples", int, jax.Array)


def log_mel(
    wave: Float[Array, "B T"],
    *,
    sample_rate: int,
    window_size: int,
    hop: int,
    num_mels: int,
    max_frequency: float,
    min_frequency: float = 0.0,
) -> Float[Array, "B F S"]:
    """Power in mel bands, in dB over 1, [B frames mels]; frame f is centred at sample f · hop.

    Librosa's `power_to_db(melspectrogram(y, n_fft=window_size, center=True, pad_mode="constant"), ref=1, amin=1e-10,
    top_db=None)` with its defaults: a periodic Hann window, zeros before and behind the wave, squared magnitudes,
    Slaney's mel scale with filters of equal area. Of a clip padded with zeros the first `frame_count` frames are those
    of the clip alone. In float32 a band is right to 0.001 dB down to 70 dB below its frame's loudest, then to 0.1 dB
    (measured on a pure tone).

    Raises:
      ValueError: numbers that make no filters, or filters that no frequency of this window falls into.
    """
    _check(sample_rate, window_size, hop, num_mels, min_frequency, max_frequency)
    filters = mel_filters(
        sample_rate=sample_rate,
        window_size=window_size,
        num_mels=num_mels,
        min_frequency=min_frequency,
        max_frequency=max_frequency,
    )
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(window_size) / window_size)
    frames = _frames(wave.astype(jnp.float32), window_size, hop) * jnp.asarray(window, jnp.float32)[None, None, :]
    # Not a product with a DFT matrix: that took 2 to 3 times as long on a CPU (window 400, hop 160), and on a TPU
    # float32 products come in six passes.
    spectrum = jnp.fft.rfft(frames)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    mels = jnp.einsum("BFN,SN->BFS", power, jnp.asarray(filters, jnp.float32), precision=jax.lax.Precision.HIGHEST)
    return 10.0 * jnp.log10(jnp.maximum(mels, FLOOR))


def frame_count(length: Samples, *, window_size: int, hop: int) -> Samples:
    """The frames of a clip of so many samples: 1 + length // hop for an even window. Of arrays too."""
    return 1 + (length - window_size % 2) // hop


@functools.lru_cache(maxsize=32)
def mel_filters(
    *, sample_rate: int, window_size: int, num_mels: int, min_frequency: float, max_frequency: float
) -> np.ndarray:
    """Triangles float64 [mels, window_size // 2 + 1], evenly spaced on Slaney's mel scale, each of area 1 in Hz."""
    edges = _mel_to_hertz(np.linspace(_hertz_to_mel(min_frequency), _hertz_to_mel(max_frequency), num_mels + 2))
    bins = np.arange(window_size // 2 + 1) * (sample_rate / window_size)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    filters = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (high - low)
    if not filters.any(axis=1).all():
        raise ValueError(
            f"num_mels={num_mels} between {min_frequency:g} and {max_frequency:g} Hz makes filters that fall between "
            f"the {sample_rate / window_size:g} Hz steps of a window of {window_size} samples; wanted fewer mels or a "
            "longer window"
        )
    filters.setflags(write=False)
    return filters


# Slaney's Auditory Toolbox (1998): linear below 1 kHz, 200 / 3 Hz a mel; above, 27 mels for a factor of 6.4.
_HERTZ_A_MEL = 200.0 / 3.0
_BREAK_HERTZ = 1000.0
_BREAK_MEL = _BREAK_HERTZ / _HERTZ_A_MEL
_LOG_STEP = math.log(6.4) / 27.0


def _hertz_to_mel(frequency: float) -> float:
    if frequency < _BREAK_HERTZ:
        return frequency / _HERTZ_A_MEL
    return _BREAK_MEL + math.log(frequency / _BREAK_HERTZ) / _LOG_STEP


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    above = _BREAK_HERTZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _HERTZ_A_MEL, above)


def _frames(wave: Array, window_size: int, hop: int) -> Float[Array, "B F N"]:
    """The overlapping windows, put together from blocks of `hop` samples: slices, where indices would be a gather."""
    num_frames = frame_count(wave.shape[1], window_size=window_size, hop=hop)
    num_blocks = math.ceil(window_size / hop)
    half, total = window_size // 2, (num_frames + num_blocks - 1) * hop
    padded = jnp.pad(wave, ((0, 0), (half, max(0, total - half - wave.shape[1]))))[:, :total]
    blocks = padded.reshape(wave.shape[0], -1, hop)
    pieces = [blocks[:, number : number + num_frames] for number in range(num_blocks)]
    return jnp.concatenate(pieces, axis=2)[..., :window_size]


def _check(
    sample_rate: int, window_size: int, hop: int, num_mels: int, min_frequency: float, max_frequency: float
) -> None:
    for name, value in (("sample_rate", sample_rate), ("hop", hop), ("num_mels", num_mels)):
        if value < 1:
            raise ValueError(f"{name}={value}; wanted 1 or more")
    if window_size < 2:
        raise ValueError(f"window_size={window_size}; wanted 2 or more samples, such as 400 at 16 kHz")
    if not 0.0 <= min_frequency < max_frequency <= sample_rate / 2:
        raise ValueError(
            f"min_frequency={min_frequency:g}, max_frequency={max_frequency:g}: wanted 0 <= min < max <= "
            f"{sample_rate / 2:g} Hz, half the sample rate"
        )
