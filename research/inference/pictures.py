"""Pictures as labels or as vectors, and the nearest pictures of a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

Read = Callable[[np.ndarray], jax.Array]  # uint8 [B Y X C] to a row each


def rows_of_pictures(images: np.ndarray, read: Read, *, batch_size: int = 32) -> np.ndarray:
    """What `read` makes of each of the images [N Y X C], in order; batches have one shape, the last is filled up."""
    found = []
    for first in range(0, len(images), batch_size):
        batch = images[first : first + batch_size]
        size = len(batch)
        if size < batch_size and first:
            batch = np.concatenate([batch, np.repeat(batch[:1], batch_size - size, axis=0)])
        found.append(np.asarray(read(batch))[:size])
    return np.concatenate(found)


def classify_pictures(
    names: Sequence[str], images: np.ndarray, read: Read, *, label_names: Sequence[str], batch_size: int = 32
) -> Iterator[dict[str, Any]]:
    """For each picture, in order: {"input", "label", "probabilities": {label: probability}}; `read` gives these."""
    for name, found in zip(names, rows_of_pictures(images, read, batch_size=batch_size), strict=True):
        probabilities = {label: float(p) for label, p in zip(label_names, found, strict=True)}
        yield {"input": name, "label": label_names[int(np.argmax(found))], "probabilities": probabilities}


def embed_pictures(
    names: Sequence[str], images: np.ndarray, read: Read, *, batch_size: int = 32
) -> Iterator[dict[str, Any]]:
    """For each picture, in order: {"input", "embedding": D floats}; `read` gives the vectors."""
    for name, vector in zip(names, rows_of_pictures(images, read, batch_size=batch_size), strict=True):
        yield {"input": name, "embedding": vector.tolist()}


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
