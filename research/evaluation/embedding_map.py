"""A flat map of vectors, and whether groups lie apart on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from research.evaluation.embeddings import unit

METHODS = ("pca", "tsne")
MOST_POINTS = 2000
_KEPT_AXES = 30  # t-SNE is given principal axes, as its authors do (van der Maaten and Hinton 2008, section 4.2)


def embedding_map(vectors: np.ndarray, *, method: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of vectors [N D] are drawn, int [P], and where, float64 [P 2].

    At most `MOST_POINTS`, a seeded choice in the order of the rows. The vectors are taken at length one. "pca" are the
    two axes of the greatest variance, "tsne" is seeded and starts from them.

    Raises:
      ValueError: another method, fewer than five rows, one column, or vectors that all point the same way.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}; the maps are: {', '.join(METHODS)}")
    rows = unit(vectors)
    if len(rows) < 5 or rows.shape[1] < 2:
        raise ValueError(f"vectors came in shape {rows.shape}; a map needs five rows and two columns or more")
    drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST_POINTS])
    points = rows[drawn]
    centred = points - points.mean(axis=0)
    if np.abs(centred).max() < 1e-9:
        raise ValueError("all vectors point the same way; there is nothing to map")
    axes: Any = _principal(centred, min(_KEPT_AXES, *centred.shape))
    if method == "pca":
        return drawn, axes[:, :2]
    from sklearn.manifold import TSNE  # a second to import: only when asked for
    from threadpoolctl import threadpool_limits  # which scikit-learn brings along

    start = axes[:, :2] / axes[:, 0].std() * 1e-4  # the usual scale of a start
    perplexity = min(30.0, (len(points) - 1) / 3)
    with threadpool_limits(1):  # threads that wait for each other cost more than they save on a shared machine
        placed = TSNE(perplexity=perplexity, init=start.astype(np.float32), random_state=seed).fit_transform(axes)
    return drawn, np.asarray(placed, np.float64)


def map_purity(points: np.ndarray, labels: np.ndarray, *, neighbours: int = 10) -> dict[str, float]:
    """`purity`: the mean share of a point's nearest `neighbours` (all others, where there are fewer) that have its own
    label; `majority_share`: that of the commonest label. A map separates the groups where the first is well above the
    second: a map of chance has the sum of the squared shares, which is less.

    `points` [P 2], `labels` [P]. Points that are as far as the last neighbour are taken in the order of the rows.

    Raises:
      ValueError: fewer than two points, labels of another number, or no neighbour.
    """
    points, labels = np.asarray(points, np.float64), np.asarray(labels)
    if len(points) < 2 or len(points) != len(labels) or neighbours < 1:
        raise ValueError(
            f"{len(points)} points came with {len(labels)} labels and neighbours={neighbours}; wanted two points or "
            "more, a label each, and one neighbour or more"
        )
    squares = ((points[:, None] - points[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(squares, np.inf)
    nearest = np.argsort(squares, axis=1, kind="stable")[:, : min(neighbours, len(points) - 1)]
    counts = np.unique(labels, return_counts=True)[1]
    return {
        "purity": float((labels[nearest] == labels[:, None]).mean()),
        "majority_share": float(counts.max() / len(labels)),
    }


def _principal(centred: np.ndarray, most: int) -> np.ndarray:
    """Coordinates [N most] on the axes of the greatest variance; of each axis the largest entry is positive."""
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    kept = axes[:most]
    signs = np.sign(kept[np.arange(len(kept)), np.abs(kept).argmax(axis=1)])
    return centred @ (kept * signs[:, None]).T
