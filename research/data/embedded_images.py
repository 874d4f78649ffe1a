"""Images that the installed packages bring along, for work without a network.

  glyphs  pictures of Unicode characters with their names, 32 x 32 x 1: {"image", "name", …}, see `glyphs.py`
  digits  scikit-learn's handwritten digits, 8 x 8 x 1: {"image", "label"}

Images are uint8 [Y X C], 0 black in glyphs, 0 the paper in digits. `digits` (1,797) is divided by a seeded choice
within each class: 60 % train, 15 % val, 25 % test. Its 13 writers are not told apart: their hands are in every split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from research.data import glyphs

SPLITS = ("train", "val", "test")
_DIGIT_SHARES = (0.6, 0.15)  # of train and of val; the rest is the test


def splits(name: str) -> tuple[str, ...]:
    """The named splits of an embedded set of images; the first three are `SPLITS`."""
    return _set(name).splits


def records(name: str, split: str) -> Sequence[dict[str, Any]]:
    """The records of one split, in a fixed order; changing one changes nothing for the next caller.

    Raises:
      ValueError: no such set or split.
    """
    return _checked(name, split).records(split)


def arrays(name: str, split: str) -> dict[str, np.ndarray]:
    """One split at once, in the order of its records: "images" uint8 [N Y X C], and "labels" int64 [N] of digits or
    "codepoints" int32 [N] of glyphs. Read-only.

    Raises:
      ValueError: no such set or split.
    """
    return _checked(name, split).arrays(split)


def describe(name: str) -> dict[str, int]:
    """Counts of an embedded set, by split: images, and of glyphs characters, faces and images left out."""
    return _set(name).describe()


@dataclass(frozen=True)
class _Set:
    splits: tuple[str, ...]
    records: Callable[[str], Sequence[dict[str, Any]]]
    arrays: Callable[[str], dict[str, np.ndarray]]
    describe: Callable[[], dict[str, int]]


def _set(name: str) -> _Set:
    if name not in EMBEDDED:
        raise ValueError(f"embedded:{name}: no such set of images; there are: {', '.join(sorted(EMBEDDED))}")
    return EMBEDDED[name]


def _checked(name: str, split: str) -> _Set:
    found = _set(name)
    if split not in found.splits:
        raise ValueError(f"embedded:{name}[{split}]: no such split; there are: {', '.join(found.splits)}")
    return found


def _glyph_arrays(split: str) -> dict[str, np.ndarray]:
    found = glyphs.glyphs(split)
    return {"images": found.images, "codepoints": found.codepoints}


def _digit_records(split: str) -> list[dict[str, Any]]:
    images, labels = _digits()[split]
    return [{"image": image.copy(), "label": int(label)} for image, label in zip(images, labels, strict=True)]


def _digit_arrays(split: str) -> dict[str, np.ndarray]:
    images, labels = _digits()[split]
    return {"images": images, "labels": labels}


@cache
def _digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images [N 8 8 1] and labels [N] of each split."""
    from sklearn.datasets import load_digits  # a second to import: only when asked for

    found: Any = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = found.target.astype(np.int64)
    rng = np.random.default_rng(0)
    chosen: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for label in range(10):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.rint(np.cumsum(_DIGIT_SHARES) * len(members)).astype(int)
        for split, part in zip(SPLITS, np.split(members, cuts), strict=True):
            chosen[split].append(part)
    result = {}
    for split, parts in chosen.items():
        at = np.sort(np.concatenate(parts))
        result[split] = images[at], labels[at]
        for values in result[split]:
            values.flags.writeable = False
    return result


EMBEDDED: dict[str, _Set] = {
    "digits": _Set(
        SPLITS,
        _digit_records,
        _digit_arrays,
        lambda: {f"{split}/images": len(labels) for split, (_, labels) in _digits().items()},
    ),
    "glyphs": _Set(glyphs.SPLITS, glyphs.glyphs, _glyph_arrays, glyphs.counts),
}
