"""What vectors are worth for finding: recall among all candidates, mean reciprocal rank; and TF-IDF, the floor."""

from __future__ import annotations

from collections.abc import Sequence
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
