"""Texts, or pairs of texts, each with a number to tell: a rating, a similarity, a price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.batch import Dataset
from research.data.labelled import Labelled, labelled_dataset, read_labelled
from research.data.splits import random_choice
from research.data.text import TokenizerBlock

_LEAST_SPREAD = 1e-5  # of the largest value: less is lost in single precision


def text_regression(
    path: str,
    *,
    length: int,
    tokenizer: TokenizerBlock,
    text_field: str = "text",
    pair_field: str = "",
    label_field: str = "label",
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
    """Rows as of `text_classification`, with `value`: the number in `label_field`, in its own units.

    Mean and standard deviation of the training split's are facts of the data. Of the training rows `num_labels` are
    used (0: all), a random choice by `labels_seed`.

    Raises:
      ValueError: bad data, what is no finite number (the record is named), or the same number in every training row.
    """

    def read_label(record: Mapping[str, Any], where: str) -> float:
        return _number(record[label_field], label_field, where)

    found = read_labelled(
        path,
        read_label,
        text_fields=(text_field, pair_field) if pair_field else (text_field,),
        label_fields=(label_field,),
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
    if num_labels:
        train = found["train"]
        at = random_choice(len(train.labels), num_labels, labels_seed, train.where)
        found["train"] = train.take(at, f"{num_labels} labels by {labels_seed}")
    targets = {name: np.array(part.labels, np.float64) for name, part in found.items()}
    mean, scale = float(targets["train"].mean()), float(targets["train"].std())
    _check_spread(found["train"], mean, scale, label_field)
    return labelled_dataset(
        found,
        targets,
        key="value",
        length=length,
        tokenizer=tokenizer,
        counts={
            name: {"least": float(values.min()), "mean": float(values.mean()), "most": float(values.max())}
            for name, values in targets.items()
        },
        label_names=(label_field,),
        target_mean=mean,
        target_scale=scale,
    )


def _number(value: Any, field: str, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= float(np.finfo(np.float32).max):  # a NaN is not
        raise ValueError(f"{where}: {field}={value!r} is no finite number; mend it, or give another label_field")
    return number


def _check_spread(train: Labelled, mean: float, scale: float, field: str) -> None:
    if scale <= _LEAST_SPREAD * max(map(abs, train.labels)):
        raise ValueError(
            f"{train.where}: {field} is {mean:.7g} in every training row, or all but; there is nothing to tell: give "
            "another label_field, or subtract what is common to all"
        )
