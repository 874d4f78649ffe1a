"""Exact means over a whole split, whatever its last batch holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from research.metrics import add_on_host
from research.types import Batch, Metrics

_FETCH = 32  # batches whose means wait on the device before they are fetched together


def sums_over(
    eval_step: Callable[[Any, Batch], Metrics], variables: Any, batches: Iterable[Batch]
) -> dict[str, np.ndarray]:
    """The float64 pairs [total, weight] of each metric over all batches."""
    sums: dict[str, np.ndarray] = {}
    waiting: list[Metrics] = []
    for batch in batches:
        waiting.append(eval_step(variables, batch))
        if len(waiting) == _FETCH:
            sums = _fetch(sums, waiting)
            waiting = []
    return _fetch(sums, waiting)


def _fetch(sums: dict[str, np.ndarray], waiting: list[Metrics]) -> dict[str, np.ndarray]:
    for metrics in jax.device_get(waiting):
        sums = add_on_host(sums, metrics)
    return sums
