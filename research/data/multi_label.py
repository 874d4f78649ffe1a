"""Texts, or pairs of texts, of which each may have several labels, one or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.batch import Dataset
from research.data.classes import Label
from research.data.labelled import Labelled, labelled_dataset, read_labelled
from research.data.text import TokenizerBlock

_TRUTH = {"0": False, "1": True, "false": False, "true": True}


def text_multi_label(
    path: str,
    *,
    length: int,
    tokenizer: TokenizerBlock,
    text_field: str = "text",
    pair_field: str = "",
    label_field: str = "labels",
    label_separator: str = "",
    label_fields: tuple[str, ...] = (),
    valid_path: str = "",
    valid_split: str = "",
    valid_fraction: float = 0.1,
    test_path: str = "",
    shift_path: str = "",
    folds: int = 0,
    fold: int = 0,
    slice_fields: tuple[str, ...] = (),
    seed: int = 0,
    num_labels: int = 0,
    labels_seed: int = 0,
) -> Dataset:
    """Rows as of `text_classification`, with `labels` float32 [C]: 1 for each class that the row has.

    Labels are the columns `label_fields`, each 0 or 1 (or false, true), where any are named; else the list of names in
    `label_field`, which may be empty, or one text with names between `label_separator`. Classes are the columns in
    their order, or the names in the training split, sorted. Of the training rows `num_labels` are used (0: all), a
    choice by `labels_seed` in which each class is there at least once.

    Raises:
      ValueError: bad data, a name that training never sees, or a class that none or all of the training rows have.
    """
    if label_separator and label_fields:
        raise ValueError(
            f"label_separator={label_separator!r} parts the names in label_field, and label_fields={label_fields} are "
            "columns of 0 and 1; leave one of the two out"
        )
    if len(set(label_fields)) < len(label_fields):
        raise ValueError(f"label_fields={label_fields} names a column twice; name each once")

    def read_label(record: Mapping[str, Any], where: str) -> tuple[Label, ...]:
        if label_fields:
            return tuple(field for field in label_fields if _truth(record[field], field, where))
        return _names_of(record[label_field], label_field, label_separator, where)

    found = read_labelled(
        path,
        read_label,
        text_fields=(text_field, pair_field) if pair_field else (text_field,),
        label_fields=label_fields or (label_field,),
        valid_path=valid_path,
        valid_split=valid_split,
        valid_fraction=valid_fraction,
        test_path=test_path,
        shift_path=shift_path,
        folds=folds,
        fold=fold,
        slice_fields=slice_fields,
        seed=seed,
    )
    classes = label_fields or _classes(found)
    _check_classes(found["train"], classes)
    if num_labels:
        found["train"] = _choose(found["train"], classes, num_labels, labels_seed)
    targets = {name: _indicators(part.labels, classes) for name, part in found.items()}
    names = tuple(map(str, classes))
    counts = {
        name: {
            "without_labels": int((~rows.any(axis=1)).sum()),
            "labels": dict(zip(names, rows.sum(axis=0).tolist(), strict=True)),
        }
        for name, rows in targets.items()
    }
    return labelled_dataset(
        found,
        targets,
        key="labels",
        length=length,
        tokenizer=tokenizer,
        counts=counts,
        label_names=names,
        label_counts=tuple(targets["train"].sum(axis=0).tolist()),
        num_rows=len(targets["train"]),
    )


def _truth(value: Any, field: str, where: str) -> bool:
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _TRUTH:
        return _TRUTH[value.strip().lower()]
    raise ValueError(f"{where}: {field}={value!r}; wanted 0 or 1, or false or true")


def _names_of(value: Any, field: str, separator: str, where: str) -> tuple[Label, ...]:
    if isinstance(value, str) and separator:
        return tuple(name.strip() for name in value.split(separator) if name.strip())
    if isinstance(value, str):
        raise ValueError(
            f"{where}: {field}={value!r} is one text; wanted a list of names, or give the label_separator between them"
        )
    names = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(names, list | tuple):
        raise ValueError(
            f"{where}: {field}={value!r} is {type(value).__name__}, wanted a list of names; give another label_field, "
            "or name columns of 0 and 1 as label_fields"
        )
    for name in names:
        if isinstance(name, bool) or not isinstance(name, int | str) or name == "":
            raise ValueError(f"{where}: {name!r} in {field} is no class; wanted whole numbers or names")
    return tuple(names)


def _classes(found: Mapping[str, Labelled]) -> list[Label]:
    """The sorted labels of training, once every split is known to hold no other."""
    train = found["train"]
    seen = {name for names in train.labels for name in names}
    if not seen:
        raise ValueError(f"{train.where}: no training row has a label; give another label_field")
    if len({type(name) for name in seen}) > 1:
        raise ValueError(f"{train.where}: some labels are numbers, others names; write all of them the same way")
    for name, part in found.items():
        unseen = sorted({label for labels in part.labels for label in labels} - seen, key=repr)
        if unseen:
            raise ValueError(
                f"{part.where}: label {unseen[0]!r} of the {name} split is never seen in training; remove it from its "
                f"{sum(unseen[0] in labels for labels in part.labels)} rows or add rows with it to the training data"
            )
    return sorted(seen)


def _check_classes(train: Labelled, classes: Sequence[Label]) -> None:
    num_rows = len(train.labels)
    for label, count in zip(classes, _indicators(train.labels, classes).sum(axis=0), strict=True):
        if count in (0, num_rows):
            raise ValueError(
                f"{train.where}: {'none' if count == 0 else 'every one'} of the {num_rows} training rows has the label "
                f"{label!r}; there is nothing to tell apart: leave it out, or give other training data"
            )


def _indicators(labels: Sequence[Sequence[Label]], classes: Sequence[Label]) -> np.ndarray:
    """int64 [N C]: 1 where the row has the class."""
    return np.array([[label in row for label in classes] for row in map(set, labels)], np.int64)


def _choose(part: Labelled, classes: Sequence[Label], number: int, seed: int) -> Labelled:
    """`number` rows in the order of the file: for each class one that has it, the rarest first, then any."""
    has = _indicators(part.labels, classes) > 0
    order = np.random.default_rng(seed).permutation(len(has))
    chosen: list[int] = []
    for index in np.argsort(has.sum(axis=0), kind="stable"):
        if not has[chosen, index].any():
            chosen.append(int(order[has[order, index]][0]))
    if not len(chosen) <= number <= len(has):
        raise ValueError(
            f"num_labels={number}: {part.where} has {len(has)} training rows, and each of {len(classes)} classes once "
            f"takes {len(chosen)}; use a number between the two, or 0 for all"
        )
    others = order[~np.isin(order, chosen)][: number - len(chosen)]
    return part.take(sorted([*chosen, *others.tolist()]), f"{number} labels by {seed}")
