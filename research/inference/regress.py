"""Telling a number of each text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from research.inference.classify import Encode, head_outputs
from research.inference.text_model import TextModel


def regress(
    text_model: TextModel,
    texts: Sequence[tuple[str, ...]],
    *,
    mean: float,
    scale: float,
    encode: Encode,
    batch_size: int = 32,
) -> Iterator[dict[str, Any]]:
    """For each text or pair, in order: {"input", "value": mean + scale · what the head says, "cut"}; see `classify`."""
    for answer, found in head_outputs(text_model, texts, _as_it_is, encode=encode, batch_size=batch_size):
        yield {"input": answer["input"], "value": mean + scale * float(found[0]), "cut": answer["cut"]}


def _as_it_is(logits: Any) -> Any:
    return logits
