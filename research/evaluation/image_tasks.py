"""Floors of images, which see pixels and edges."""

from __future__ import annotations

import numpy as np

from research.batch import Dataset, Split
from research.evaluation.hog import hog
from research.evaluation.vector_tasks import neighbours_right, probe_accuracy

_MOST = 50_000  # training rows that floors read


def image_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """Accuracies of the nearest neighbours by raw pixels, and of neighbours and a ridge probe by HOG."""
    train, part, valid = (dataset.splits[name] for name in ("train", split, "val"))
    if not len(part.labels) or not len(train.labels):
        return {}
    num_classes = dataset.spec.num_classes
    labels = [np.asarray(each.labels) for each in (train, valid, part)]
    images = [read_images(each) for each in (train, valid, part)]
    labels[0] = labels[0][: len(images[0])]
    found = {}
    flat = [each.reshape(len(each), -1).astype(np.float32) / 255.0 for each in images]
    pixels = [each - flat[0].mean(axis=0) for each in flat]
    right = neighbours_right(pixels[0], labels[0], pixels[2], labels[2], num_classes)
    found["pixel_knn_accuracy"] = float(right.mean())
    side = images[0].shape[1]
    cell = next((size for size in (side // 8, 4, 2) if size and side % size == 0 and side >= 2 * size), 0)
    if cell:
        edges = [hog(each, cell=cell) for each in images]
        right = neighbours_right(edges[0], labels[0], edges[2], labels[2], num_classes)
        found["hog_knn_accuracy"] = float(right.mean())
        pairs = list(zip(edges, labels, strict=True))
        found["hog_probe_accuracy"] = probe_accuracy(pairs[0], pairs[1], pairs[2], num_classes)
    return found


def read_images(part: Split, *, most: int = _MOST) -> np.ndarray:
    """The images of the first `most` rows of a split, uint8 [N Y X C]."""
    return images_at(part, np.arange(min(len(part.examples), most)))


def images_at(part: Split, places: np.ndarray) -> np.ndarray:
    """The images of some rows of a split, uint8 [N Y X C]."""
    rows = getattr(part.examples, "rows", None)
    if rows is not None:
        return rows(places)["image"]
    return np.stack([part.examples[int(place)]["image"] for place in places])
