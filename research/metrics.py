"""Exact means: totals and weights are added, and divided once; and which way a figure is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax import struct

_LESS_IS_BETTER = ("loss", "perplexity", "bits_per_byte", "ece", "mse", "rmse", "mae", "mean_rank", "median_rank")
_LESS_IS_BETTER += ("equal_error_rate", "alignment", "uniformity")


def more_is_better(figure: str) -> bool:
    """Whether a figure ("val/accuracy", "test/log_loss") is the better the larger it is."""
    name = figure.split("/")[-1].removesuffix("_without_seen_rows")
    return not any(name == less or name.endswith(f"_{less}") for less in _LESS_IS_BETTER)


@struct.dataclass
class Mean:
    """A mean under way: `total` is a sum of values, `weight` the sum of what they count (tokens, examples)."""

    total: Any  # float32 []; stacked under scan, numpy once fetched
    weight: Any

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.weight + other.weight)


def add_on_host(sums: dict[str, np.ndarray], metrics: Mapping[str, Mean]) -> dict[str, np.ndarray]:
    """Adds fetched means to running float64 pairs `[total, weight]`: float32 counts drift past 2^24."""
    added = dict(sums)
    for name, mean in metrics.items():
        pair = np.array([mean.total, mean.weight], dtype=np.float64)
        added[name] = added[name] + pair if name in added else pair
    return added


def divide(sums: Mapping[str, Iterable[float]]) -> dict[str, float]:
    """Turns running pairs into values; a mean over nothing is NaN."""
    values = {}
    for name, (total, weight) in sums.items():
        values[name] = float(total / weight) if weight else float("nan")
    return values
