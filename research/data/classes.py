"""The classes of labelled rows: which labels are classes, which classes there are, and a choice of rows by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from research.data.splits import Part

Label = int | str


class LabelledPart(Part, Protocol):
    """The records of one split, each with its label."""

    @property
    def labels(self) -> Sequence[Any]: ...


AnyLabelled = TypeVar("AnyLabelled", bound=LabelledPart)


def class_of(label: Any, field: str, where: str) -> Label:
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise ValueError(
            f"{where}: {field}={label!r} is no class; wanted a whole number or a name, or give another label_field"
        )
    return label


def find_classes(found: Mapping[str, LabelledPart]) -> list[Label]:
    """The sorted labels of training, once every split is known to hold no other; whole numbers by size, as text too
    (2 before 10, as a CSV file has them)."""
    train = found["train"]
    classes = sorted(set(train.labels))
    if all(str(label).isdecimal() for label in classes):
        classes.sort(key=int)
    if len(classes) < 2:
        raise ValueError(f"{train.where}: every training label is {classes[0]!r}; there is nothing to tell apart")
    for name, part in found.items():
        unseen = sorted(set(part.labels) - set(classes), key=repr)
        if unseen:
            seen = ", ".join(map(repr, classes[:20])) + (", …" if len(classes) > 20 else "")
            raise ValueError(
                f"{part.where}: label {unseen[0]!r} of the {name} split is never seen in training, which has {seen}; "
                f"remove its {list(part.labels).count(unseen[0])} rows or add it to the training data"
            )
    return classes


def choose_labels(part: AnyLabelled, number: int, seed: int) -> AnyLabelled:
    """`number` rows in the order of the file; each class as often as its share says, at least once."""
    classes, counts = np.unique(np.array(part.labels, dtype=object).astype(str), return_counts=True)
    if not len(classes) <= number <= len(part.labels):
        raise ValueError(
            f"num_labels={number}: {part.where} has {len(part.labels)} training rows of {len(classes)} classes; use a "
            "number between the two, or 0 for all"
        )
    quota = counts * (number / counts.sum())
    taken = np.maximum(np.floor(quota).astype(int), 1)
    while taken.sum() != number:  # the largest remainders get the rest; what a rare class got beyond its share is taken
        step = 1 if taken.sum() < number else -1
        open_to = taken < counts if step > 0 else taken > 1
        taken[np.argmax(np.where(open_to, step * (quota - taken), -np.inf))] += step
    rng = np.random.default_rng(seed)
    labels = np.array([str(label) for label in part.labels])
    chosen = [rng.permutation(np.flatnonzero(labels == name))[:size] for name, size in zip(classes, taken, strict=True)]
    return part.take(np.sort(np.concatenate(chosen)).tolist(), f"{number} labels by {seed}")


def check_label_names(names: Sequence[str], classes: Sequence[Label]) -> None:
    if names and len(set(names)) != len(classes):
        raise ValueError(f"label_names={names}: wanted a name of its own for each of the labels {classes}")
