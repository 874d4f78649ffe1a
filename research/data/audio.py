"""Recordings, with one class each or without: decoded once to clips of one length and one sample rate."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np

from research.batch import Dataset
from research.data.audio_decoding import decode_audio
from research.data.decoded import Decoded, decode_once
from research.data.media import UNITS, Media
from research.data.media_sources import open_media
from research.data.media_splits import MediaPart, Selections, media_dataset
from research.data.splits import fingerprint


def audio_classification(
    path: str,
    *,
    sample_rate: int,
    seconds: float,
    audio_field: str = "audio",
    label_field: str = "label",
    file_field: str = "file",
    select: tuple[str, ...] = (),
    valid_path: str = "",
    valid_split: str = "",
    valid_select: tuple[str, ...] = (),
    valid_fraction: float = 0.1,
    test_path: str = "",
    test_select: tuple[str, ...] = (),
    shift_path: str = "",
    shift_select: tuple[str, ...] = (),
    folds: int = 0,
    fold: int = 0,
    slice_fields: tuple[str, ...] = (),
    skip_undecodable: bool = False,
    seed: int = 0,
    num_labels: int = 0,
    labels_seed: int = 0,
    label_names: tuple[str, ...] = (),
) -> Dataset:
    """Rows of `audio` int16 [T], `audio_length` (its samples) and `label`, of what `media_sources.open_media` opens.

    A clip is the first `seconds` of a recording (T = seconds · sample_rate samples), zeros behind where it is shorter.
    Channels are averaged, and other sample rates resampled, as `decode_audio` says; how many were is among the facts.
    Other arguments as for `image_classification`.

    Raises:
      ValueError: bad data, a recording that cannot be decoded, a label that training never sees, or the same data given
        for training and for evaluation.
    """
    length = round(seconds * sample_rate) if sample_rate > 0 else 0
    if length < 1:
        raise ValueError(f"sample_rate={sample_rate} and seconds={seconds} give clips without samples; use larger ones")
    selections = Selections(
        path=path,
        select=select,
        valid_path=valid_path,
        valid_split=valid_split,
        valid_select=valid_select,
        test_path=test_path,
        test_select=test_select,
        shift_path=shift_path,
        shift_select=shift_select,
    )
    return media_dataset(
        selections.open(
            partial(open_media, kind="audio", field=audio_field, file_field=file_field),
            partial(decode_recordings, sample_rate=sample_rate, length=length),
            skip_undecodable=skip_undecodable,
        ),
        partial(_tell, sample_rate=sample_rate, length=length),
        key="audio",
        label_field=label_field,
        label_names=label_names,
        valid_fraction=valid_fraction,
        folds=folds,
        fold=fold,
        slice_fields=slice_fields,
        seed=seed,
        num_labels=num_labels,
        labels_seed=labels_seed,
        sample_rate=sample_rate,
        audio_length=length,
    )


# The same without labels: whatever there are stay unread.
audio = partial(audio_classification, label_field="")


def decode_recordings(media: Media, *, sample_rate: int, length: int) -> Decoded:
    """The first `length` samples of each recording, int16 [M length].

    Of each is noted how many samples it has in all at `sample_rate`, and with which rate and channels it came.
    """

    def decode(index: int) -> tuple[np.ndarray, tuple[int, ...]]:
        samples, rate, num_channels = decode_audio(media.read(index), sample_rate=sample_rate)
        return samples[:length], (len(samples), rate, num_channels)

    return decode_once(
        decode,
        len(media.names),
        shape=(length,),
        dtype="int16",
        num_notes=3,
        key=fingerprint("audio", media.fingerprint, str(sample_rate)),
        unit=UNITS["audio"],
    )


def _tell(part: MediaPart, *, sample_rate: int, length: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    samples, rates, num_channels = part.decoded.notes[part.contents].T
    kept = np.minimum(samples, length)
    resampled = Counter(rate for rate in rates.tolist() if rate != sample_rate)
    return {"audio_length": kept.astype(np.int32)}, {
        "seconds": float(kept.sum() / sample_rate),
        "fill": float(kept.mean() / length),
        "cut_rows": int((samples > length).sum()),
        "resampled_from": {str(rate): count for rate, count in sorted(resampled.items())},
        "averaged_channels": int((num_channels > 1).sum()),
    }
