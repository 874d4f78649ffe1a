"""What is measured of pictures with their texts: how they find each other, and floors that have learnt nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from research.batch import Dataset, Split
from research.evaluation.embeddings import collapse
from research.evaluation.image_tasks import images_at
from research.evaluation.name_floor import letters_in_common
from research.evaluation.retrieval import CUTOFFS, candidates, metrics_both_ways, ranks_both_ways

Outputs = Mapping[str, np.ndarray]

# What the floor looks at, so that it takes seconds: training pictures, evenly spread, and pixels a side (larger
# pictures are added up in squares of pixels).
FLOOR_PICTURES = 20_000
FLOOR_SIDE = 32
_READ = 1024  # pictures at a time


def retrieval_figures(outputs: Outputs, part: Split) -> tuple[dict[str, Any], np.ndarray]:
    """Figures of `image` and `text`, unit vectors [N E] of the rows of a split or of its first rows, and whether each
    row's picture has a text of its own as the nearest [N].

    Distinct pictures look for the distinct texts and the other way round; a picture counts once for each of its rows.
    Rows that share a picture or a text are of one group, any of which is a hit. `collapse` is a sentence or nothing, of
    the pictures or else of the texts.
    """
    pictures, names, groups = distinct(part, len(outputs["image"]))
    picture = candidates(part.hashes[: len(groups)])[1]
    images, texts = outputs["image"][pictures], outputs["text"][names]
    found = ranks_both_ways(images, texts, image_groups=groups[pictures], text_groups=groups[names])
    found["image_to_text"] = found["image_to_text"][picture]
    figures = metrics_both_ways(found, num_images=len(images), num_texts=len(texts))
    return figures | {"collapse": _collapse(images, texts)}, found["image_to_text"] == 1


def watch_retrieval(outputs: Mapping[str, Outputs], dataset: Dataset) -> dict[str, Any]:
    """Recall both ways and the mean rank among the first rows of the validation split, and `collapse`."""
    figures, _ = retrieval_figures(outputs["val"], dataset.splits["val"])
    shown = ("recall_at_1", "recall_at_5", "recall_at_10", "mean_rank")
    found = {
        f"val/{way}_{name}": figures[f"{way}_{name}"] for way in ("image_to_text", "text_to_image") for name in shown
    }
    return found | {"collapse": figures["collapse"]}


def name_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """Recall both ways by the letters that a text has in common with those of the nearest training pictures, and by
    chance, at the cutoffs of the scores."""
    train, part = dataset.splits["train"], dataset.splits[split]
    chosen = np.unique(np.linspace(0, len(train.texts) - 1, min(len(train.texts), FLOOR_PICTURES)).astype(np.int64))
    known = [train.texts[int(place)] for place in chosen]
    images = _small_images(train, chosen), _small_images(part, np.arange(len(part.texts)))
    options: dict[str, Any] = dict(neighbours=min(5, len(known)), at=CUTOFFS)
    found = letters_in_common(images[0], known, images[1], list(part.texts), **options)
    return {name if name.startswith("chance_") else f"letters_{name}": value for name, value in found.items()}


def distinct(part: Split, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the first `size` rows of a split: where each distinct picture and each distinct text stands first, and the
    group of each row, equal for rows that share a picture or a text."""
    pictures, picture = candidates(part.hashes[:size])
    names, name = candidates(part.texts[:size])
    return pictures, names, _groups(picture, name)


def _groups(picture: np.ndarray, name: np.ndarray) -> np.ndarray:
    """int [N], equal for rows that share a picture or a text, over any chain."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    num_pictures = int(picture.max()) + 1
    size = num_pictures + int(name.max()) + 1
    edges = coo_array((np.ones(len(picture), np.int8), (picture, num_pictures + name)), shape=(size, size))
    return connected_components(edges, directed=False)[1][picture]


def _collapse(images: np.ndarray, texts: np.ndarray) -> str:
    for side, vectors in (("images", images), ("texts", texts)):
        found = collapse(vectors) if len(vectors) > 1 else ""
        if found:
            return f"{side}: {found}"
    return ""


def _small_images(part: Split, places: np.ndarray) -> np.ndarray:
    """The images of some rows, at most FLOOR_SIDE pixels a side, as whole numbers [N Y X C]."""
    found = []
    for start in range(0, len(places), _READ):
        images = images_at(part, places[start : start + _READ])
        side = images.shape[1]
        factor = -(-side // FLOOR_SIDE)
        if factor == 1:
            found.append(images)
            continue
        kept = side // factor
        cut = images[:, : kept * factor, : kept * factor].astype(np.int32)
        found.append(cut.reshape(len(cut), kept, factor, kept, factor, -1).sum(axis=(2, 4)))
    return np.concatenate(found)
