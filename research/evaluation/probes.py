"""Linear probes: what a straight line can read from frozen vectors, in closed form or by logistic regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PENALTIES = tuple(10.0**power for power in range(-5, 3))
SCALES = tuple(2.0 ** (power / 2) for power in range(-2, 15))


@dataclass(frozen=True)
class Probe:
    """Logits = vectors @ kernel + bias; what was chosen on the validation rows, and how well it did there."""

    kernel: np.ndarray  # float64 [D C]
    bias: np.ndarray  # float64 [C]
    penalty: float
    scale: float
    accuracy: float

    def logits(self, vectors: np.ndarray) -> np.ndarray:
        return np.asarray(vectors, np.float64) @ self.kernel + self.bias


def ridge_probe(
    vectors: np.ndarray, labels: np.ndarray, valid_vectors: np.ndarray, valid_labels: np.ndarray, *, num_classes: int
) -> Probe:
    """Ridge regression from standardised vectors [N D] to one-hot labels [N], solved in closed form.

    W = (ZᵀZ / N + λI)⁻¹ ZᵀY / N. Of `PENALTIES` the λ with the best validation accuracy is taken (of equals the
    larger), then of `SCALES` the factor with which the softmax of the scores has the least validation log-loss.

    Raises:
      ValueError: no rows, or vectors and labels of different number.
    """
    _check(vectors, labels, valid_vectors, valid_labels)
    wide = np.asarray(vectors, np.float64)
    mean, spread = wide.mean(axis=0), np.maximum(wide.std(axis=0), 1e-6)
    targets = np.eye(num_classes)[labels]
    shares = targets.mean(axis=0)
    inputs = (wide - mean) / spread
    values, axes = np.linalg.eigh(inputs.T @ inputs / len(inputs))
    projected = axes.T @ (inputs.T @ (targets - shares) / len(inputs))
    found: list[Probe] = []
    for penalty in PENALTIES:
        kernel = axes @ (projected / (np.maximum(values, 0.0) + penalty)[:, None]) / spread[:, None]
        bias = shares - mean @ kernel
        right = (np.asarray(valid_vectors, np.float64) @ kernel + bias).argmax(axis=1) == valid_labels
        found.append(Probe(kernel, bias, penalty, 1.0, float(right.mean())))
    best = max(reversed(found), key=lambda probe: probe.accuracy)
    scale = min(SCALES, key=lambda factor: _log_loss(factor * best.logits(valid_vectors), valid_labels))
    return Probe(scale * best.kernel, scale * best.bias, best.penalty, scale, best.accuracy)


def logistic_probe(
    vectors: np.ndarray, labels: np.ndarray, valid_vectors: np.ndarray, valid_labels: np.ndarray, *, num_classes: int
) -> Probe:
    """Logistic regression (softmax) from standardised vectors [N D] to labels int [N].

    Minimises the mean log-loss plus λ / 2 ‖W‖², the bias free; of two classes, W is that of the log-odds. Of
    `PENALTIES` the λ with the best validation accuracy is taken (of equals the larger); its probabilities are used as
    they are, so that `scale` is 1.

    Raises:
      ValueError: no rows, vectors and labels of different number, or a class without training rows.
    """
    _check(vectors, labels, valid_vectors, valid_labels)
    missing = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
    if len(missing):
        raise ValueError(f"classes {missing.tolist()} have no training rows; give some of each, or use ridge_probe")
    from sklearn.linear_model import LogisticRegression  # a second to import: only when asked for

    wide = np.asarray(vectors, np.float64)
    mean, spread = wide.mean(axis=0), np.maximum(wide.std(axis=0), 1e-6)
    model = LogisticRegression(max_iter=10_000, tol=1e-6, warm_start=True)
    found: list[Probe] = []
    for penalty in sorted(PENALTIES, reverse=True):  # each begins where the one before ended
        model.set_params(C=1.0 / (penalty * len(wide))).fit((wide - mean) / spread, labels)
        kernel, bias = model.coef_.T, model.intercept_
        if num_classes == 2:  # scikit-learn keeps one column, the log-odds of the second class
            kernel, bias = np.concatenate([-kernel, kernel], axis=1) / 2, np.concatenate([-bias, bias]) / 2
        kernel = kernel / spread[:, None]
        bias = bias - mean @ kernel
        right = (np.asarray(valid_vectors, np.float64) @ kernel + bias).argmax(axis=1) == valid_labels
        found.append(Probe(kernel, bias, penalty, 1.0, float(right.mean())))
    return max(found, key=lambda probe: probe.accuracy)


def _check(vectors: np.ndarray, labels: np.ndarray, valid_vectors: np.ndarray, valid_labels: np.ndarray) -> None:
    for rows, wanted, name in ((vectors, labels, "training"), (valid_vectors, valid_labels, "validation")):
        if not len(rows) or len(rows) != len(wanted):
            raise ValueError(f"{len(rows)} {name} vectors came with {len(wanted)} labels; give one each, and some")


def _log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]).mean())
