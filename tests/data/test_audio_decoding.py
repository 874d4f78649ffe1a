"""Recordings of every kind become 16-bit samples of one channel at one rate; damaged ones are refused."""

import io
import struct
import wave

import numpy as np
import pytest
import scipy.io.wavfile

from research.data.audio_decoding import decode_audio, read_wav
from tests.media_files import recordings, wav

CLIP = recordings([1009])[0]


def written(samples, rate=8000):
    stream = io.BytesIO()
    scipy.io.wavfile.write(stream, rate, samples)
    return stream.getvalue()


def compressed(samples, form, rate=8000):
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=form)
    return stream.getvalue()


def with_sizes(content, size):
    """A WAVE file whose data chunk claims `size` bytes."""
    at = content.index(b"data") + 4
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


def test_sixteen_bits_of_one_channel_are_left_as_they_are():
    samples, rate, num_channels = decode_audio(wav(CLIP), sample_rate=8000)
    np.testing.assert_array_equal(samples, CLIP)
    assert samples.dtype == np.int16 and (rate, num_channels) == (8000, 1)
    np.testing.assert_array_equal(decode_audio((CLIP, 8000), sample_rate=8000)[0], CLIP)
    np.testing.assert_array_equal(decode_audio((CLIP / 2**15, 8000), sample_rate=8000)[0], CLIP)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_kind_of_wave_reads_as_scipy_reads_it(dtype, channels):
    rng = np.random.default_rng(0)
    samples = rng.uniform(-1, 1, (101, channels))
    if dtype == "uint8":
        samples = np.round(samples * 127 + 128)
    elif dtype.startswith("int"):
        samples = np.round(samples * np.iinfo(dtype).max)
    content = written(samples.astype(dtype))
    found, rate = read_wav(content)
    _, wanted = scipy.io.wavfile.read(io.BytesIO(content))
    shift, scale = {"uint8": (128, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}.get(dtype, (0, 1))
    np.testing.assert_array_equal(found, ((wanted.astype(np.float64) - shift) / scale).reshape(101, channels))
    assert rate == 8000


def test_twenty_four_bits_and_chunks_between_are_read():
    values = np.array([0, 1, -1, 2**23 - 1, -(2**23), 12345, -54321])
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setparams((1, 3, 11025, 0, "NONE", ""))
        file.writeframes(b"".join(int(value).to_bytes(3, "little", signed=True) for value in values))
    content = stream.getvalue()
    listed = content[:36] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + content[36:]
    for each in (content, listed):
        found, rate = read_wav(each)
        np.testing.assert_array_equal(found[:, 0], values / 2**23)
        assert rate == 11025


def test_extensible_files_and_streams_are_read():
    plain = wav(CLIP)
    extended = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 16, 0) + struct.pack("<H", 1) + b"\0" * 14
    content = plain[:16] + struct.pack("<I", len(extended)) + extended + plain[36:]
    np.testing.assert_array_equal(read_wav(content)[0][:, 0], CLIP / 2**15)
    np.testing.assert_array_equal(read_wav(with_sizes(plain, 0xFFFFFFFF))[0][:, 0], CLIP / 2**15)


def test_channels_are_averaged():
    both = np.stack([CLIP, CLIP[::-1]], axis=1)
    samples, _, num_channels = decode_audio(wav(both), sample_rate=8000)
    assert num_channels == 2
    np.testing.assert_allclose(samples, both.astype(np.float64).mean(axis=1), atol=0.5)


@pytest.mark.parametrize(("rate", "wanted"), [(8000, 16000), (16000, 8000), (8000, 11025)])
def test_another_rate_is_resampled(rate, wanted):
    def tone(at):
        return 0.5 * np.sin(2 * np.pi * 440 * np.arange(at // 2) / at)

    samples, found, _ = decode_audio((tone(rate), rate), sample_rate=wanted)
    assert found == rate and abs(len(samples) - wanted // 2) <= 1
    inner = slice(200, len(samples) - 200)  # the filter sees silence beyond the ends
    # 2e-3: the ripple of the filter's pass band, beside a rounding of 1.5e-5
    np.testing.assert_allclose(samples[inner] / 2**15, tone(wanted)[: len(samples)][inner], atol=2e-3)


def test_what_passes_full_scale_is_clipped():
    samples, _, _ = decode_audio((np.array([1.5, -1.5, 0.5]), 8000), sample_rate=8000)
    assert samples.tolist() == [2**15 - 1, -(2**15), 2**14]


def test_flac_is_exact_and_ogg_and_mp3_keep_their_length():
    np.testing.assert_array_equal(decode_audio(compressed(CLIP, "FLAC"), sample_rate=8000)[0], CLIP)
    for form in ("OGG", "MP3"):
        assert len(decode_audio(compressed(CLIP, form), sample_rate=8000)[0]) == len(CLIP)


def test_damaged_flac_is_refused():
    content = compressed(recordings([20011])[0], "FLAC")
    with pytest.raises(ValueError, match="sync|ends after"):
        decode_audio(content[: len(content) // 2], sample_rate=8000)
    with pytest.raises(ValueError, match="^(?!.*Traceback).+"):
        decode_audio(b"no sound", sample_rate=8000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wav(CLIP)[:-100], "it ends after 1918 of 2018 bytes of sound"),
        (wav(CLIP)[:40], "it ends before its sound begins"),
        (wav(CLIP)[:30], "its format is cut off|before its sound begins"),
        (b"RIFF1234AVI ", "it is no WAVE file"),
        (wav(CLIP[:0]), "it holds no sound"),
        ((CLIP[:0], 8000), "it holds no sound"),
        (wav(CLIP)[:20] + struct.pack("<H", 7) + wav(CLIP)[22:], "its format 7 of 16 bits is not read here"),
        ((np.array([0.1, np.nan]), 8000), "not finite"),
        ((CLIP.astype(np.int64), 8000), "an array of int64; wanted int16"),
        ((np.zeros((2, 3, 5), np.int16), 8000), "its shape is \\(2, 3, 5\\)"),
        ((CLIP, 0), "its sample rate is 0"),
    ],
)
def test_what_is_damaged_or_silent_is_refused_with_the_reason(content, message):
    with pytest.raises(ValueError, match=message):
        decode_audio(content, sample_rate=8000)
