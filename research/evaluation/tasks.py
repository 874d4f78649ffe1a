"""What is measured for each objective: the scores of its outputs over a split, and the floors beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research.batch import Dataset
from research.evaluation.baselines import kneser_ney, tfidf_logistic, unigram_nats
from research.evaluation.calibration import abstention, expected_calibration_error, mistakes, reliability
from research.evaluation.classification import classification_metrics
from research.evaluation.question_answering import (
    Found,
    answer_metrics,
    choose_threshold,
    f1,
    find_answers,
    surest_mistakes,
)
from research.evaluation.sliding_window import sliding_window
from research.evaluation.tagging import MISSING, most_frequent_tag, tagging_metrics

Outputs = Mapping[str, np.ndarray]  # of a whole split, in its order

_ORDERS = (2, 3, 4, 5)
_FLOOR_TOKENS = 30_000_000  # a longer training split is cut for the n-gram floors, and the cut is reported


@dataclass(frozen=True)
class Scored:
    """Figures of a split by name, and for each row of its `hashes` the values whose mean is the figure `headline`."""

    figures: dict[str, Any]
    headline: str
    values: Sequence[np.ndarray]


@dataclass(frozen=True)
class Task:
    """`floors` gives figures named NAME_MEASURE (or NAME, of the loss); `score` is None where the loss says it all.

    `tune` makes of the outputs over the validation split what `score` finds beside the outputs of every split.
    """

    floors: Callable[[Dataset, str], dict[str, float]]
    score: Callable[[Outputs, Dataset, str], Scored] | None = None
    tune: Callable[[Outputs, Dataset], Outputs] | None = None


def score_classes(outputs: Outputs, dataset: Dataset, split: str) -> Scored:
    """Of `probabilities` [N C]."""
    names, part = dataset.spec.label_names, dataset.splits[split]
    probabilities, labels = outputs["probabilities"], np.asarray(part.labels)
    found = classification_metrics(labels, probabilities, names)
    found["reliability"] = reliability(labels, probabilities)
    found["ece"] = expected_calibration_error(found["reliability"])
    found["abstention"] = abstention(labels, probabilities)
    found["mistakes"] = mistakes(part.texts, labels, probabilities, names)
    return Scored(found, "accuracy", list((probabilities.argmax(axis=1) == labels)[:, None]))


def class_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """TF-IDF with logistic regression."""
    train, evaluated = dataset.splits["train"], dataset.splits[split]
    _, probabilities = tfidf_logistic(train.texts, train.labels, evaluated.texts)
    found = classification_metrics(evaluated.labels, probabilities, dataset.spec.label_names)
    return {f"tfidf_{name}": found[name] for name in ("accuracy", "f1")}


def score_tags(outputs: Outputs, dataset: Dataset, split: str) -> Scored:
    """Of `tags` [N L], the likeliest at each position."""
    names, part, tags = dataset.spec.label_names, dataset.splits[split], outputs["tags"]
    predicted = [
        [names[tags[row, column]] if column >= 0 else MISSING for column in columns]
        for row, columns in enumerate(part.places)
    ]
    true = [[names[tag] for tag in sentence] for sentence in part.tags]
    right = [np.array(first) == np.array(second) for first, second in zip(true, predicted, strict=True)]
    return Scored(tagging_metrics(true, predicted, names), "accuracy", right)


def tag_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """The most frequent tag of each word."""
    train, evaluated, names = dataset.splits["train"], dataset.splits[split], dataset.spec.label_names
    true, known = ([[names[tag] for tag in tags] for tags in part.tags] for part in (evaluated, train))
    found = tagging_metrics(true, most_frequent_tag(train.words, known, evaluated.words), names)
    return {f"most_frequent_tag_{name}": found[name] for name in ("accuracy", "f1")}


def score_answers(outputs: Outputs, dataset: Dataset, split: str) -> Scored:
    """Of the `start` and `end` logits [N L]; nothing is said past the `no_answer_threshold`, where there is one."""
    questions = dataset.splits[split].questions
    found = _found_answers(outputs, dataset, split)
    threshold = float(outputs.get("no_answer_threshold", math.inf))
    said = ["" if each.is_missing(threshold) else each.text for each in found]
    figures = answer_metrics(said, questions)
    if math.isfinite(threshold):
        figures["no_answer_threshold"] = threshold
    figures["mistakes"] = surest_mistakes(found, questions, threshold)
    values = [np.array([f1(text, question.answers)]) for text, question in zip(said, questions, strict=True)]
    return Scored(figures, "f1", values)


def tune_answers(outputs: Outputs, dataset: Dataset) -> Outputs:
    """The `no_answer_threshold`, where the validation split has questions without an answer."""
    questions = dataset.splits["val"].questions
    if all(question.answers for question in questions):
        return {}
    return {"no_answer_threshold": np.array(choose_threshold(_found_answers(outputs, dataset, "val"), questions))}


def answer_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """The sliding window; and saying nothing, where that is right for some questions."""
    train, questions = dataset.splits["train"], dataset.splits[split].questions
    contexts = list(dict.fromkeys(question.context for question in train.questions))
    said = {"sliding_window": sliding_window(contexts, [(each.text, each.context) for each in questions])}
    if not all(question.answers for question in questions):
        said["silence"] = [""] * len(questions)
    found = {name: answer_metrics(texts, questions) for name, texts in said.items()}
    return {f"{name}_{measure}": figures[measure] for name, figures in found.items() for measure in ("em", "f1")}


def _found_answers(outputs: Outputs, dataset: Dataset, split: str) -> list[Found]:
    part = dataset.splits[split]
    contexts = [question.context for question in part.questions]
    return find_answers(outputs["start"], outputs["end"], part.windows, contexts, max_answer=part.max_answer)


def unigram_floor(dataset: Dataset, split: str) -> dict[str, float]:
    """Nats a token by frequency alone."""
    documents = _first_tokens(dataset.splits["train"].documents, _FLOOR_TOKENS)
    return {"unigram": unigram_nats(documents, list(dataset.splits[split].documents), dataset.spec.vocab_size)}


def ngram_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """Nats a token by frequency, and by Kneser-Ney n-grams; also as bits a byte."""
    evaluated, vocab_size = dataset.splits[split], dataset.spec.vocab_size
    documents, held_out = _first_tokens(dataset.splits["train"].documents, _FLOOR_TOKENS), list(evaluated.documents)
    result = unigram_floor(dataset, split)
    predicted = sum(len(document) - 1 for document in held_out)
    for order, nats in kneser_ney(documents, held_out, orders=_ORDERS, vocab_size=vocab_size).items():
        result[f"kneser_ney_{order}"] = nats
        if evaluated.num_bytes:
            result[f"kneser_ney_{order}_bits_per_byte"] = bits(nats * predicted, evaluated.num_bytes)
    return result


def bits(nats: float, num_bytes: int) -> float:
    return nats / math.log(2.0) / num_bytes


def _first_tokens(documents: Any, limit: int) -> list[np.ndarray]:
    taken, total = [], 0
    for document in documents:
        taken.append(np.asarray(document))
        total += len(document)
        if total >= limit:
            break
    return taken


TASKS = {
    "masked_lm": Task(unigram_floor),
    "causal_lm": Task(ngram_floors),
    "classification": Task(class_floors, score_classes),
    "tagging": Task(tag_floors, score_tags),
    "question_answering": Task(answer_floors, score_answers, tune_answers),
}
