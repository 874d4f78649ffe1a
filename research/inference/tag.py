"""Tagging texts: the likeliest tag of each word, and the spans that the tags mark."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from research.inference.text_model import LinenModel, TextModel, batched, bucket, rows_of
from research.types import Params

# Sentences of words to tokens int32 [N L], their lengths [N], and where each word's first token is (-1: nowhere).
EncodeWords = Callable[[Sequence[Sequence[str]]], tuple[np.ndarray, np.ndarray, list[list[int]]]]
# The spans (type, first word, last word) of a sentence's tags.
Spans = Callable[[Sequence[str]], list[tuple[str, int, int]]]


def tag(
    text_model: TextModel,
    texts: Sequence[str],
    *,
    encode: EncodeWords,
    spans: Spans | None,
    batch_size: int = 32,
) -> Iterator[dict[str, Any]]:
    """For each text, in order: {"input", "tags": [{"word", "tag"}], "spans": [{"text", "type"}]}.

    Words are what spaces separate. The tag of a word that the row had no room for is None. "spans" is there where
    `spans` is given. `encode` makes the rows that the model was trained on (`data.tagging.encode_words`).
    """
    names = text_model.facts.label_names
    for batch in batched(texts, batch_size):
        sentences = [text.split() for text in batch]
        tokens, lengths, places = encode(sentences)
        rows, length = bucket(len(batch), least=1), min(bucket(int(lengths.max())), tokens.shape[1])
        filler = np.zeros(rows - len(batch), np.int64)  # shapes are powers of two: few programs are compiled
        filled = (np.concatenate([part, part[filler]]) for part in (tokens[:, :length], lengths))
        found = np.asarray(_tags(text_model.model, text_model.params, *filled))
        for row, words in enumerate(sentences):
            tags = [names[int(found[row, column])] if column >= 0 else None for column in places[row]]
            answer = {
                "input": batch[row],
                "tags": [{"word": word, "tag": name} for word, name in zip(words, tags, strict=True)],
            }
            if spans is not None:
                marked = spans([name or "O" for name in tags])
                answer["spans"] = [
                    {"text": " ".join(words[first : last + 1]), "type": kind} for kind, first, last in marked
                ]
            yield answer


@functools.partial(jax.jit, static_argnums=0)
def _tags(model: LinenModel, params: Params, tokens: Int[Array, "B L"], lengths: Int[Array, " B"]) -> Int[Array, "B L"]:
    hidden, _ = model.apply({"params": params}, tokens, **rows_of(tokens, lengths))
    return jnp.argmax(model.apply({"params": params}, hidden, train=False, method="tag"), axis=-1)
