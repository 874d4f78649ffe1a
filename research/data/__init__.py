"""Data: bytes on a disk into batches of numpy arrays. Nothing here calls jax or touches a device."""

from __future__ import annotations

from collections.abc import Callable

from research.batch import Dataset
from research.data.audio import audio, audio_classification
from research.data.image_text import image_text
from research.data.images import image_classification, images
from research.data.labelled import text_classification
from research.data.multi_label import text_multi_label
from research.data.pairs import text_pairs
from research.data.prompt_answer import prompt_answer
from research.data.question_answering import question_answering
from research.data.regression import text_regression
from research.data.tagging import tagging
from research.data.text import text

DATA: dict[str, Callable[..., Dataset]] = {
    "text": text,
    "text_classification": text_classification,
    "text_multi_label": text_multi_label,
    "text_regression": text_regression,
    "tagging": tagging,
    "text_pairs": text_pairs,
    "prompt_answer": prompt_answer,
    "question_answering": question_answering,
    "images": images,
    "image_classification": image_classification,
    "image_text": image_text,
    "audio": audio,
    "audio_classification": audio_classification,
}
