"""What a classifier's probabilities are worth: accuracy, precision, recall, F1, ROC-AUC, log-loss, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def classification_metrics(
    labels: Sequence[Any] | np.ndarray, probabilities: np.ndarray, label_names: Sequence[str]
) -> dict[str, Any]:
    """Metrics of a whole split; `labels` int [N], `probabilities` [N C], each row summing to one, `label_names` [C].

    `precision`, `recall` and `f1` are macro means: every class of `label_names` counts, with 0 where it is neither
    present nor predicted. ROC-AUC is that of the second class when there are two, otherwise one class against the rest,
    averaged over the classes that the split has; NaN where only one class is present. The predicted class is the most
    probable, the first of equals.
    `per_class` holds one entry a class by name, `confusion` the counts [C C], rows true and columns predicted.

    Raises:
      ValueError: shapes that do not agree, no example, a label out of range, rows that are not probabilities.
    """
    from sklearn import metrics  # a second to import: only when asked for

    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    _check(labels, probabilities, label_names)
    classes = np.arange(len(label_names))
    predicted = probabilities.argmax(axis=1)
    scores = metrics.precision_recall_fscore_support(
        labels,
        predicted,
        labels=classes,
        zero_division=0,  # pyright: ignore[reportArgumentType] - scikit-learn takes a number, its annotation does not
    )
    precision, recall, f1, support = np.asarray(scores)  # each [C]
    per_class = {
        str(name): {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "support": int(support[index]),
        }
        for index, name in enumerate(label_names)
    }
    return {
        "accuracy": float(metrics.accuracy_score(labels, predicted)),
        "precision": float(np.mean(precision)),
        "recall": float(np.mean(recall)),
        "f1": float(np.mean(f1)),
        "roc_auc": _roc_auc(labels, probabilities),
        # A float32 softmax sums to one within its rounding; scikit-learn warns about that.
        "log_loss": float(metrics.log_loss(labels, probabilities / probabilities.sum(axis=1)[:, None], labels=classes)),
        "per_class": per_class,
        "confusion": metrics.confusion_matrix(labels, predicted, labels=classes).tolist(),
    }


def _roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """ROC-AUC of class 1 of two, else the mean over the classes that have both positives and negatives."""
    from sklearn import metrics

    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    areas = []
    for index in classes:
        positive = labels == index
        if positive.any() and not positive.all():
            areas.append(metrics.roc_auc_score(positive, probabilities[:, index]))
    return float(np.mean(areas)) if areas else float("nan")


def _check(labels: np.ndarray, probabilities: np.ndarray, label_names: Sequence[str]) -> None:
    num_classes = len(label_names)
    if num_classes < 2:
        raise ValueError(f"label_names has {num_classes} names; classification needs at least two classes")
    if len(set(label_names)) != num_classes:
        raise ValueError(f"label_names={list(label_names)} names a class twice; give each class a name of its own")
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels has shape {labels.shape}; give one label for each of at least one example")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype}; give each class by its index in label_names")
    if probabilities.shape != (len(labels), num_classes):
        wanted = (len(labels), num_classes)
        raise ValueError(f"probabilities has shape {probabilities.shape}; wanted {wanted}: labels by label_names")
    if labels.min() < 0 or labels.max() >= num_classes:
        outside = labels[(labels < 0) | (labels >= num_classes)][0]
        raise ValueError(f"label {outside} has no name among {num_classes} label_names; labels run from 0")
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError("probabilities hold negative or non-finite numbers; give softmax outputs, not logits")
    worst = float(np.abs(probabilities.sum(axis=1) - 1).max())
    if worst > 1e-2:  # a softmax kept in bfloat16 is still within this
        raise ValueError(
            f"a row of probabilities is {worst:.3g} away from a sum of one; give softmax outputs, not logits"
        )
