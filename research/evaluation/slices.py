"""Where a model is right and where it is not: its headline figure by label, by length and by fields of the records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from research.batch import Split

MOST_VALUES = 20  # of a field; the smallest of more are pooled
MOST_NUMBERS = 10  # more different numbers are cut into quartiles
OTHER = "other"

Slices = dict[str, dict[str, dict[str, float]]]  # field -> value -> figures


def slices(values: Sequence[np.ndarray], headline: str, part: Split, label_names: Sequence[str]) -> Slices:
    """By `label` (where examples have any), `length` (quartiles of its tokens, where it is one row) and every field of
    the split: for each value the figure `headline` over its examples, the number of these (`rows`), and how many
    `values` that is the mean of (words, where an example has several).

    `values` [N][…] are those whose mean over the whole split is the headline figure, one array an example.
    """
    columns: dict[str, dict[str, np.ndarray]] = {}
    if len(part.labels) and label_names:
        columns["label"] = by_value([_label(label, label_names) for label in part.labels])
    if len(part.examples) == len(values) and "segment_ids" in part.examples[0]:
        columns["length"] = by_quartile(np.array([_num_tokens(part, index) for index in range(len(values))]))
    columns |= {name: by_value(field) for name, field in part.fields.items()}
    return {
        name: {value: _figures(values, rows, headline) for value, rows in groups.items()}
        for name, groups in columns.items()
    }


def by_value(column: Sequence[Any]) -> dict[str, np.ndarray]:
    """The rows [n] of each value, the largest groups first: MOST_VALUES of them, and the rest under OTHER.

    More than MOST_NUMBERS different numbers are cut into quartiles.
    """
    if len(set(column)) > MOST_NUMBERS and all(map(is_number, column)):
        return by_quartile(np.array(column))
    groups: dict[str, list[int]] = {}
    for row, value in enumerate(column):
        groups.setdefault(str(value), []).append(row)
    ordered = sorted(groups, key=lambda name: (-len(groups[name]), name))
    if len(ordered) > MOST_VALUES:
        kept = [name for name in ordered if name != OTHER][:MOST_VALUES]
        pooled = sorted(row for name in ordered if name not in kept for row in groups[name])
        groups, ordered = {**groups, OTHER: pooled}, [*kept, OTHER]
    return {name: np.array(groups[name]) for name in ordered}


def by_quartile(column: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of each quartile of some numbers, lowest first, named by the least and the largest in it.

    Equal numbers stay together: where there are many of them quartiles are uneven, and one may be missing.
    """
    place = np.searchsorted(np.quantile(column, [0.25, 0.5, 0.75]), column, side="left")
    found = {}
    for quartile in np.unique(place):
        rows = np.flatnonzero(place == quartile)
        low, high = column[rows].min(), column[rows].max()
        found[f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"] = rows
    return found


def _figures(values: Sequence[np.ndarray], rows: np.ndarray, headline: str) -> dict[str, float]:
    together = np.concatenate([values[row] for row in rows])
    return {headline: float(together.mean()), "rows": len(rows), "values": len(together)}


def _label(label: Any, names: Sequence[str]) -> Any:
    """The name of a class; the names of the labels of a row that may have several; a number as it is."""
    if isinstance(label, list | tuple):
        return ", ".join(name for name, has in zip(names, label, strict=True) if has) or "no label"
    return label if isinstance(label, float) else names[label]


def _num_tokens(part: Split, index: int) -> int:
    return int((part.examples[index]["segment_ids"] > 0).sum())


def is_number(value: Any) -> bool:
    """True for a finite number that is no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
