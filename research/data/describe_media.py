"""What a run on images will really see: splits, classes, pixel values, and a batch as a sheet of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from research.batch import Dataset, Spec, Split
from research.data.rows import read_rows

_SAMPLED = 2048  # rows whose pixels are looked at, evenly spread
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
    labels = np.asarray(split.labels)
    if labels.size:
        counts = np.bincount(labels, minlength=spec.num_classes)
        about["labels"] = dict(zip(spec.label_names, counts.tolist(), strict=True))
    return about


def describe_repeated_pictures(dataset: Dataset) -> dict[str, Any]:
    """Pictures that splits share, pixel by pixel, and how many training holds more than once."""
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


def write_sheet(path: Path, stacks: Sequence[np.ndarray], *, most: int = 24, enlarge: int = 0) -> None:
    """A PNG with a column for each example (at most `most`) and a row for each of `stacks`, uint8 [B Y X C], or floats
    in [0, 1]. Small pictures are enlarged to about 64 pixels a side, unless `enlarge` says how often.
    """
    bytes_of = [stack if stack.dtype == np.uint8 else np.rint(np.clip(stack, 0.0, 1.0) * 255.0) for stack in stacks]
    side = max(stack.shape[1] for stack in bytes_of)
    factor = enlarge or max(1, 64 // side)
    columns = min(most, *(len(stack) for stack in bytes_of))
    cell = side * factor + _GAP
    sheet = np.full((cell * len(bytes_of) + _GAP, cell * columns + _GAP, 3), 255, np.uint8)
    for row, stack in enumerate(bytes_of):
        for column in range(columns):
            picture = np.repeat(np.repeat(stack[column], factor, axis=0), factor, axis=1)
            top, left = _GAP + row * cell, _GAP + column * cell
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    Image.fromarray(sheet).save(path)
