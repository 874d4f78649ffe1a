"""What is measured of images: vectors that were learnt without labels, and floors that see pixels and edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from research.batch import Dataset, Split
from research.evaluation.embeddings import collapse, rankme, uniformity
from research.evaluation.hog import hog
from research.evaluation.neighbours import knn_votes
from research.evaluation.probes import ridge_probe

Outputs = Mapping[str, np.ndarray]

NEIGHBOURS, TEMPERATURE = 200, 0.1
_MOST = 50_000  # training rows that floors and probes read
_MOST_RANKED = 4_000  # vectors whose singular values are looked at


def vector_figures(outputs: Outputs, dataset: Dataset, split: str) -> tuple[dict[str, Any], np.ndarray]:
    """Figures of `vectors` [N D] of a split, and for each row whether the weighted vote of its neighbours is right.

    With labels: `knn_accuracy` (Wu et al. 2018: 200 neighbours, temperature 0.1) and `probe_accuracy` (ridge regression
    in closed form, its penalty chosen on the validation split), by `train_vectors` and `val_vectors`. Always:
    uniformity, RankMe, and `collapse`, a sentence or nothing. Without labels a row's value is its cosine to the mean.
    """
    part, vectors = dataset.splits[split], outputs["vectors"]
    found: dict[str, Any] = {
        "uniformity": uniformity(vectors),
        "rankme": rankme(vectors[:_MOST_RANKED]),
        "collapse": collapse(vectors),
    }
    train_labels, labels = class_labels(dataset.splits["train"]), class_labels(part)
    if not len(labels) or not len(train_labels):
        mean = vectors.mean(axis=0)
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(mean)
        return found, vectors @ mean / np.maximum(lengths, 1e-12)
    known, known_labels = outputs["train_vectors"], train_labels[: len(outputs["train_vectors"])]
    right = _neighbours_right(known, known_labels, vectors, labels, dataset.spec.num_classes)
    found["knn_accuracy"] = float(right.mean())
    val_labels = np.asarray(dataset.splits["val"].labels)
    found["probe_accuracy"] = _probe_accuracy(
        (known, known_labels), (outputs["val_vectors"], val_labels), (vectors, labels), dataset.spec.num_classes
    )
    return found, right


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
    right = _neighbours_right(pixels[0], labels[0], pixels[2], labels[2], num_classes)
    found["pixel_knn_accuracy"] = float(right.mean())
    side = images[0].shape[1]
    cell = next((size for size in (side // 8, 4, 2) if size and side % size == 0 and side >= 2 * size), 0)
    if cell:
        edges = [hog(each, cell=cell) for each in images]
        right = _neighbours_right(edges[0], labels[0], edges[2], labels[2], num_classes)
        found["hog_knn_accuracy"] = float(right.mean())
        pairs = list(zip(edges, labels, strict=True))
        found["hog_probe_accuracy"] = _probe_accuracy(pairs[0], pairs[1], pairs[2], num_classes)
    return found


def commonest_class(dataset: Dataset, split: str) -> float:
    """Accuracy of always the commonest class of the training split."""
    labels = np.asarray(dataset.splits[split].labels)
    commonest = np.bincount(np.asarray(dataset.splits["train"].labels)).argmax()
    return float((labels == commonest).mean())


def class_labels(part: Split) -> np.ndarray:
    """The class of each row, int [N]; none where rows have numbers, several labels, or nothing."""
    labels = np.asarray(part.labels)
    return labels if labels.ndim == 1 and labels.dtype.kind in "iu" else np.zeros(0, np.int64)


def read_images(part: Split, *, most: int = _MOST) -> np.ndarray:
    """The images of the first `most` rows of a split, uint8 [N Y X C]."""
    places, rows = np.arange(min(len(part.examples), most)), getattr(part.examples, "rows", None)
    if rows is not None:
        return rows(places)["image"]
    return np.stack([part.examples[int(place)]["image"] for place in places])


def _neighbours_right(
    train: np.ndarray, train_labels: np.ndarray, vectors: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    votes = knn_votes(
        train, train_labels, vectors, num_classes=num_classes, neighbours=NEIGHBOURS, temperature=TEMPERATURE
    )
    return votes.argmax(axis=1) == labels


def _probe_accuracy(train: Any, valid: Any, evaluated: Any, num_classes: int) -> float:
    """Each of the three is vectors and labels; the mean and spread of the training vectors are set aside first."""
    probe = ridge_probe(*train, *valid, num_classes=num_classes)
    scores = np.asarray(evaluated[0], np.float64) @ probe.kernel + probe.bias
    return float((scores.argmax(axis=1) == evaluated[1]).mean())
