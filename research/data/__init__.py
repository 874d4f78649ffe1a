"""Data: bytes on a disk into batches of numpy arrays. Nothing here calls jax or touches a device."""

from __future__ import annotations

from collections.abc import Callable

from research.batch import Dataset
from research.data.labelled import text_classification
from research.data.question_answering import question_answering
from research.data.tagging import tagging
from research.data.text import text

DATA: dict[str, Callable[..., Dataset]] = {
    "text": text,
    "text_classification": text_classification,
    "tagging": tagging,
    "question_answering": question_answering,
}
