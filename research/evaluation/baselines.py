"""Floors that need no network: unigram and Kneser-Ney n-grams for text, TF-IDF with linear models for labels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Documents = Sequence[np.ndarray]  # token ids of each document; its first token (<bos>) is given, never predicted

# KenLM's `--discount_fallback`, where the counts of counts are too few to estimate discounts from.
_FALLBACK_DISCOUNTS = (0.0, 0.5, 1.0, 1.5)


def unigram_nats(train_documents: Documents, eval_documents: Documents, vocab_size: int) -> float:
    """Nats per predicted token under the training split's token frequencies, one added to every count (Laplace)."""
    train = _join(train_documents, vocab_size, "train_documents")
    evaluated = _join(eval_documents, vocab_size, "eval_documents")
    counts = np.bincount(train.tokens[train.positions > 0], minlength=vocab_size) + 1.0
    return float(-np.log(counts / counts.sum())[evaluated.tokens[evaluated.positions > 0]].mean())


def kneser_ney(
    train_documents: Documents,
    eval_documents: Documents,
    *,
    vocab_size: int,
    orders: Sequence[int] = (1, 2, 3, 4, 5),
) -> dict[int, float]:
    """Nats per predicted token under interpolated modified Kneser-Ney models, one for each of `orders`."""
    found = kneser_ney_log_probabilities(train_documents, eval_documents, vocab_size=vocab_size, orders=orders)
    return {order: float(-values.mean()) for order, values in found.items()}


def kneser_ney_log_probabilities(
    train_documents: Documents, eval_documents: Documents, *, vocab_size: int, orders: Sequence[int]
) -> dict[int, np.ndarray]:
    """Log-probability in nats (float64) of every predicted token: for each order an array [num_predicted].

    Chen and Goodman 1998, "An Empirical Study of Smoothing Techniques for Language Modeling", sections 2.7 and 3: three
    discounts a level, estimated from the counts of counts; each level interpolated with the next lower, the lowest with
    the uniform distribution over the vocabulary, so that every context's probabilities sum to one. Below the highest
    level an n-gram counts by its distinct predecessors, at the start of a document by its occurrences, since nothing
    stands before it there (as KenLM does, Heafield et al. 2013). No context crosses the border of a document.

    Raises:
      ValueError: an order below 1, a document that is empty or holds an id outside the vocabulary, nothing to predict.
    """
    if not orders or min(orders) < 1:
        raise ValueError(f"orders={tuple(orders)}; give orders of n-grams, each at least 1")
    train = _join(train_documents, vocab_size, "train_documents")
    evaluated = _join(eval_documents, vocab_size, "eval_documents")
    # An n-gram is found by the id of its context (the n-gram before its last token, one order lower) and that token.
    train_context = np.zeros(len(train.tokens), np.int64)
    eval_context = np.zeros(len(evaluated.tokens), np.int64)
    level = _count(train, train_context, vocab_size)
    lower = np.full(len(evaluated.tokens), 1.0 / vocab_size)
    found = {}
    for order in range(1, max(orders) + 1):
        eval_gram = _find(level, evaluated, eval_context, vocab_size)
        if order in orders:
            highest = _interpolate(level, level.occurrences, eval_gram, eval_context, lower)
            found[order] = np.log(highest[evaluated.positions > 0])
        if order == max(orders):
            break
        higher = _count(train, _shift(train, level.gram_at), vocab_size)
        lower = _interpolate(level, _predecessors(train, level, higher, order), eval_gram, eval_context, lower)
        level, eval_context = higher, _shift(evaluated, eval_gram)
    return found


def tfidf_logistic(
    train_texts: Sequence[str] | Sequence[tuple[str, str]],
    train_labels: Sequence[Any] | np.ndarray,
    eval_texts: Sequence[str] | Sequence[tuple[str, str]],
    *,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted labels [N] and probabilities [N C] (classes sorted) of logistic regression on TF-IDF of words.

    Words and pairs of neighbouring words, sublinear counts; punctuation marks are words too, since code is made of
    them. Both texts of a pair are joined into one.

    Raises:
      ValueError: texts and labels of different number, or fewer than two classes.
    """
    _check_count(train_texts, train_labels)
    if len(set(train_labels)) < 2:
        raise ValueError("the training labels are all the same; a classifier needs at least two classes")
    vectorizer, model = _fit_logistic(tuple(train_texts), tuple(np.asarray(train_labels).tolist()), seed)
    probabilities = model.predict_proba(vectorizer.transform(_joined_pairs(eval_texts)))
    return model.classes_[probabilities.argmax(axis=1)], probabilities


def tfidf_one_vs_rest(
    train_texts: Sequence[str],
    train_labels: Sequence[Sequence[int]] | np.ndarray,
    eval_texts: Sequence[str],
    *,
    seed: int = 0,
) -> np.ndarray:
    """Probabilities [N C] of a logistic regression for each class of labels [N C] of 0 and 1, as `tfidf_logistic`.

    A class that none or all of the training rows have is given to none or all.

    Raises:
      ValueError: texts and labels of different number.
    """
    features, unseen = _tfidf(train_texts, train_labels, eval_texts)
    columns = []
    for labels in np.asarray(train_labels).T:
        if labels.min() == labels.max():
            columns.append(np.full(len(eval_texts), float(labels[0])))
        else:
            columns.append(_logistic(seed).fit(features, labels).predict_proba(unseen)[:, 1])
    return np.stack(columns, axis=1)


def tfidf_ridge(train_texts: Sequence[str], train_values: Sequence[float], eval_texts: Sequence[str]) -> np.ndarray:
    """Numbers [N] of ridge regression (penalty 1) on TF-IDF of words, as `tfidf_logistic`.

    Raises:
      ValueError: texts and values of different number.
    """
    from sklearn.linear_model import Ridge

    features, unseen = _tfidf(train_texts, train_values, eval_texts)
    return Ridge(alpha=1.0).fit(features, np.asarray(train_values)).predict(unseen)


# scikit-learn's default of 1 regularises rows of length one too hard: validation accuracy 86.3 % for 87.1 % on AG News
# (9,001 training rows) and 66.2 % for 72.7 % on the embedded task.
_INVERSE_REGULARISATION = 10.0


def _logistic(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=1000, random_state=seed)


@functools.lru_cache(maxsize=1)  # one split after another is told by it; of many classes it takes minutes to fit
def _fit_logistic(texts: tuple[Any, ...], labels: tuple[Any, ...], seed: int) -> tuple[Any, Any]:
    vectorizer = _vectorizer()
    return vectorizer, _logistic(seed).fit(vectorizer.fit_transform(_joined_pairs(texts)), np.asarray(labels))


def _tfidf(
    train_texts: Sequence[str] | Sequence[tuple[str, str]],
    train_labels: Sequence[Any] | np.ndarray,
    eval_texts: Sequence[str] | Sequence[tuple[str, str]],
) -> tuple[Any, Any]:
    """Sparse features of the training texts and of the others."""
    _check_count(train_texts, train_labels)
    vectorizer = _vectorizer()
    features = vectorizer.fit_transform(_joined_pairs(train_texts))
    return features, vectorizer.transform(_joined_pairs(eval_texts))


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer  # a second to import: only when asked for

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"<mask>|\w+|[^\w\s]")


def _check_count(texts: Sequence[Any], labels: Sequence[Any] | np.ndarray) -> None:
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} training texts came with {len(labels)} labels; give one each")


@dataclass(frozen=True)
class _Stream:
    """Documents joined: tokens [T] and each token's position in its document [T]."""

    tokens: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class _Level:
    """The distinct n-grams of one order (G) in the training stream (T)."""

    keys: np.ndarray  # [G] sorted, context · vocab_size + token
    contexts: np.ndarray  # [G] id of the n-gram of one order lower that each continues
    num_contexts: int
    gram_at: np.ndarray  # [T] id of the n-gram that ends at each token, -1 where its document is too short
    first_at: np.ndarray  # [G] a place where each n-gram ends
    occurrences: np.ndarray  # [G] how often each is predicted


def _join(documents: Documents, vocab_size: int, name: str) -> _Stream:
    lengths = np.fromiter((len(document) for document in documents), np.int64, len(documents))
    if not len(lengths) or lengths.max() < 2:
        raise ValueError(f"{name} hold no token to predict; give a document of at least two tokens")
    if lengths.min() < 1:
        raise ValueError(f"{name}[{lengths.argmin()}] is empty; a document starts with <bos>")
    tokens = np.concatenate([np.asarray(document, dtype=np.int64) for document in documents])
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise ValueError(f"{name} hold token {tokens.max()}, outside vocab_size={vocab_size}; use their own tokenizer")
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return _Stream(tokens, np.arange(len(tokens)) - starts)


def _count(stream: _Stream, context: np.ndarray, vocab_size: int) -> _Level:
    """The n-grams of the stream, from the id of the context before each token (-1: its document is too short)."""
    places = np.flatnonzero(context >= 0)
    keys, first, inverse = np.unique(
        context[places] * vocab_size + stream.tokens[places], return_index=True, return_inverse=True
    )
    gram_at = np.full(len(stream.tokens), -1, np.int64)
    gram_at[places] = inverse
    # A document's first token is a context for others, and is never itself predicted.
    occurrences = np.bincount(inverse[stream.positions[places] > 0], minlength=len(keys))
    return _Level(keys, keys // vocab_size, int(context.max()) + 1, gram_at, places[first], occurrences)


def _predecessors(stream: _Stream, level: _Level, higher: _Level, order: int) -> np.ndarray:
    """How many distinct tokens stand before each n-gram, plus its occurrences at the start of a document."""
    distinct = np.bincount(level.gram_at[higher.first_at], minlength=len(level.keys))
    starting = (stream.positions == order - 1) & (stream.positions > 0)
    return distinct + np.bincount(level.gram_at[starting], minlength=len(level.keys))


def _shift(stream: _Stream, gram_at: np.ndarray) -> np.ndarray:
    """The n-gram that ends just before each token, -1 at the start of a document."""
    context = np.full_like(gram_at, -1)
    context[1:] = gram_at[:-1]
    context[stream.positions == 0] = -1
    return context


def _find(level: _Level, stream: _Stream, context: np.ndarray, vocab_size: int) -> np.ndarray:
    """The id of the n-gram that ends at each token [T], -1 where training has none such."""
    keys = np.where(context >= 0, context * vocab_size + stream.tokens, -1)
    nearest = np.minimum(np.searchsorted(level.keys, keys), len(level.keys) - 1)
    return np.where(level.keys[nearest] == keys, nearest, -1)


def _interpolate(
    level: _Level, counts: np.ndarray, gram: np.ndarray, context: np.ndarray, lower: np.ndarray
) -> np.ndarray:
    """Probability of each token [T]; that of the lower level where training never continued its context."""
    discounts = np.array(_discounts(counts))[np.minimum(counts, 3)]
    totals = np.bincount(level.contexts, counts, minlength=level.num_contexts)
    freed = np.bincount(level.contexts, discounts, minlength=level.num_contexts)
    known = (context >= 0) & (totals[context] > 0)  # index -1 reads the last entry, and is dropped by the first claim
    kept = np.where(gram >= 0, (counts - discounts)[gram], 0.0)
    mixed = (kept + freed[context] * lower) / np.where(known, totals[context], 1)
    return np.where(known, mixed, lower)


def _discounts(counts: np.ndarray) -> tuple[float, ...]:
    """What is taken from n-grams counted 0, 1, 2 and at least 3 times (Chen and Goodman 1998, equation 26)."""
    once, twice, thrice, four_times = (int(np.sum(counts == number)) for number in (1, 2, 3, 4))
    if min(once, twice, thrice, four_times) == 0:
        return _FALLBACK_DISCOUNTS
    share = once / (once + 2 * twice)
    found = (
        0.0,
        1 - 2 * share * twice / once,
        2 - 3 * share * thrice / twice,
        3 - 4 * share * four_times / thrice,
    )
    usable = all(0 <= discount <= number for number, discount in enumerate(found))
    return found if usable else _FALLBACK_DISCOUNTS


def _joined_pairs(texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[str]:
    return [text if isinstance(text, str) else "\n".join(text) for text in texts]
