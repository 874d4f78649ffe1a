"""Pictures and recordings as labels or as vectors, and the nearest ones of a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

Columns = Mapping[str, np.ndarray]  # "image" uint8 [N Y X C]; or "audio" int16 [N T] and "audio_length" int32 [N]
Read = Callable[[Columns], jax.Array]  # some of these to a row each


def rows_of_media(columns: Columns, read: Read, *, batch_size: int = 32) -> np.ndarray:
    """What `read` makes of each picture or recording, in order; batches have one shape, the last is filled up."""
    found, count = [], len(next(iter(columns.values())))
    for first in range(0, count, batch_size):
        size = min(batch_size, count - first)
        places = np.arange(first, first + (batch_size if first else size))
        places = np.where(places < count, places, first)
        found.append(np.asarray(read({key: values[places] for key, values in columns.items()}))[:size])
    return np.concatenate(found)


def classify_media(
    names: Sequence[str], columns: Columns, read: Read, *, label_names: Sequence[str], batch_size: int = 32
) -> Iterator[dict[str, Any]]:
    """For each, in order: {"input", "label", "probabilities": {label: probability}}; `read` gives these."""
    for name, found in zip(names, rows_of_media(columns, read, batch_size=batch_size), strict=True):
        probabilities = {label: float(p) for label, p in zip(label_names, found, strict=True)}
        yield {"input": name, "label": label_names[int(np.argmax(found))], "probabilities": probabilities}


def nearest(
    queries: np.ndarray, collection: np.ndarray, names: Sequence[str], *, top: int
) -> Iterator[list[dict[str, Any]]]:
    """For each query [D] the `top` rows of the collection [N D] with the greatest cosine similarity, the nearest first:
    [{"file", "similarity"}]."""
    among = _unit(collection)
    for query in _unit(queries):
        similarities = among @ query
        order = np.argsort(-similarities, kind="stable")[:top]
        yield [{"file": names[index], "similarity": float(similarities[index])} for index in order]


def _unit(vectors: np.ndarray) -> np.ndarray:
    wide = np.asarray(vectors, np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
