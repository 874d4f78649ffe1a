"""Texts as vectors: what an embedding head gives, or the mean of a text's vectors where there is none."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from research.inference.classify import Encode
from research.inference.text_model import LinenModel, TextModel, batched, bucket, rows_of
from research.types import Params


def embed(
    text_model: TextModel, texts: Sequence[tuple[str, ...]], *, encode: Encode, head: bool, batch_size: int = 32
) -> Iterator[dict[str, Any]]:
    """For each text, in order: {"input", "embedding": D floats, "cut"}.

    `head` says that the model has an embedding head; `encode` makes its rows (`data.labelled.encode_rows`); "cut" is
    true where the row had no room for all of the text. Rows are as long as the longest text of the batch needs.
    """
    for batch in batched(texts, batch_size):
        tokens, lengths, borders, num_cut = encode(batch)
        cut = [num_cut > 0 and encode([row])[-1] > 0 for row in batch]
        rows, length = bucket(len(batch), least=1), min(bucket(int(lengths.max())), tokens.shape[1])
        filler = np.zeros(rows - len(batch), np.int64)  # shapes are powers of two: few programs are compiled
        filled = (np.concatenate([part, part[filler]]) for part in (tokens[:, :length], lengths, borders))
        vectors = np.asarray(_vectors(text_model.model, head, text_model.params, *filled))
        for row, text in enumerate(batch):
            given = text[0] if len(text) == 1 else list(text)
            yield {"input": given, "embedding": vectors[row].tolist(), "cut": cut[row]}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _vectors(
    model: LinenModel,
    head: bool,
    params: Params,
    tokens: Int[Array, "B L"],
    lengths: Int[Array, " B"],
    borders: Int[Array, " B"],
) -> Float[Array, "B D"]:
    where = rows_of(tokens, lengths, borders)
    real = where["segment_ids"] > 0
    hidden, _ = model.apply({"params": params}, tokens, **where)
    if head:
        return model.apply({"params": params}, hidden, real, method="embed")
    total = jnp.sum(jnp.where(real[:, :, None], hidden.astype(jnp.float32), 0.0), axis=1)
    return total / jnp.maximum(lengths, 1)[:, None]
