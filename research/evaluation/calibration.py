"""Whether a classifier's probabilities can be trusted: calibration, abstention, and the mistakes it was surest of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

NUM_BINS = 15
COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def reliability(labels: np.ndarray, probabilities: np.ndarray, *, num_bins: int = NUM_BINS) -> list[dict[str, float]]:
    """Examples by the probability of their predicted class, in bins of equal width: one entry a bin that has any.

    `labels` int [N], `probabilities` [N C]. Each entry has `confidence` (mean of that probability), `accuracy` and
    `examples`.
    """
    sure, right = _surest(labels, probabilities)
    place = np.minimum((sure * num_bins).astype(int), num_bins - 1)
    found = []
    for index in np.unique(place):
        here = place == index
        found.append(
            {
                "confidence": float(sure[here].mean()),
                "accuracy": float(right[here].mean()),
                "examples": int(here.sum()),
            }
        )
    return found


def expected_calibration_error(bins: Sequence[dict[str, float]]) -> float:
    """ECE (Guo et al. 2017, eq. 3): the mean of |accuracy - confidence| over examples, by bins of `reliability`."""
    total = sum(entry["examples"] for entry in bins)
    return sum(entry["examples"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins) / total


def abstention(labels: np.ndarray, probabilities: np.ndarray) -> list[dict[str, float]]:
    """Accuracy on the surest share of the examples, for each share of `COVERAGES`, and the probability it ends at."""
    sure, right = _surest(labels, probabilities)
    order = np.argsort(-sure, kind="stable")
    found = []
    for coverage in COVERAGES:
        kept = order[: max(1, round(coverage * len(order)))]
        found.append(
            {"coverage": coverage, "accuracy": float(right[kept].mean()), "probability": float(sure[kept[-1]])}
        )
    return found


def mistakes(
    texts: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str], *, most: int = 10
) -> list[dict[str, Any]]:
    """The examples that the model was surest of and wrong about, the surest first."""
    sure, right = _surest(labels, probabilities)
    wrong = np.flatnonzero(~right)
    found = []
    for index in wrong[np.argsort(-sure[wrong], kind="stable")][:most]:
        predicted = names[int(probabilities[index].argmax())]
        found.append(
            {
                "text": texts[index],
                "label": names[int(labels[index])],
                "predicted": predicted,
                "probability": float(sure[index]),
            }
        )
    return found


def _surest(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability of each example's predicted class, and whether that class is right."""
    probabilities = np.asarray(probabilities, np.float64)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == np.asarray(labels)
