"""What labels say of vectors beyond their neighbours: few shots, a logistic probe, and whether two are of one kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.batch import Dataset
from research.evaluation.exhibits import group_names
from research.evaluation.few_shot import few_shot
from research.evaluation.probes import logistic_probe
from research.evaluation.vector_tasks import class_labels
from research.evaluation.verification import draw_pairs, equal_error_rate

SHOTS = (1, 5, 10)
MOST_PROBED = 5_000  # training rows of a logistic probe, which is fitted once a penalty
MOST_CLASSES = 200  # of both probes, whose time grows with them
_NUM_PAIRS = 10_000


def label_probes(outputs: Mapping[str, np.ndarray], dataset: Dataset, split: str) -> dict[str, Any]:
    """Of `vectors` [N D] with `train_vectors` and `val_vectors`, where rows have one of 2 to `MOST_CLASSES` classes.

    `few_shot_K_accuracy` and its `few_shot_K_interval95` (`few_shot`), for each K that all classes have training rows
    for; `logistic_probe_accuracy`, its penalty chosen on the validation split, of a seeded choice of `MOST_PROBED`
    training rows, where these have every class.
    """
    train, part, num_classes = dataset.splits["train"], dataset.splits[split], dataset.spec.num_classes
    known, labels = class_labels(train)[: len(outputs["train_vectors"])], class_labels(part)
    if not len(known) or not len(labels) or not 2 <= num_classes <= MOST_CLASSES:
        return {}
    vectors, among = outputs["vectors"], outputs["train_vectors"]
    counts = np.bincount(known, minlength=num_classes)
    found: dict[str, Any] = {}
    for shots in [shots for shots in SHOTS if shots <= counts.min()]:
        told = few_shot(among, known, vectors, labels, shots=shots)
        found |= {f"few_shot_{shots}_accuracy": told["mean"], f"few_shot_{shots}_interval95": told["interval95"]}
    chosen = np.sort(np.random.default_rng(0).permutation(len(known))[:MOST_PROBED])
    if len(np.unique(known[chosen])) == num_classes:
        valid = outputs["val_vectors"], np.asarray(dataset.splits["val"].labels)
        probe = logistic_probe(among[chosen], known[chosen], *valid, num_classes=num_classes)
        found["logistic_probe_accuracy"] = float((probe.logits(vectors).argmax(axis=1) == labels).mean())
    return found


def verification(vectors: np.ndarray, columns: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """`eer_NAME` of each column: the equal error rate (`equal_error_rate`; 0.5 is chance) of telling by cosine
    similarity whether two of `vectors` [N D] have one value of it. A column that is all the same or all different has
    none.
    """
    found = {}
    for name, column in columns.items():
        groups, counts = np.unique(group_names(column), return_inverse=True, return_counts=True)[1:]
        if len(counts) > 1 and counts.max() > 1:
            first, second, same = draw_pairs(groups, num_pairs=_NUM_PAIRS)
            found[f"eer_{name}"] = equal_error_rate(vectors[first], vectors[second], same)["eer"]
    return found
