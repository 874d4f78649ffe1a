"""What probabilities of several labels a row are worth: whole rows right, F1 over all labels and by label, ranking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

THRESHOLD = 0.5  # a label is said where its probability is above


def multi_label_metrics(labels: np.ndarray, scores: np.ndarray, label_names: Sequence[str]) -> dict[str, Any]:
    """Metrics of a whole split; `labels` [N C] of 0 and 1, `scores` [N C] probabilities, `label_names` [C].

    `accuracy` is the share of rows with every label right. `micro_precision`, `micro_recall` and `micro_f1` count the
    labels of all classes together, `macro_…` are means over classes; with one class both are one, and named without
    prefix. 0 over 0 is 0. `roc_auc` and `average_precision` are means over the classes that the split has both with
    and without; NaN where there are none. `per_class` has all of these by name.

    Raises:
      ValueError: shapes that do not agree, no example, labels other than 0 and 1, scores that are no probabilities.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    _check(labels, scores, label_names)
    true, said = labels > 0, scores > THRESHOLD
    right, wanted, given = (true & said).sum(axis=0), true.sum(axis=0), said.sum(axis=0)  # each [C]
    by_class = _scores(right, wanted, given)
    ranked = [_ranking(true[:, index], scores[:, index]) for index in range(len(label_names))]
    per_class = {}
    for index, name in enumerate(label_names):
        entry: dict[str, Any] = {measure: float(values[index]) for measure, values in by_class.items()}
        per_class[name] = entry | ranked[index] | {"support": int(wanted[index])}
    if len(label_names) == 1:
        found = {measure: float(values[0]) for measure, values in by_class.items()}
    else:
        micro = _scores(*(counts.sum(keepdims=True) for counts in (right, wanted, given)))
        found = {f"micro_{measure}": float(values[0]) for measure, values in micro.items()}
        found |= {f"macro_{measure}": float(values.mean()) for measure, values in by_class.items()}
    ranking = {
        measure: float(np.mean([entry[measure] for entry in ranked if entry])) if any(ranked) else float("nan")
        for measure in ("roc_auc", "average_precision")
    }
    return {"accuracy": float(rows_right(labels, scores).mean()), **found, **ranking, "per_class": per_class}


def rows_right(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Whether each row has every label right: bool [N]."""
    return ((np.asarray(labels) > 0) == (np.asarray(scores) > THRESHOLD)).all(axis=1)


def commonest_set(labels: Sequence[Sequence[int]], num_rows: int) -> np.ndarray:
    """The set of labels that most rows of `labels` [N C] have, first seen of equals, for each of `num_rows` rows."""
    commonest, _ = Counter(map(tuple, labels)).most_common(1)[0]
    return np.tile(np.array(commonest, np.float64), (num_rows, 1))


def _scores(right: np.ndarray, wanted: np.ndarray, given: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "precision": right / np.maximum(given, 1),
        "recall": right / np.maximum(wanted, 1),
        "f1": 2 * right / np.maximum(wanted + given, 1),
    }


def _ranking(true: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Nothing where only one value is there: no pair can be ranked."""
    from sklearn import metrics  # a second to import: only when asked for

    if not true.any() or true.all():
        return {}
    return {
        "roc_auc": float(metrics.roc_auc_score(true, scores)),
        "average_precision": float(metrics.average_precision_score(true, scores)),
    }


def _check(labels: np.ndarray, scores: np.ndarray, label_names: Sequence[str]) -> None:
    if labels.ndim != 2 or not len(labels) or labels.shape[1] != len(label_names):
        raise ValueError(f"labels has shape {labels.shape}; wanted examples by the {len(label_names)} label_names")
    if scores.shape != labels.shape:
        raise ValueError(f"scores has shape {scores.shape}, labels {labels.shape}; give each label of a row one score")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels hold {labels[~np.isin(labels, (0, 1))][0]}; wanted 0 and 1")
    if not (np.isfinite(scores) & (scores >= 0) & (scores <= 1)).all():
        raise ValueError("scores hold numbers that are no probabilities; give sigmoid outputs, not logits")
