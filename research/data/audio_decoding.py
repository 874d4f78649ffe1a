"""Recordings, encoded or plain, as int16 samples of one channel at one sample rate."""

from __future__ import annotations

import io
import math
import struct

import numpy as np

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # WAVE format tags
_UNKNOWN_SIZE = 0xFFFFFFFF  # of a file that was written as a stream

Recording = tuple[np.ndarray, int]  # samples [T] or [T channels], int16 or floating from -1 to 1; and their rate in Hz


def decode_audio(content: bytes | Recording, *, sample_rate: int) -> tuple[np.ndarray, int, int]:
    """The samples, int16 [T] at `sample_rate`; the rate and the number of channels that they came with.

    Channels are averaged; another rate is resampled by a polyphase filter; what passes full scale is clipped. 16-bit
    samples of one channel at that rate are left as they are.

    Raises:
      ValueError: it cannot be decoded, is damaged or holds no sound; why, but not which recording.
    """
    if isinstance(content, tuple):
        samples, rate = _from_array(*content)
    elif content[:4] == b"RIFF":
        samples, rate = read_wav(content)
    else:
        samples, rate = _read_compressed(content)
    if not samples.size:
        raise ValueError("it holds no sound")
    if not np.isfinite(samples).all():
        raise ValueError("it holds samples that are not finite")
    if rate < 1:
        raise ValueError(f"its sample rate is {rate}")
    mono = samples.mean(axis=1)
    if rate != sample_rate:
        from scipy.signal import resample_poly

        common = math.gcd(rate, sample_rate)
        mono = resample_poly(mono, sample_rate // common, rate // common)
    return np.clip(np.round(mono * 2**15), -(2**15), 2**15 - 1).astype(np.int16), rate, samples.shape[1]


def read_wav(content: bytes) -> tuple[np.ndarray, int]:
    """Samples float64 [T channels] from -1 to 1 of a WAVE file (PCM of 8 to 32 bits, or floating), and their rate.

    Raises:
      ValueError: another encoding, or a file that ends early (libraries read what is there without a word).
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError("it is no WAVE file")
    form: tuple[int, ...] = ()
    place = 12
    while place + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, place)
        place += 8
        if name == b"fmt ":
            form = _read_format(content[place : place + size])
        elif name == b"data":
            if not form:
                raise ValueError("its data stand before its format")
            if size == _UNKNOWN_SIZE:
                size = len(content) - place
            if place + size > len(content):
                raise ValueError(f"it ends after {len(content) - place} of {size} bytes of sound")
            tag, channels, rate, width = form
            size -= size % (width * channels)
            return _samples(content[place : place + size], tag, width).reshape(-1, channels), rate
        place += size + size % 2
    raise ValueError("it ends before its sound begins")


def _read_format(chunk: bytes) -> tuple[int, int, int, int]:
    """Format tag, channels, rate and bytes of a sample."""
    if len(chunk) < 16:
        raise ValueError("its format is cut off")
    tag, channels, rate, _, block, _ = struct.unpack_from("<HHIIHH", chunk)
    if tag == EXTENSIBLE and len(chunk) >= 26:
        (tag,) = struct.unpack_from("<H", chunk, 24)
    width = block // channels if channels else 0
    if (tag, width) not in {(PCM, 1), (PCM, 2), (PCM, 3), (PCM, 4), (FLOAT, 4), (FLOAT, 8)}:
        raise ValueError(
            f"its format {tag} of {8 * width} bits is not read here; wanted PCM of 8, 16, 24 or 32 bits, or floating "
            "point of 32 or 64"
        )
    return tag, channels, rate, width


def _samples(raw: bytes, tag: int, width: int) -> np.ndarray:
    if tag == FLOAT:
        return np.frombuffer(raw, f"<f{width}").astype(np.float64)
    if width == 1:  # the only unsigned one
        return (np.frombuffer(raw, np.uint8).astype(np.float64) - 2**7) / 2**7
    if width == 3:
        padded = np.zeros((len(raw) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        return padded.view("<i4")[:, 0] / 2**31
    return np.frombuffer(raw, f"<i{width}") / 2 ** (8 * width - 1)


def _read_compressed(content: bytes) -> tuple[np.ndarray, int]:
    """FLAC, Ogg and MP3, float64 [T channels]."""
    import soundfile  # brings libsndfile along, which no other dependency does

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            samples = file.read(dtype="float64", always_2d=True)
            expected, rate = file.frames, file.samplerate
    except soundfile.LibsndfileError as error:
        raise ValueError(error.error_string.rstrip(".")) from error
    if len(samples) < expected:
        raise ValueError(f"it ends after {len(samples)} of {expected} samples")
    return samples, rate


def _from_array(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    if samples.ndim not in (1, 2):
        raise ValueError(f"its shape is {samples.shape}; wanted [T] or [T channels]")
    if samples.dtype == np.int16:
        scaled = samples / 2**15
    elif samples.dtype.kind == "f":
        scaled = samples.astype(np.float64)
    else:
        raise ValueError(f"it is an array of {samples.dtype}; wanted int16, or floating numbers from -1 to 1")
    return scaled.reshape(len(samples), -1) if samples.size else scaled.reshape(0, 1), rate
