"""What vectors are worth for finding: recall among all candidates, mean reciprocal rank; and TF-IDF, the floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

CUTOFFS = (1, 5, 10)
_CHUNK = 1024  # queries at a time


def ranks(similarities: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The rank, from 1, of each query's own candidate; of equals it is the last, so that ties earn nothing.

    `similarities` [Q N], `wanted` int [Q] the candidate's index.
    """
    own = similarities[np.arange(len(wanted)), wanted][:, None]
    return (similarities >= own).sum(axis=1)


def retrieval_metrics(found: np.ndarray, num_candidates: int) -> dict[str, Any]:
    """From ranks [Q]: recall at 1, 5 and 10, mean reciprocal rank, median rank, and how many candidates there were."""
    result: dict[str, Any] = {f"recall_at_{cutoff}": float((found <= cutoff).mean()) for cutoff in CUTOFFS}
    result["mean_reciprocal_rank"] = float((1.0 / found).mean())
    result["median_rank"] = float(np.median(found))
    result["candidates"] = num_candidates
    return result


def vector_ranks(queries: np.ndarray, seconds: np.ndarray, texts: Sequence[str]) -> tuple[np.ndarray, int]:
    """Ranks of each query's own second text among the distinct ones, by inner products; and how many these are.

    `queries` and `seconds` [N D]; equal texts of `seconds` are one candidate.
    """
    first, own = candidates(texts)
    among = np.asarray(seconds, np.float64)[first]
    parts = [
        ranks(np.asarray(queries[start : start + _CHUNK], np.float64) @ among.T, own[start : start + _CHUNK])
        for start in range(0, len(queries), _CHUNK)
    ]
    return np.concatenate(parts), len(first)


def group_ranks(similarities: np.ndarray, query_groups: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The rank, from 1, of the nearest candidate of each query's own group: any of them is a hit.

    `similarities` [Q N], `query_groups` int [Q], `groups` int [N] of the candidates. Others of the group do not count
    against it, and candidates of other groups that are as near go before it, so that ties earn nothing.

    Raises:
      ValueError: similarities that are not finite, or a query with no candidate of its group.
    """
    if not np.isfinite(similarities).all():
        raise ValueError("similarities hold a NaN or an infinity, and would rank first; look at the model first")
    same = np.asarray(query_groups)[:, None] == np.asarray(groups)[None]
    if not same.any(axis=1).all():
        raise ValueError(f"{(~same.any(axis=1)).sum()} of {len(same)} queries have no candidate of their group")
    best = np.where(same, similarities, -np.inf).max(axis=1, keepdims=True)
    return 1 + ((similarities >= best) & ~same).sum(axis=1)


def retrieval_both_ways(
    images: np.ndarray, texts: np.ndarray, *, image_groups: np.ndarray, text_groups: np.ndarray
) -> dict[str, Any]:
    """`retrieval_metrics` and the mean rank of texts for an image and of images for a text, under `image_to_text_` and
    `text_to_image_`; the arguments are those of `ranks_both_ways`.
    """
    found = ranks_both_ways(images, texts, image_groups=image_groups, text_groups=text_groups)
    return metrics_both_ways(found, num_images=len(images), num_texts=len(texts))


def metrics_both_ways(found: Mapping[str, np.ndarray], *, num_images: int, num_texts: int) -> dict[str, Any]:
    """The figures of `retrieval_both_ways`, of ranks under `image_to_text` and `text_to_image`."""
    result = {}
    for way, num_candidates in (("image_to_text", num_texts), ("text_to_image", num_images)):
        figures = retrieval_metrics(found[way], num_candidates) | {"mean_rank": float(found[way].mean())}
        result |= {f"{way}_{name}": value for name, value in figures.items()}
    return result


def ranks_both_ways(
    images: np.ndarray, texts: np.ndarray, *, image_groups: np.ndarray, text_groups: np.ndarray
) -> dict[str, np.ndarray]:
    """`group_ranks` of the texts for each image, and of the images for each text: `image_to_text`, `text_to_image`.

    `images` [M D] and `texts` [N D], by inner products: give unit vectors for cosines. Any candidate of the query's own
    group is a hit: give equal captions, and the captions of one image, one group.

    Raises:
      ValueError: as `group_ranks`, or rows and groups of different number.
    """
    for rows, groups, name in ((images, image_groups, "images"), (texts, text_groups, "texts")):
        if not len(rows) or len(rows) != len(groups):
            raise ValueError(f"{len(rows)} {name} came with {len(groups)} groups; give one each, and some")
    sides = (np.asarray(images, np.float64), image_groups), (np.asarray(texts, np.float64), text_groups)
    result = {}
    for way, (queries, query_groups), (among, groups) in (
        ("image_to_text", sides[0], sides[1]),
        ("text_to_image", sides[1], sides[0]),
    ):
        parts = [
            group_ranks(queries[start : start + _CHUNK] @ among.T, query_groups[start : start + _CHUNK], groups)
            for start in range(0, len(queries), _CHUNK)
        ]
        result[way] = np.concatenate(parts)
    return result


def chance_recall(hits: np.ndarray, num_candidates: int, cutoff: int) -> float:
    """Recall at `cutoff` of a random order, the mean over queries with so many hits [Q] among the candidates: k / N
    where each has one, else one minus the chance that none of k draws without return is a hit.
    """
    drawn = np.arange(min(cutoff, num_candidates))
    missed = np.maximum(num_candidates - np.asarray(hits)[:, None] - drawn, 0) / (num_candidates - drawn)
    return float(1.0 - missed.prod(axis=1).mean())


def tfidf_ranks(train_texts: Sequence[str], queries: Sequence[str], texts: Sequence[str]) -> tuple[np.ndarray, int]:
    """The same ranks by the cosine of TF-IDF vectors of words; frequencies are those of the training texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # a second to import: only when asked for

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+|[^\w\s]").fit(train_texts)
    first, own = candidates(texts)
    asked: Any = vectorizer.transform(queries)  # sparse [Q W]
    among: Any = vectorizer.transform([texts[index] for index in first])
    among = among.T.tocsc()
    parts = [
        ranks((asked[start : start + _CHUNK] @ among).toarray(), own[start : start + _CHUNK])
        for start in range(0, len(queries), _CHUNK)
    ]
    return np.concatenate(parts), len(first)


def candidates(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Where each distinct text stands first [C], and which of them each text is [N]."""
    _, first, own = np.unique(np.array(texts, dtype=object), return_index=True, return_inverse=True)
    return first, own
