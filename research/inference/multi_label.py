"""Labelling texts that may have several labels, one or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax

from research.inference.classify import Encode, head_outputs
from research.inference.text_model import TextModel

THRESHOLD = 0.5


def label(
    text_model: TextModel, texts: Sequence[tuple[str, ...]], *, encode: Encode, batch_size: int = 32
) -> Iterator[dict[str, Any]]:
    """For each text or pair, in order: {"input", "labels", "probabilities": {label: probability}, "cut"}.

    "labels" are those with a probability above a half, in the order of the classes; the rest as in `classify`.
    """
    names = text_model.facts.label_names
    for answer, scores in head_outputs(text_model, texts, jax.nn.sigmoid, encode=encode, batch_size=batch_size):
        probabilities = {name: float(score) for name, score in zip(names, scores, strict=True)}
        said = [name for name, score in probabilities.items() if score > THRESHOLD]
        yield {"input": answer["input"], "labels": said, "probabilities": probabilities, "cut": answer["cut"]}
