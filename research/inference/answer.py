"""Answering questions about a text: the likeliest span of it, or nothing."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from research.inference.text_model import LinenModel, TextModel, batched, bucket, rows_of
from research.types import Params


class Rows(Protocol):
    """The rows of some questions: the windows of their contexts."""

    @property
    def windows(self) -> Sequence[Any]: ...

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]: ...


class Found(Protocol):
    """The likeliest answer to one question; the `probability` of its place, and `silence`, that of "no answer"."""

    @property
    def text(self) -> str: ...
    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def probability(self) -> float: ...
    @property
    def silence(self) -> float: ...

    def is_missing(self, threshold: float) -> bool: ...


Encode = Callable[[Sequence[tuple[str, str]]], Rows]  # questions with their contexts
# The start and end logits [N L] of all rows, their windows, and the contexts.
Find = Callable[[np.ndarray, np.ndarray, Sequence[Any], Sequence[str]], Sequence[Found]]


def answer(
    text_model: TextModel,
    asked: Sequence[tuple[str, ...]],
    *,
    encode: Encode,
    find: Find,
    threshold: float = math.inf,
    batch_size: int = 32,
) -> Iterator[dict[str, Any]]:
    """For each (question, context), in order: {"input", "answer", "probability", "start", "end"}.

    The answer is the characters start … end - 1 of the context, "" (at 0) where "no answer" is ahead by more than
    `threshold`. "probability" is that of its first token times that of its last in its window, or that of "no answer"
    there. `encode` makes the rows that the model was trained on (`data.question_answering.encode_questions`), `find`
    chooses (`evaluation.question_answering.find_answers`). `batch_size` counts windows.
    """
    for batch in batched(asked, batch_size):
        pairs = [(question, context) for question, context in batch]
        rows = encode(pairs)
        parts = [_logits_of(text_model, rows, part) for part in batched(range(len(rows.windows)), batch_size)]
        start, end = np.concatenate(parts, axis=1)
        for pair, found in zip(pairs, find(start, end, rows.windows, [context for _, context in pairs]), strict=True):
            missing = found.is_missing(threshold)
            yield {
                "input": list(pair),
                "answer": "" if missing else found.text,
                "probability": found.silence if missing else found.probability,
                "start": 0 if missing else found.first,
                "end": 0 if missing else found.last,
            }


def _logits_of(text_model: TextModel, rows: Rows, part: Sequence[int]) -> np.ndarray:
    """Start and end logits [2 N L] of the rows `part`."""
    number = bucket(len(part), least=1)  # a power of two: few programs are compiled
    taken = rows.rows(np.array([*part, *[part[0]] * (number - len(part))]))
    lengths = taken["segment_ids"].sum(axis=1)
    borders = lengths - taken["token_types"].sum(axis=1)
    found = _logits(text_model.model, text_model.params, taken["tokens"], lengths, borders)
    return np.moveaxis(np.asarray(found)[: len(part)], -1, 0)


@functools.partial(jax.jit, static_argnums=0)
def _logits(
    model: LinenModel, params: Params, tokens: Int[Array, "B L"], lengths: Int[Array, " B"], borders: Int[Array, " B"]
) -> Float[Array, "B L 2"]:
    hidden, _ = model.apply({"params": params}, tokens, **rows_of(tokens, lengths, borders))
    return model.apply({"params": params}, hidden, train=False, method="spans")
