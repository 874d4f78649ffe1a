"""Verification: are two vectors of the same thing? The error rate where both mistakes are as frequent."""

from __future__ import annotations

import numpy as np

from research.evaluation.embeddings import unit


def equal_error_rate(first: np.ndarray, second: np.ndarray, same: np.ndarray) -> dict[str, float]:
    """The equal error rate of telling pairs of the same from pairs of different things by cosine similarity.

    `first`, `second` [N D], `same` bool [N]. At a threshold t, pairs of similarity t or more are accepted; `eer` is
    where the share of different pairs accepted meets that of same pairs refused, on straight lines between the
    thresholds that tell pairs apart; `threshold` is the one of these at which both are nearest. Pairs that are all
    equally similar have 0.5.

    Raises:
      ValueError: sides of different shape, or pairs of one kind only.
    """
    same = np.asarray(same, bool)
    if first.shape != second.shape or len(first) != len(same):
        raise ValueError(
            f"pairs of {first.shape} and {second.shape} came with {len(same)} answers; give one row a pair"
        )
    if same.all() or not same.any():
        raise ValueError(f"{same.sum()} of {len(same)} pairs are of the same; give pairs of both kinds")
    # Rounded, since equal vectors must be equally similar.
    similarities = np.round((unit(first) * unit(second)).sum(axis=1), 12)
    thresholds = np.append(np.unique(similarities), np.inf)
    alike, different = np.sort(similarities[same]), np.sort(similarities[~same])
    accepted = 1.0 - np.searchsorted(different, thresholds) / len(different)
    refused = np.searchsorted(alike, thresholds) / len(alike)
    gap = accepted - refused  # falls from 1 to -1
    right = int(np.argmax(gap <= 0))
    left = right - 1
    share = gap[left] / (gap[left] - gap[right])
    rate = accepted[left] + share * (accepted[right] - accepted[left])
    nearest = right if -gap[right] <= gap[left] and np.isfinite(thresholds[right]) else left
    return {"eer": float(rate), "threshold": float(thresholds[nearest])}


def draw_pairs(labels: np.ndarray, *, num_pairs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of the first and second row of `num_pairs` pairs, and whether their labels [N] agree: half of them do.

    Seeded. A row is never paired with itself; rows of the first half are drawn evenly among those that have another of
    their label.

    Raises:
      ValueError: an odd or too small number of pairs, or labels that are all the same or all different.
    """
    labels = np.asarray(labels)
    if num_pairs < 2 or num_pairs % 2:
        raise ValueError(f"num_pairs={num_pairs}; half of the pairs are of the same: use an even number from 2")
    groups, counts = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    if len(counts) < 2 or counts.max() < 2:
        raise ValueError(f"{len(labels)} labels are of {len(counts)} kinds; wanted two or more, some of several rows")
    order = np.argsort(groups, kind="stable")  # rows by group
    starts = np.cumsum(counts) - counts
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels))
    rng = np.random.default_rng(seed)
    half = num_pairs // 2
    first_same = rng.choice(np.flatnonzero(counts[groups] > 1), half)
    group = groups[first_same]
    # A step of 1 to count - 1 round the group never ends where it began.
    step = rng.integers(1, counts[group])
    second_same = order[starts[group] + (place[first_same] - starts[group] + step) % counts[group]]
    first_different = rng.integers(0, len(labels), half)
    # The same, round all rows, past the end of the own group.
    group = groups[first_different]
    step = rng.integers(0, len(labels) - counts[group])
    second_different = order[(starts[group] + counts[group] + step) % len(labels)]
    same = np.repeat([True, False], half)
    return np.concatenate([first_same, first_different]), np.concatenate([second_same, second_different]), same
