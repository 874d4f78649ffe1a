"""A hook that ends training once a metric has stopped getting better."""

from __future__ import annotations

import math
from collections.abc import Sequence

from research.training.hooks import Evaluate, Save
from research.training.state import TrainState
from research.training.step_folder import Mode
from research.types import Metrics


class StopEarly:
    """Ends training when the last `patience` evaluations did not better `metric`; saves each that did, and the last.

    Comes after Save. `seen` are the values of the evaluations before this start, in order.

    Raises:
      ValueError: the metric is not measured.
    """

    def __init__(
        self, evaluate: Evaluate, save: Save, *, metric: str, mode: Mode, patience: int, seen: Sequence[float]
    ) -> None:
        self._evaluate, self._save, self._metric, self._patience = evaluate, save, metric, patience
        self._sign = 1.0 if mode == "max" else -1.0
        self._best, self._since = -math.inf, 0
        for value in seen:
            self._judge(value)

    @property
    def done(self) -> bool:
        return self._since >= self._patience

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> bool:
        evaluated, values = self._evaluate.latest
        if evaluated != step:
            return False
        if self._metric not in values:
            raise ValueError(f"metric={self._metric!r} is not measured; use one of {', '.join(sorted(values))}")
        if self._judge(values[self._metric]) or self.done:
            self._save.save(step, state)
        return self.done

    def _judge(self, value: float) -> bool:
        better = self._sign * value > self._best
        self._best, self._since = (self._sign * value, 0) if better else (self._best, self._since + 1)
        return better
