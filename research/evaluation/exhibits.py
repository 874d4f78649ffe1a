"""What a report shows of vectors: maps coloured by what is known of the rows, and what lies nearest to some of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from research.batch import Split
from research.evaluation.embedding_map import METHODS, embedding_map, map_purity
from research.evaluation.slices import MOST_NUMBERS, by_quartile, is_number

NUM_QUERIES, NUM_FOUND = 8, 8  # of a gallery
MOST_COLOURS = 10  # groups of a map that have a colour of their own
MOST_SIDE = 48  # pixels of a picture in the page; larger ones are made smaller
_COORDINATES = 1000  # of a map, from 0
_PREFIX = {"tsne": "map_purity_", "pca": "pca_map_purity_"}

Item = dict[str, Any]  # of a gallery: "image" (a data address), "text", "similarity", "right"


def known_columns(part: Split, label_names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """What is known of each row: its label's name, where it has one class, and the fields that were asked for."""
    labels = np.asarray(part.labels)
    found: dict[str, Sequence[Any]] = {}
    if labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels) and label_names:
        found["label"] = [label_names[label] for label in labels]
    return found | dict(part.fields)


def group_names(column: Sequence[Any]) -> np.ndarray:
    """The group of each row, as text [N]: its value, or of more than ten different numbers their quartile."""
    if len(set(column)) > MOST_NUMBERS and all(map(is_number, column)):
        found = np.empty(len(column), dtype=object)
        for name, rows in by_quartile(np.array(column)).items():
            found[rows] = name
        return found.astype(str)
    return np.array([str(value) for value in column])


def make_map(vectors: np.ndarray, columns: Mapping[str, Sequence[Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures of the maps of vectors [N D], and what draws them.

    For each column `map_purity_NAME` (t-SNE) and `pca_map_purity_NAME`, as `map_purity` says, and
    `chance_map_purity_NAME`, what points in random places would have. Vectors without a map have a sentence instead.
    """
    figures: dict[str, float] = {}
    exhibit: dict[str, Any] = {"points": {}, "colours": {}}
    drawn = np.zeros(0, np.int64)
    try:
        for method in METHODS:
            drawn, points = embedding_map(vectors, method=method)
            spread = np.maximum(np.ptp(points, axis=0), 1e-12)
            placed = np.rint(_COORDINATES * (points - points.min(axis=0)) / spread).astype(int)
            exhibit["points"][method] = placed.tolist()
            for name, column in columns.items():
                groups = group_names(column)[drawn]
                figures[f"{_PREFIX[method]}{name}"] = map_purity(points, groups)["purity"]
    except ValueError as error:
        return {}, {"note": f"There is no map: {error}."}
    exhibit["rows"] = len(drawn)
    for name, column in columns.items():
        groups = group_names(column)[drawn]
        figures[f"chance_map_purity_{name}"] = chance_purity(groups)
        exhibit["colours"][name] = _colours(groups)
    return figures, exhibit


def chance_purity(groups: np.ndarray) -> float:
    """The chance that two different points are of one group: what `map_purity` is where they lie at random."""
    counts = np.unique(groups, return_counts=True)[1].astype(np.float64)
    size = counts.sum()
    return float((counts * (counts - 1.0)).sum() / (size * (size - 1.0)))


def spread_rows(count: int, *, seed: int = 0) -> np.ndarray:
    """The rows that ask in a gallery: `NUM_QUERIES` at most, a seeded choice in their order."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:NUM_QUERIES])


def nearest_rows(queries: np.ndarray, vectors: np.ndarray, *, most: int = NUM_FOUND) -> tuple[np.ndarray, np.ndarray]:
    """Of the rows of `vectors` [N D] the `most` of the greatest cosine to each of `queries` [Q D], the nearest first:
    places int [Q most] and cosines."""
    asked = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
    lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    similarities = (asked @ vectors.T) / lengths
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :most]
    return order, np.take_along_axis(similarities, order, axis=1)


def gallery(
    title: str,
    told: str,
    asked: Sequence[Item],
    among: Mapping[int, Item],
    found: tuple[np.ndarray, np.ndarray],
    right: np.ndarray | None,
) -> dict[str, Any]:
    """A gallery: each item that asks, and the items at the places that were `found` for it, with their cosines; `right`
    bool [Q K] marks these where there is a right and a wrong."""
    rows = []
    for row, item in enumerate(asked):
        answers = []
        for column, place in enumerate(found[0][row]):
            answer = {**among[int(place)], "similarity": round(float(found[1][row, column]), 3)}
            answers.append(answer if right is None else {**answer, "right": bool(right[row, column])})
        rows.append({"query": dict(item), "found": answers})
    return {"title": title, "told": told, "rows": rows}


def picture(image: np.ndarray) -> str:
    """A picture uint8 [Y X C] as the address of a PNG that is held in the address itself."""
    drawn = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    drawn.thumbnail((MOST_SIDE, MOST_SIDE))
    stream = io.BytesIO()
    drawn.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _colours(groups: np.ndarray) -> dict[str, Any]:
    """The most frequent groups by name, and for each point which of these it is of, -1: of none."""
    names, counts = np.unique(groups, return_counts=True)
    kept = names[np.argsort(-counts, kind="stable")][:MOST_COLOURS].tolist()
    places = {name: place for place, name in enumerate(kept)}
    return {"names": kept, "groups": [places.get(name, -1) for name in groups.tolist()]}
