"""The probe that fits nothing: a vector's class by a weighted vote of the nearest training vectors."""

from __future__ import annotations

import numpy as np

from research.evaluation.embeddings import unit

_CHUNK = 256  # queries at a time: 100 MB of similarities to 50,000 training vectors


def knn_votes(
    train_vectors: np.ndarray,
    train_labels: np.ndarray,
    vectors: np.ndarray,
    *,
    num_classes: int,
    neighbours: int = 200,
    temperature: float = 0.07,
) -> np.ndarray:
    """Each class's share of the votes for each row of `vectors` [M D], float64 [M C].

    Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", section 3.4: the
    `neighbours` training vectors [N D] of the greatest cosine similarity (all, where there are fewer) vote for their
    labels [N] with the weight exp(similarity / temperature).

    Raises:
      ValueError: vectors and labels of different number, labels outside the classes, or no neighbour or temperature.
    """
    labels = np.asarray(train_labels)
    if not len(labels) or len(train_vectors) != len(labels):
        raise ValueError(
            f"{len(train_vectors)} training vectors came with {len(labels)} labels; give one each, and some"
        )
    if neighbours < 1 or temperature <= 0:
        raise ValueError(f"neighbours={neighbours}, temperature={temperature}; both must be above 0")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}; {num_classes} classes are 0 to one less")
    among, asked = unit(train_vectors), unit(vectors)
    neighbours = min(neighbours, len(among))
    votes = np.zeros((len(asked), num_classes))
    for start in range(0, len(asked), _CHUNK):
        similarities = asked[start : start + _CHUNK] @ among.T
        nearest = np.argpartition(-similarities, neighbours - 1, axis=1)[:, :neighbours]
        found = np.take_along_axis(similarities, nearest, axis=1)
        # Against the nearest: the shares are the same, and no weight overflows.
        weights = np.exp((found - found.max(axis=1, keepdims=True)) / temperature)
        rows = np.repeat(np.arange(start, start + len(found)), neighbours)
        np.add.at(votes, (rows, labels[nearest].ravel()), weights.ravel())
    return votes / votes.sum(axis=1, keepdims=True)


def knn_accuracy(
    train_vectors: np.ndarray,
    train_labels: np.ndarray,
    vectors: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    neighbours: int = 200,
    temperature: float = 0.07,
) -> float:
    """The share of `vectors` [M D] whose label [M] has the most of `knn_votes`; of equals the first class has them."""
    votes = knn_votes(
        train_vectors,
        train_labels,
        vectors,
        num_classes=num_classes,
        neighbours=neighbours,
        temperature=temperature,
    )
    if len(votes) != len(labels):
        raise ValueError(f"{len(votes)} vectors came with {len(labels)} labels; give one each")
    return float((votes.argmax(axis=1) == np.asarray(labels)).mean())
