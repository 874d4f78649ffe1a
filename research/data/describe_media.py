"""What a run on images or sounds will really see: splits, classes, values, and a batch as a sheet of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from research.batch import Dataset, Spec, Split
from research.data.rows import read_rows

_SAMPLED = 2048  # rows whose pixels or samples are looked at, evenly spread
_GAP = 2  # pixels between the pictures of a sheet


def describe_pictures(split: Split, spec: Spec) -> dict[str, Any]:
    """Rows, rows by label, and of a sample of rows the mean and the spread of each channel, of pixels in [0, 1]."""
    count = len(split.examples)
    sample = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED)).astype(np.int64))
    pixels = read_rows(split.examples, sample)["image"].astype(np.float64) / 255.0
    about: dict[str, Any] = {
        "rows": count,
        "shape": list(pixels.shape[1:]),
        "mean": pixels.mean(axis=(0, 1, 2)).tolist(),
        "spread": pixels.std(axis=(0, 1, 2)).tolist(),
    }
    return about | _labels(split, spec)


def describe_recordings(split: Split, spec: Spec) -> dict[str, Any]:
    """Rows, rows by label, and of a sample of rows how long the clips are, how loud, and how many reach full scale."""
    count = len(split.examples)
    sample = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED)).astype(np.int64))
    rows = read_rows(split.examples, sample)
    seconds = rows["audio_length"] / spec.sample_rate
    peaks = np.abs(rows["audio"].astype(np.int32)).max(axis=1)
    about: dict[str, Any] = {
        "rows": count,
        "sample_rate": spec.sample_rate,
        "seconds": {name: float(getattr(seconds, name)()) for name in ("min", "mean", "max")},
        "room": spec.audio_length / spec.sample_rate,
        "loudness": float(np.mean([_decibels(row, length) for row, length in _clips(rows)])),
        "at_full_scale": int((peaks >= 2**15 - 1).sum()),
    }
    return about | _labels(split, spec)


def describe_recording_rows(
    batch: Mapping[str, np.ndarray], spec: Spec, *, rows: Sequence[int]
) -> list[dict[str, Any]]:
    """Rows of a batch: their example's id, length and loudness, and the label where there is one."""
    found, clips = [], _clips(batch)
    for row in rows:
        audio, length = clips[row]
        about: dict[str, Any] = {"row": int(row), "example_id": int(batch["example_id"][row])}
        about |= {"seconds": length / spec.sample_rate, "loudness": _decibels(audio, length)}
        if "label" in batch:
            about["label"] = spec.label_names[int(batch["label"][row])]
        found.append(about)
    return found


def describe_repeated_media(dataset: Dataset) -> dict[str, Any]:
    """Pictures or recordings that splits share, to the last bit, and how many training holds more than once."""
    hashes = list(dataset.splits["train"].hashes)
    return {
        "shared_rows": dict(dataset.facts.get("shared_rows", {})),
        "duplicates_in_train": len(hashes) - len(set(hashes)),
        "most_repeated": [],
    }


def describe_picture_rows(batch: Mapping[str, np.ndarray], spec: Spec, *, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of a batch: their example's id, the range of their pixels, and the label where there is one."""
    found = []
    for row in rows:
        image = batch["image"][row]
        about: dict[str, Any] = {"row": int(row), "example_id": int(batch["example_id"][row])}
        about |= {"lowest": int(image.min()), "highest": int(image.max()), "mean": float(image.mean())}
        if "label" in batch:
            about["label"] = spec.label_names[int(batch["label"][row])]
        found.append(about)
    return found


def spectrogram_pictures(spectrograms: np.ndarray) -> np.ndarray:
    """Standardised spectrograms [B F S 1] as pictures in [0, 1], time to the right and low bands at the bottom."""
    return np.clip((spectrograms.swapaxes(1, 2)[:, ::-1] + 2.0) / 5.0, 0.0, 1.0)


def write_sheet(path: Path, stacks: Sequence[np.ndarray], *, most: int = 24, enlarge: int = 0) -> None:
    """A PNG with a column for each example (at most `most`) and a row for each of `stacks`, uint8 [B Y X C], or floats
    in [0, 1]. Small pictures are enlarged to about 64 pixels a side, unless `enlarge` says how often.
    """
    bytes_of = [stack if stack.dtype == np.uint8 else np.rint(np.clip(stack, 0.0, 1.0) * 255.0) for stack in stacks]
    height, width = (max(stack.shape[axis] for stack in bytes_of) for axis in (1, 2))
    factor = enlarge or max(1, 64 // height)
    columns = min(most, *(len(stack) for stack in bytes_of))
    down, across = (side * factor + _GAP for side in (height, width))
    sheet = np.full((down * len(bytes_of) + _GAP, across * columns + _GAP, 3), 255, np.uint8)
    for row, stack in enumerate(bytes_of):
        for column in range(columns):
            picture = np.repeat(np.repeat(stack[column], factor, axis=0), factor, axis=1)
            top, left = _GAP + row * down, _GAP + column * across
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    Image.fromarray(sheet).save(path)


def _labels(split: Split, spec: Spec) -> dict[str, Any]:
    """How many rows have each label, where they have any."""
    labels = np.asarray(split.labels)
    if not labels.size:
        return {}
    counts = np.bincount(labels, minlength=spec.num_classes)
    return {"labels": dict(zip(spec.label_names, counts.tolist(), strict=True))}


def _clips(rows: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, int]]:
    return list(zip(rows["audio"], rows["audio_length"].tolist(), strict=True))


def _decibels(audio: np.ndarray, length: int) -> float:
    """Root mean square of a clip in decibels below full scale; of silence, half a step of 16 bits."""
    power = np.mean(np.square(audio[:length].astype(np.float64)))
    return float(20.0 * np.log10(max(np.sqrt(power), 0.5) / 2**15))
