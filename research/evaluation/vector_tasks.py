"""What is measured of vectors that were learnt without labels, of images, sounds or texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from research.batch import Dataset, Split
from research.evaluation.embeddings import collapse, rankme, uniformity
from research.evaluation.neighbours import knn_votes
from research.evaluation.probes import ridge_probe

Outputs = Mapping[str, np.ndarray]

_NEIGHBOURS, _TEMPERATURE = 200, 0.1
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
    right = neighbours_right(known, known_labels, vectors, labels, dataset.spec.num_classes)
    found["knn_accuracy"] = float(right.mean())
    val_labels = np.asarray(dataset.splits["val"].labels)
    found["probe_accuracy"] = probe_accuracy(
        (known, known_labels), (outputs["val_vectors"], val_labels), (vectors, labels), dataset.spec.num_classes
    )
    return found, right


def watch_vectors(outputs: Mapping[str, Outputs], dataset: Dataset) -> dict[str, Any]:
    """Of the first rows of both splits `val/rankme`, `val/knn_accuracy` where there are labels, and `collapse`."""
    train, val = (outputs[name]["vectors"] for name in ("train", "val"))
    labels = [class_labels(dataset.splits[name])[: len(rows)] for name, rows in (("train", train), ("val", val))]
    found: dict[str, Any] = {"val/rankme": rankme(val), "collapse": collapse(val)}
    if all(map(len, labels)):
        right = neighbours_right(train, labels[0], val, labels[1], dataset.spec.num_classes)
        found["val/knn_accuracy"] = float(right.mean())
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


def neighbours_right(
    train: np.ndarray, train_labels: np.ndarray, vectors: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Whether the weighted vote of a row's nearest training vectors is its own label, bool [M]."""
    votes = knn_votes(
        train, train_labels, vectors, num_classes=num_classes, neighbours=_NEIGHBOURS, temperature=_TEMPERATURE
    )
    return votes.argmax(axis=1) == labels


def probe_accuracy(train: Any, valid: Any, evaluated: Any, num_classes: int) -> float:
    """Of a ridge probe; each of the three is vectors and labels."""
    probe = ridge_probe(*train, *valid, num_classes=num_classes)
    scores = np.asarray(evaluated[0], np.float64) @ probe.kernel + probe.bias
    return float((scores.argmax(axis=1) == evaluated[1]).mean())
