"""Random augmentation of sound on the device: waves [B T] with their lengths, and masks over spectrograms."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from research.ops.augmentation_checks import check_keys, check_number, check_probability, check_range


@dataclass(frozen=True)
class AudioAugmentation:
    """Waves: a shift in time, a gain, added noise, in this order. Spectrograms: SpecAugment's masks.

    By default nothing happens. What is drawn for a clip depends on its key alone, not on the batch or its padding, and
    one operation's draws do not depend on whether another is on.

    A clip moves by up to the share `shift` of its own length either way, round its end or with zeros coming in. The
    gain is uniform in `gain` (dB). White noise comes to a share `noise_probability` of the clips at a signal-to-noise
    ratio uniform in `noise_ratio` (dB). Samples are not clipped: with gain or noise they may leave [-1, 1].

    SpecAugment (Park et al. 2019) masks `num_time_masks` spans of up to `time_mask_frames` frames, at most the share
    `time_mask_share` of the clip's real frames (the paper's p), and `num_mel_masks` bands of up to `mel_mask_bands`
    bands. The paper's time warping, which its authors found to matter least, is not done.

    Raises:
      ValueError: a key out of its range; when called, arrays of other shapes, or a mask wider than there are bands.
    """

    shift: float = 0.0
    shift_mode: Literal["roll", "zeros"] = "zeros"
    gain: tuple[float, ...] = (0.0, 0.0)
    noise_probability: float = 0.0
    noise_ratio: tuple[float, ...] = (10.0, 30.0)
    num_time_masks: int = 0
    time_mask_frames: int = 100
    time_mask_share: float = 1.0
    num_mel_masks: int = 0
    mel_mask_bands: int = 27

    def __post_init__(self) -> None:
        check_number("shift", self.shift, lowest=0, highest=1, unit="a share of the clip's length")
        check_range("gain", self.gain, unit="dB")
        check_probability("noise_probability", self.noise_probability)
        check_range("noise_ratio", self.noise_ratio, unit="dB of signal over noise")
        check_number("num_time_masks", self.num_time_masks, lowest=0, unit="masks a clip")
        check_number("time_mask_frames", self.time_mask_frames, lowest=1, unit="frames")
        check_number("time_mask_share", self.time_mask_share, lowest=0, highest=1, unit="a share of the clip's frames")
        check_number("num_mel_masks", self.num_mel_masks, lowest=0, unit="masks a clip")
        check_number("mel_mask_bands", self.mel_mask_bands, lowest=1, unit="mel bands")

    def __call__(
        self, waves: Float[Array, "B T"], lengths: Int[Array, " B"], keys: Key[Array, " B"]
    ) -> Float[Array, "B T"]:
        """The augmented waves; samples from a clip's length on are padding and become zero."""
        if waves.ndim != 2 or not jnp.issubdtype(waves.dtype, jnp.floating) or lengths.shape != waves.shape[:1]:
            raise ValueError(
                f"augmentation got waves {waves.dtype}{list(waves.shape)} with lengths {list(lengths.shape)}; wanted "
                "float [B T] and [B]"
            )
        check_keys(keys, waves.shape[0])
        return jax.vmap(self._augment)(waves, lengths, keys)

    def mask_spectrograms(
        self, spectrograms: Float[Array, "B T S"], where: Bool[Array, "B T"], keys: Key[Array, " B"]
    ) -> Float[Array, "B T S"]:
        """The spectrograms [B frames mels] with masks at random places among the real frames, which come first.

        What is masked takes the mean over the clip's real frames: the paper's zero, whose spectrograms have mean zero.
        Frames of padding stay as they are.
        """
        if spectrograms.ndim != 3 or where.shape != spectrograms.shape[:2]:
            raise ValueError(
                f"augmentation got spectrograms {list(spectrograms.shape)} with a mask {list(where.shape)}; wanted "
                "[B frames mels] and [B frames]"
            )
        check_keys(keys, spectrograms.shape[0])
        if self.num_mel_masks and self.mel_mask_bands > spectrograms.shape[2]:
            raise ValueError(
                f"augmentation.mel_mask_bands={self.mel_mask_bands} is more than the {spectrograms.shape[2]} bands of "
                "the spectrograms; wanted a part of them"
            )
        return jax.vmap(self._mask)(spectrograms, where, keys)

    def _augment(self, wave: Array, length: Array, key: Array) -> Array:
        first, second = jax.random.split(key)
        shift, gain, noisy, ratio = jax.random.uniform(first, (4,))
        wave = jnp.where(_real(wave, length), wave, 0.0)
        if self.shift:
            samples = jnp.round(self.shift * length * (2.0 * shift - 1.0)).astype(jnp.int32)
            wave = shift_in_time(wave, length, samples, mode=self.shift_mode)
        if any(self.gain):
            wave = amplify(wave, self.gain[0] + (self.gain[1] - self.gain[0]) * gain)
        if self.noise_probability:
            ratio = self.noise_ratio[0] + (self.noise_ratio[1] - self.noise_ratio[0]) * ratio
            with_noise = add_noise(wave, length, white_noise(second, wave.shape[0]), ratio)
            wave = jnp.where(noisy < self.noise_probability, with_noise, wave)
        return wave

    def _mask(self, spectrogram: Array, where: Array, key: Array) -> Array:
        num_frames, num_mels = jnp.sum(where), spectrogram.shape[1]
        times, mels = jax.random.split(key)
        masked = jnp.zeros(spectrogram.shape, bool)
        if self.num_time_masks:
            widest = jnp.minimum(self.time_mask_frames, jnp.floor(self.time_mask_share * num_frames))
            spans = draw_spans(times, num_spans=self.num_time_masks, widest=widest, among=num_frames)
            masked |= in_spans(spans, size=spectrogram.shape[0])[:, None]
        if self.num_mel_masks:
            widest, among = jnp.asarray(self.mel_mask_bands), jnp.asarray(num_mels)
            spans = draw_spans(mels, num_spans=self.num_mel_masks, widest=widest, among=among)
            masked |= in_spans(spans, size=num_mels)[None, :]
        return fill_with_mean(spectrogram, where, masked)


def shift_in_time(
    wave: Float[Array, " T"], length: Int[Array, ""], shift: Int[Array, ""], *, mode: Literal["roll", "zeros"]
) -> Float[Array, " T"]:
    """The clip `shift` samples later (earlier if negative), within its length: round its end, or zeros come in."""
    source = jnp.arange(wave.shape[0]) - shift
    if mode == "roll":
        source = source % jnp.maximum(length, 1)
    kept = (source >= 0) & (source < length) & _real(wave, length)
    return jnp.where(kept, wave[jnp.clip(source, 0, wave.shape[0] - 1)], 0.0)


def amplify(wave: Float[Array, " T"], gain: Float[Array, ""]) -> Float[Array, " T"]:
    """The wave times 10^(gain / 20), the gain in dB."""
    return wave * 10.0 ** (gain / 20.0)


def white_noise(key: Key[Array, ""], num_samples: int) -> Float[Array, " T"]:
    """Standard normal samples; the first of a longer draw are those of a shorter one, so padding does not matter."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(-(-num_samples // _BLOCK), dtype=jnp.uint32))
    blocks = jax.vmap(lambda key: jax.random.normal(key, (_BLOCK,)))(keys)
    return blocks.reshape(-1)[:num_samples]


def add_noise(
    wave: Float[Array, " T"], length: Int[Array, ""], noise: Float[Array, " T"], ratio: Float[Array, ""]
) -> Float[Array, " T"]:
    """The wave plus noise scaled to this signal-to-noise ratio (dB of mean squares over the real samples).

    A silent clip has no ratio and stays silent.
    """
    real = _real(wave, length)
    signal = jnp.sum(jnp.where(real, wave, 0.0) ** 2)
    noise = jnp.where(real, noise, 0.0)
    scale = jnp.sqrt(signal / jnp.maximum(jnp.sum(noise**2), 1e-20)) * 10.0 ** (-ratio / 20.0)
    return wave + scale * noise


def draw_spans(
    key: Key[Array, ""], *, num_spans: int, widest: Array, among: Array
) -> tuple[Int[Array, " N"], Int[Array, " N"]]:
    """First positions and widths: widths uniform in 0 … widest, each span uniform among the places where it fits."""
    numbers = jax.random.uniform(key, (2, num_spans))
    widths = jnp.floor(numbers[0] * (jnp.minimum(widest, among) + 1))
    firsts = jnp.floor(numbers[1] * (among - widths + 1))
    return firsts.astype(jnp.int32), widths.astype(jnp.int32)


def in_spans(spans: tuple[Int[Array, " N"], Int[Array, " N"]], *, size: int) -> Bool[Array, " T"]:
    """True at positions within one of the spans (first positions, widths)."""
    firsts, widths = spans[0][:, None], spans[1][:, None]
    positions = jnp.arange(size)[None, :]
    return jnp.any((positions >= firsts) & (positions < firsts + widths), axis=0)


def fill_with_mean(
    spectrogram: Float[Array, "T S"], where: Bool[Array, " T"], masked: Bool[Array, "T S"]
) -> Float[Array, "T S"]:
    """The real frames' mean where a real frame is masked."""
    real = where[:, None]
    total = jnp.sum(jnp.where(real, spectrogram, 0.0))
    mean = total / jnp.maximum(jnp.sum(where) * spectrogram.shape[1], 1)
    return jnp.where(masked & real, mean, spectrogram)


_BLOCK = 4096  # samples that are drawn under one key


def _real(wave: Array, length: Array) -> Array:
    return jnp.arange(wave.shape[0]) < length


# Presets; a block may change any of their keys.
AUDIO_AUGMENTATIONS: Mapping[str, Callable[..., AudioAugmentation]] = {
    "none": AudioAugmentation,
    # Park et al. 2019, table 1: the policies LB and LD for LibriSpeech, without the time warp.
    "spec_augment_basic": functools.partial(AudioAugmentation, num_time_masks=1, num_mel_masks=1),
    "spec_augment_double": functools.partial(AudioAugmentation, num_time_masks=2, num_mel_masks=2),
}
