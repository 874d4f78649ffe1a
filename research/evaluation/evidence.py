"""Several runs of two arms and a floor, seeds or folds: means, 95 % intervals, the paired difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.metrics import more_is_better

HEADS = ("labels", "pretrained", "from scratch", "paired difference", "floor", "wall")


def interval(values: Sequence[float], *, test_share: float = 0.0) -> float:
    """Half the width of the 95 % interval of a mean: Student's t with n - 1 degrees of freedom times s / sqrt(n).

    Of folds, `test_share` is the number of test rows over that of training rows, and s² is multiplied by 1 / n +
    test_share in place of 1 / n: the corrected resampled t-test of Nadeau and Bengio 2003, "Inference for the
    Generalization Error". Folds share most of their training rows, and so vary less than new data would.

    Raises:
      ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs two values or more, not {len(values)}")
    from scipy import stats

    spread = np.sqrt((1 / len(values) + test_share) * np.var(values, ddof=1))
    return float(stats.t.ppf(0.975, len(values) - 1) * spread)


def compare(
    pretrained: Sequence[float],
    scratch: Sequence[float],
    floors: Mapping[str, Sequence[float]],
    *,
    test_share: float = 0.0,
    ascending: bool = True,
) -> dict[str, Any]:
    """Means and 95 % intervals of both arms and of each floor, and of the paired differences pretrained - scratch.

    `beats_scratch` says that the whole interval of the difference is on the better side of 0: above it, where more is
    better (`ascending`); `test_share` as for `interval`.

    Raises:
      ValueError: arms of different size, or of fewer than two runs.
    """
    if len(pretrained) != len(scratch):
        raise ValueError(f"{len(pretrained)} pretrained and {len(scratch)} scratch runs; wanted pairs")
    difference = [first - second for first, second in zip(pretrained, scratch, strict=True)]
    found = {
        name: over_runs(values, test_share=test_share)
        for name, values in (("pretrained", pretrained), ("scratch", scratch))
    }
    paired = over_runs(difference, test_share=test_share)
    return {
        **found,
        "paired_difference": paired,
        "beats_scratch": paired["mean"] * (1.0 if ascending else -1.0) > paired["interval95"],
        "floors": {name: over_runs(values, test_share=test_share) for name, values in floors.items() if values},
    }


def over_runs(values: Sequence[float], *, test_share: float = 0.0) -> dict[str, Any]:
    """Mean and interval of some runs, and the runs themselves; one run has an interval of 0."""
    half = interval(values, test_share=test_share) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "interval95": half, "runs": [float(value) for value in values]}


def caption(found: Mapping[str, Any]) -> str:
    """What the table of some evidence shows, and by which test."""
    if found.get("folds"):
        over, test = f"{found['folds']} folds", "95 % interval (corrected for folds: Nadeau and Bengio 2003)"
    else:
        over, test = f"{found['seeds']} seeds", "95 % interval"
    unit = " in percent" if _in_percent(found) else ""
    return f"{found['metric']}{unit} over {over}: mean ± {test}; * beyond the interval"


def table(found: Mapping[str, Any]) -> list[str]:
    """The caption, the heads and a line a budget, aligned."""
    rows = [list(HEADS), *cells(found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [caption(found), *lines]


def cells(found: Mapping[str, Any]) -> list[list[str]]:
    """The cells of each budget's row, as text."""
    scale, digits = (100.0, 1) if _in_percent(found) else (1.0, 3)

    def number(arm: Mapping[str, Any], *, sign: str = "") -> str:
        return f"{scale * arm['mean']:{sign}.{digits}f}"

    def ranged(arm: Mapping[str, Any], *, sign: str = "") -> str:
        return f"{number(arm, sign=sign)} ± {scale * arm['interval95']:.{digits}f}"

    return [
        [
            f"{budget['labels']:,}",
            ranged(budget["pretrained"]),
            ranged(budget["scratch"]),
            ranged(budget["paired_difference"], sign="+") + (" *" if budget["beats_scratch"] else ""),
            ", ".join(f"{name.replace('_', ' ')} {number(arm)}" for name, arm in budget["floors"].items()) or "-",
            f"{sum(budget['wall_seconds'].values()):.0f} s",
        ]
        for budget in found["budgets"]
    ]


def _in_percent(found: Mapping[str, Any]) -> bool:
    """Losses and errors are no shares of anything."""
    return more_is_better(found["metric"])
