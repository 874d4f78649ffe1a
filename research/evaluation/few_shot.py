"""Few-shot probes: what a handful of labelled vectors of each class is enough for."""

from __future__ import annotations

from typing import Any

import numpy as np

from research.evaluation.embeddings import unit
from research.evaluation.evidence import interval


def few_shot(
    train_vectors: np.ndarray,
    train_labels: np.ndarray,
    vectors: np.ndarray,
    labels: np.ndarray,
    *,
    shots: int,
    draws: int = 10,
    seed: int = 0,
) -> dict[str, Any]:
    """`mean` accuracy on all rows of `vectors` [M D] over `draws` seeded choices of `shots` training rows a class, half
    the width of its 95 % interval as `interval95`, and the `accuracies`.

    Each time a logistic regression on vectors of length one, penalty 1 (Tian et al. 2020, "Rethinking Few-Shot Image
    Classification: a Good Embedding Is All You Need?"). The interval is that of the choice of training rows; the test
    rows are the same in every draw.

    Raises:
      ValueError: vectors and labels of different number, fewer than two draws, one class, or a class of fewer rows than
        `shots`.
    """
    for rows, wanted, name in ((train_vectors, train_labels, "training"), (vectors, labels, "test")):
        if len(rows) != len(wanted):
            raise ValueError(f"{len(rows)} {name} vectors came with {len(wanted)} labels; give one each")
    if shots < 1 or draws < 2:
        raise ValueError(f"shots={shots}, draws={draws}; wanted one shot or more, and two draws for an interval")
    classes, counts = np.unique(train_labels, return_counts=True)
    if len(classes) < 2:
        raise ValueError("the training labels are all the same; a probe needs at least two classes")
    if counts.min() < shots:
        fewest = classes[counts.argmin()]
        raise ValueError(f"class {fewest} has {counts.min()} training rows, fewer than shots={shots}; ask for fewer")
    from sklearn.linear_model import LogisticRegression  # a second to import: only when asked for

    among, asked = unit(train_vectors), unit(vectors)
    accuracies = []
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        chosen = np.concatenate(
            [rng.choice(np.flatnonzero(train_labels == label), shots, replace=False) for label in classes]
        )
        model = LogisticRegression(C=1.0, max_iter=1000).fit(among[chosen], train_labels[chosen])
        accuracies.append(float((model.predict(asked) == labels).mean()))
    return {"mean": float(np.mean(accuracies)), "interval95": interval(accuracies), "accuracies": accuracies}
