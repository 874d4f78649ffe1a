"""Labelling texts: the probabilities of each label, in batches of one shape."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from research.inference.text_model import LinenModel, TextModel, batched, rows_of
from research.types import Params

# Texts, or pairs of them, to tokens int32 [N L], the tokens of each row that are real [N], where the second text begins
# [N], and how many rows were cut.
Encode = Callable[[Sequence[tuple[str, ...]]], tuple[np.ndarray, np.ndarray, np.ndarray, int]]


def classify(
    text_model: TextModel, texts: Sequence[tuple[str, ...]], *, encode: Encode, batch_size: int = 32
) -> Iterator[dict[str, Any]]:
    """For each text or pair, in order: {"input", "label", "probabilities": {label: probability}, "cut"}.

    "input" is the text, or the list of the two of a pair; "cut" is true where the row had no room for all of it.
    `encode` makes the rows that the model was trained on (`data.labelled.encode_rows`).
    """
    names = text_model.facts.label_names
    for answer, found in head_outputs(text_model, texts, jax.nn.softmax, encode=encode, batch_size=batch_size):
        probabilities = {name: float(p) for name, p in zip(names, found, strict=True)}
        label = names[int(np.argmax(found))]
        yield {"input": answer["input"], "label": label, "probabilities": probabilities, "cut": answer["cut"]}


def head_outputs(
    text_model: TextModel,
    texts: Sequence[tuple[str, ...]],
    activation: Callable[[Array], Array],
    *,
    encode: Encode,
    batch_size: int,
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """For each text or pair, in order: {"input", "cut"}, and `activation` of what the head makes of its row [C]."""
    for batch in batched(texts, batch_size):
        tokens, lengths, borders, num_cut = encode(batch)
        cut = [num_cut > 0 and encode([row])[-1] > 0 for row in batch]
        missing = batch_size - len(batch) if len(texts) > batch_size else 0
        if missing:  # the last batch: the same shape as those before, filled with its first row
            filler = np.zeros(missing, np.int64)
            tokens, lengths, borders = (np.concatenate([rows, rows[filler]]) for rows in (tokens, lengths, borders))
        found = np.asarray(_outputs(text_model.model, activation, text_model.params, tokens, lengths, borders))
        for row, text in enumerate(batch):
            yield {"input": text[0] if len(text) == 1 else list(text), "cut": cut[row]}, found[row]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _outputs(
    model: LinenModel,
    activation: Callable[[Array], Array],
    params: Params,
    tokens: Int[Array, "B L"],
    lengths: Int[Array, " B"],
    borders: Int[Array, " B"],
) -> Float[Array, "B C"]:
    where = rows_of(tokens, lengths, borders)
    real = where["segment_ids"] > 0
    hidden, _ = model.apply({"params": params}, tokens, **where)
    logits = model.apply({"params": params}, hidden, real, train=False, method="classify")
    return activation(logits)
