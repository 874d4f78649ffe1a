"""A closer look at vectors, once, over the split that a run is judged by: probes, maps, and what lies nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from research.batch import Dataset, Split
from research.evaluation.exhibits import Item, gallery, known_columns, make_map, nearest_rows, picture, spread_rows
from research.evaluation.image_tasks import images_at
from research.evaluation.image_text_tasks import distinct
from research.evaluation.label_probes import label_probes, verification
from research.evaluation.retrieval import candidates
from research.evaluation.vector_tasks import class_labels
from research.evaluation.zero_shot import zero_shot_accuracy

Outputs = Mapping[str, np.ndarray]

_MOST_LETTERS = 160  # of a text that is shown
_CHANCE = "chance_"


@dataclass(frozen=True)
class Look:
    """Figures of the split, those of chance or of another floor (named NAME_MEASURE), and what the report shows: `map`
    as `make_map` and `galleries` as `gallery` make them."""

    figures: dict[str, Any]
    floors: dict[str, float]
    exhibits: dict[str, Any]


def look_at_vectors(outputs: Outputs, dataset: Dataset, split: str) -> Look:
    """Of `vectors` [N D], `train_vectors` and `val_vectors`: probes and verification by what is known of the rows, a
    map, and for a few rows the nearest training rows."""
    part, train, vectors = dataset.splits[split], dataset.splits["train"], outputs["vectors"]
    names = dataset.spec.label_names
    galleries = []
    if len(part.texts) == len(vectors) and len(train.texts) >= len(outputs["train_vectors"]):
        asked = spread_rows(len(vectors))
        found = nearest_rows(vectors[asked], outputs["train_vectors"])
        labels, known = class_labels(part), class_labels(train)
        right = labels[asked, None] == known[found[0]] if len(labels) and len(known) else None
        what = "pictures" if dataset.spec.image_size else "recordings" if dataset.spec.sample_rate else "texts"
        told = f"On the left {what} of the {split} split, beside each the nearest {what} of the training split"
        told += "; those of its own class are framed." if right is not None else "."
        among = _items(train, names, np.unique(found[0]))
        items = list(_items(part, names, asked).values())
        galleries.append(gallery("Nearest neighbours", told, items, among, found, right))
    columns = known_columns(part, names)
    look = _look(vectors, columns, galleries)
    probed = label_probes(outputs, dataset, split) | verification(vectors, columns)
    return replace(look, figures=probed | look.figures)


def look_at_pairs(outputs: Outputs, dataset: Dataset, split: str) -> Look:
    """Of `first` and `second` [N D]: a map of both sides, and the nearest second texts of a few first ones."""
    part, first, second = dataset.splits[split], outputs["first"], outputs["second"]
    places, own = candidates(part.seconds)
    asked = spread_rows(len(first))
    near, similarities = nearest_rows(first[asked], second[places], most=5)
    right = near == own[asked, None]
    told = f"On the left texts of the {split} split, beside each its nearest counterparts; its own is framed."
    among = {int(place): _text(part.seconds[int(places[place])]) for place in np.unique(near)}
    items = [_text(part.texts[int(row)]) for row in asked]
    found = gallery("Retrieval", told, items, among, (near, similarities), right)
    sides = {"side": ["first"] * len(first) + ["second"] * len(places)}
    look = _look(np.concatenate([first, second[places]]), sides, [found])
    return Look({}, {}, look.exhibits)  # that the sides lie apart or not is no figure to judge by


def look_at_image_text(outputs: Outputs, dataset: Dataset, split: str) -> Look:
    """Of `image` and `text`, unit vectors [N E]: a map of the pictures, the best texts of a few and the reverse.

    With the vectors of `prompts` [C T E], T descriptions of each of C classes, and `classes` int [N] the pictures are
    classified by these (`zero_shot_accuracy`), beside chance and the commonest class.
    """
    part = dataset.splits[split]
    pictures, names, groups = distinct(part, len(outputs["image"]))
    sides = {
        "image": (pictures, outputs["image"][pictures], lambda rows: _pictures(part, rows)),
        "text": (names, outputs["text"][names], lambda rows: {int(row): _text(part.texts[int(row)]) for row in rows}),
    }
    galleries = []
    for title, one, other, most in (
        ("Texts for pictures", "image", "text", 5),
        ("Pictures for texts", "text", "image", 8),
    ):
        (rows, vectors, items), (places, others, items_of_others) = sides[one], sides[other]
        chosen = spread_rows(len(rows))
        near, similarities = nearest_rows(vectors[chosen], others, most=most)
        found, asked = places[near], rows[chosen]  # rows of the split
        right = groups[found] == groups[asked][:, None]
        told = f"Of the {split} split; what belongs together is framed."
        among, given = items_of_others(np.unique(found)), list(items(asked).values())
        galleries.append(gallery(title, told, given, among, (found, similarities), right))
    columns = known_columns(part, dataset.spec.label_names)
    columns = {name: [column[int(row)] for row in pictures] for name, column in columns.items()}
    look = _look(outputs["image"][pictures], columns, galleries)
    if "prompts" not in outputs or len(outputs["prompts"]) < 2:
        return look
    classes = outputs["classes"][pictures]
    told = zero_shot_accuracy(outputs["image"][pictures], classes, outputs["prompts"])
    shares = {"chance": 1.0 / len(outputs["prompts"]), "commonest": np.bincount(classes).max() / len(classes)}
    return replace(
        look,
        figures={f"zero_shot_{name}": value for name, value in told.items()} | look.figures,
        floors={f"{name}_zero_shot_accuracy": float(share) for name, share in shares.items()} | look.floors,
    )


def _look(vectors: np.ndarray, columns: Mapping[str, Sequence[Any]], galleries: list[dict[str, Any]]) -> Look:
    figures, drawn = make_map(vectors, columns)
    floors = {name: value for name, value in figures.items() if name.startswith(_CHANCE)}
    figures = {name: value for name, value in figures.items() if name not in floors}
    return Look(figures, floors, {"map": drawn, "galleries": galleries})


def _items(part: Split, label_names: Sequence[str], rows: np.ndarray) -> dict[int, Item]:
    """Of each row its picture, or its text (a recording's name), and its class where it has one."""
    labels = class_labels(part)
    named = {int(row): label_names[int(labels[row])] if len(labels) else "" for row in rows}
    if "image" in part.examples[0]:
        return {row: {**item, "text": named[row]} for row, item in _pictures(part, rows).items()}
    return {row: _text(" · ".join(filter(None, (named[row], part.texts[row])))) for row in named}


def _pictures(part: Split, rows: np.ndarray) -> dict[int, Item]:
    images = images_at(part, np.asarray(rows))
    return {int(row): {"image": picture(image)} for row, image in zip(rows, images, strict=True)}


def _text(text: str) -> Item:
    return {"text": text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"}
