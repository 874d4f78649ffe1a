"""What predicted numbers are worth: how far off they are, and whether they rise and fall with the true ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def regression_metrics(values: Sequence[float] | np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Metrics of a whole split, in the units of `values` [N] and `predicted` [N], or of their square (mse).

    `r2` is 1 - mse / the variance of the values: 0 is what their own mean would have. Pearson's and Spearman's (ranks,
    equal values their mean rank) correlations. NaN where all values, or for correlations all predictions, are equal.

    Raises:
      ValueError: shapes that do not agree, no example, or what is not finite.
    """
    from scipy import stats  # slow to import: only when asked for

    values, predicted = np.asarray(values, np.float64), np.asarray(predicted, np.float64)
    if values.ndim != 1 or not len(values) or values.shape != predicted.shape:
        raise ValueError(f"values has shape {values.shape}, predicted {predicted.shape}; wanted one number each a row")
    if not (np.isfinite(values).all() and np.isfinite(predicted).all()):
        raise ValueError("values or predictions are not finite")
    mse, variance = float(np.mean((predicted - values) ** 2)), float(values.var())
    return {
        "mse": mse,
        "rmse": mse**0.5,
        "mae": float(np.abs(predicted - values).mean()),
        "r2": 1.0 - mse / variance if variance else float("nan"),
        "pearson": _correlation(values, predicted),
        "spearman": _correlation(stats.rankdata(values), stats.rankdata(predicted)),
    }


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    spread = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / spread) if spread else float("nan")
