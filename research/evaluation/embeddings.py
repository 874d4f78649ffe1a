"""What a cloud of vectors looks like, without labels: alignment, uniformity, ranks; and whether it is collapsing."""

from __future__ import annotations

import numpy as np

_CHUNK = 1024  # rows at a time

# Pretrained language models reach a mean cosine of nearly 0.99 while each vector still tells its text (Ethayarajh 2019,
# "How Contextual are Contextualized Word Representations?", figure 1): below 0.999 nothing is called equal.
NEARLY_EQUAL = 0.999
# Ten tight clusters have nine directions, 0.4 % of 2,048: half a percent leaves labelled structure alone up to there.
RANK_SHARE = 0.005
FEWEST_DIRECTIONS = 3.0  # in narrow embeddings, and at most a quarter of the directions that there are


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [N D] at length one, in float64; a vector of zeros stays one.

    Raises:
      ValueError: no rows, another number of axes, or values that are not finite.
    """
    wide = np.asarray(vectors, np.float64)
    if wide.ndim != 2 or not len(wide):
        raise ValueError(f"vectors came in shape {wide.shape}; give some, as rows [N D]")
    finite = np.isfinite(wide).all(axis=1)
    if not finite.all():
        raise ValueError(f"{(~finite).sum()} of {len(wide)} vectors hold a NaN or an infinity; look at the model first")
    largest = np.abs(wide).max(axis=1, keepdims=True)
    wide = wide / np.where(largest > 0, largest, 1.0)  # so that no square leaves the range of numbers
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 0.5)


def alignment(first: np.ndarray, second: np.ndarray, *, power: float = 2.0) -> float:
    """Mean distance to `power` between the two unit vectors of a positive pair, rows of [N D]: 0 is the best, 2 what
    unrelated pairs have at power 2 (Wang and Isola 2020, section 4.1).

    Raises:
      ValueError: sides of different shape.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"the sides of the pairs came as {first.shape} and {second.shape}; give one row of each a pair"
        )
    return float((np.linalg.norm(unit(first) - unit(second), axis=1) ** power).mean())


def uniformity(vectors: np.ndarray, *, scale: float = 2.0) -> float:
    """log of the mean of exp(-scale ‖x - y‖²) over the pairs of different rows, at length one (Wang and Isola 2020,
    section 4.1, t = `scale`): the less, the more evenly they fill the sphere; 0 where all are equal.

    Raises:
      ValueError: fewer than two rows.
    """
    rows = unit(vectors)
    size = len(rows)
    if size < 2:
        raise ValueError("uniformity needs two vectors or more, not 1")
    total = 0.0
    for start in range(0, size, _CHUNK):
        squares = 2.0 - 2.0 * rows[start : start + _CHUNK] @ rows.T
        total += float(np.exp(-scale * np.maximum(squares, 0.0)).sum())
    return float(np.log((total - size) / (size * (size - 1.0))))  # a row and itself give exp(0)


def rankme(vectors: np.ndarray) -> float:
    """RankMe (Garrido et al. 2023, section 3) of vectors [N D]: exp of the entropy of their singular values' shares,
    from 1 to min(N, D). The vectors are taken as they are, not centred.
    """
    values = np.linalg.svd(_finite(vectors), compute_uv=False)
    shares = values / max(values.sum(), 1e-300) + 1e-7  # the paper's epsilon
    return float(np.exp(-(shares * np.log(shares)).sum()))


def effective_rank(vectors: np.ndarray) -> float:
    """In how many directions vectors [N D] vary: exp of the entropy of the shares of variance of their principal axes,
    from 1 (0 where all are equal) to min(N - 1, D) (Roy and Vetterli 2007, of the covariance).

    Against RankMe the mean is set aside and directions count by variance: noise of 1 % in 126 directions leaves a rank
    of 2 at 2.1, where RankMe says 18.
    """
    wide = _finite(vectors)
    largest = np.abs(wide).max()
    centred = wide - wide.mean(axis=0)
    if np.abs(centred).max() <= 1e-12 * largest:  # what is left is round-off
        return 0.0
    variances = np.linalg.svd(centred / np.abs(centred).max(), compute_uv=False) ** 2
    shares = variances / variances.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_cosine(vectors: np.ndarray) -> float:
    """The mean cosine similarity of two different rows of [N D]."""
    rows = unit(vectors)
    size = len(rows)
    if size < 2:
        raise ValueError("a mean similarity needs two vectors or more, not 1")
    total, own = rows.sum(axis=0), (rows * rows).sum()
    return float((total @ total - own) / (size * (size - 1.0)))


def collapse(vectors: np.ndarray) -> str:
    """ "" where the vectors [N D] of N different inputs tell them apart, else one sentence on how a run is collapsing.

    Complete collapse: a mean cosine similarity above `NEARLY_EQUAL`. Dimensional collapse (Jing et al. 2022): an
    effective rank below `RANK_SHARE` of min(N - 1, D), or below three directions (below a quarter where there are
    fewer than twelve). Ask once warmup is over: an untrained deep network may give nearly the same vector to all. A
    model trained with labels of C classes may rightly be left with C - 1 directions.

    Raises:
      ValueError: fewer than two rows.
    """
    wide = np.asarray(vectors, np.float64)
    if wide.ndim != 2 or len(wide) < 2:
        raise ValueError(f"vectors came in shape {wide.shape}; collapse is seen in two rows or more, [N D]")
    size = len(wide)
    broken = int((~np.isfinite(wide).all(axis=1)).sum())
    if broken:
        return f"{broken} of {size} vectors hold a NaN or an infinity"
    blank = int((~wide.any(axis=1)).sum())
    if 2 * blank > size:
        return f"{blank} of {size} vectors are all zeros"
    cosine = mean_cosine(wide)
    if cosine > NEARLY_EQUAL:
        return f"all vectors are nearly equal: their mean cosine similarity is {cosine:.5f}, above {NEARLY_EQUAL}"
    full, rank = min(size - 1, wide.shape[1]), effective_rank(wide)
    least = max(RANK_SHARE * full, min(FEWEST_DIRECTIONS, full / 4))
    if full > 1 and rank < least:
        return (
            f"the vectors vary in {rank:.1f} of {full} directions (effective rank), fewer than {least:.1f}; RankMe is "
            f"{rankme(wide):.1f}"
        )
    return ""


def _finite(vectors: np.ndarray) -> np.ndarray:
    unit(vectors)  # refuses what has no spectrum
    return np.asarray(vectors, np.float64)
