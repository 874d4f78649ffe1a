"""What is measured for each objective: the scores of its outputs over a split, and the floors beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research.batch import Dataset
from research.evaluation.answers import commonest_answer, read_answers
from research.evaluation.audio_tasks import audio_floors
from research.evaluation.baselines import (
    kneser_ney,
    tfidf_logistic,
    tfidf_one_vs_rest,
    tfidf_ridge,
    unigram_nats,
)
from research.evaluation.calibration import abstention, expected_calibration_error, mistakes, reliability
from research.evaluation.classification import classification_metrics
from research.evaluation.closer_look import Look, look_at_image_text, look_at_pairs, look_at_vectors
from research.evaluation.image_tasks import image_floors
from research.evaluation.image_text_tasks import name_floors, retrieval_figures, watch_retrieval
from research.evaluation.multi_label import commonest_set, multi_label_metrics, rows_right
from research.evaluation.question_answering import (
    Found,
    answer_metrics,
    choose_threshold,
    f1,
    find_answers,
    surest_mistakes,
)
from research.evaluation.regression import regression_metrics
from research.evaluation.retrieval import retrieval_metrics, tfidf_ranks, vector_ranks
from research.evaluation.sliding_window import sliding_window
from research.evaluation.tagging import MISSING, has_spans, most_frequent_tag, tagging_metrics
from research.evaluation.vector_tasks import class_labels, commonest_class, vector_figures, watch_vectors

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

    `measure` is the figure to compare runs by, if the labels call for no other (`measure_of`); more of it is better.
    `floor_on` gives the name of a floor and its headline figure on each of several splits, from one training.
    `watch` makes figures under `val/…`, and `collapse`, a sentence or nothing, of the outputs by split, to be seen
    while the model is trained: over the first rows of the validation split, and of the training split with
    `reads_train`.
    `tune` makes of the outputs over the validation split what `score` finds beside the outputs of every split. With
    `reads_train` it finds those over the training split too, under `train_…`.
    `look` is what takes longer, of the outputs over the split that a run is judged by, with what its report shows.
    """

    floors: Callable[[Dataset, str], dict[str, float]]
    score: Callable[[Outputs, Dataset, str], Scored] | None = None
    measure: str = "accuracy"
    floor_on: Callable[[Dataset, Sequence[str]], tuple[str, list[float]]] | None = None
    tune: Callable[[Outputs, Dataset], Outputs] | None = None
    reads_train: bool = False
    watch: Callable[[Mapping[str, Outputs], Dataset], dict[str, Any]] | None = None
    look: Callable[[Outputs, Dataset, str], Look] | None = None


def measure_of(objective: str, label_names: Sequence[str]) -> str:
    """The figure to compare runs of an objective by: of tags that mark spans it is F1, as most words are in none."""
    return "f1" if objective == "tagging" and has_spans(label_names) else TASKS[objective].measure


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
    """TF-IDF with logistic regression; of images and sounds `vector_floors`, and always the commonest class."""
    if dataset.spec.image_size or dataset.spec.sample_rate:
        return vector_floors(dataset, split) | {"commonest_accuracy": commonest_class(dataset, split)}
    train, evaluated = dataset.splits["train"], dataset.splits[split]
    _, probabilities = tfidf_logistic(train.texts, train.labels, evaluated.texts)
    found = classification_metrics(evaluated.labels, probabilities, dataset.spec.label_names)
    return {f"tfidf_{name}": found[name] for name in ("accuracy", "f1")}


def class_floor_on(dataset: Dataset, splits: Sequence[str]) -> tuple[str, list[float]]:
    """TF-IDF with logistic regression, trained once."""
    train, parts = dataset.splits["train"], [dataset.splits[split] for split in splits]
    labels, _ = tfidf_logistic(train.texts, train.labels, [text for part in parts for text in part.texts])
    predicted = np.split(labels, np.cumsum([len(part.labels) for part in parts])[:-1])
    return "tfidf", [float((np.asarray(part.labels) == own).mean()) for part, own in zip(parts, predicted, strict=True)]


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


def score_pairs(outputs: Outputs, dataset: Dataset, split: str) -> Scored:
    """Of `first` and `second`, unit vectors [N D]: is each first text's own second text the nearest of all?"""
    found, size = vector_ranks(outputs["first"], outputs["second"], dataset.splits[split].seconds)
    return Scored(retrieval_metrics(found, size), "recall_at_1", list((found == 1)[:, None]))


def pair_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """TF-IDF."""
    train, evaluated = dataset.splits["train"], dataset.splits[split]
    found = retrieval_metrics(*tfidf_ranks([*train.texts, *train.seconds], evaluated.texts, evaluated.seconds))
    return {f"tfidf_{name}": found[name] for name in ("recall_at_1", "recall_at_10", "mean_reciprocal_rank")}


def score_labels(outputs: Outputs, dataset: Dataset, split: str) -> Scored:
    """Of `scores` [N C], the probability of each label."""
    labels, scores = np.asarray(dataset.splits[split].labels), outputs["scores"]
    found = multi_label_metrics(labels, scores, dataset.spec.label_names)
    return Scored(found, "accuracy", list(rows_right(labels, scores)[:, None]))


def labels_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """TF-IDF with a logistic regression for each label, and always the commonest set of labels."""
    train, evaluated = dataset.splits["train"], dataset.splits[split]
    given = {
        "tfidf": tfidf_one_vs_rest(train.texts, train.labels, evaluated.texts),
        "commonest_set": commonest_set(train.labels, len(evaluated.labels)),
    }
    found = {}
    for name, scores in given.items():
        figures = multi_label_metrics(np.asarray(evaluated.labels), scores, dataset.spec.label_names)
        measures = [measure for measure in figures if measure == "accuracy" or measure.endswith("f1")]
        if name == "tfidf":
            measures += ["roc_auc", "average_precision"]
        found |= {f"{name}_{measure}": figures[measure] for measure in measures}
    return found


def score_values(outputs: Outputs, dataset: Dataset, split: str) -> Scored:
    """Of `values` [N], in their own units."""
    values, predicted = np.asarray(dataset.splits[split].labels), outputs["values"]
    errors = (np.asarray(predicted, np.float64) - values) ** 2
    return Scored(regression_metrics(values, predicted), "mse", list(errors[:, None]))


def value_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """The mean of the training split, and TF-IDF with ridge regression."""
    train, evaluated = dataset.splits["train"], dataset.splits[split]
    mean = regression_metrics(evaluated.labels, np.full(len(evaluated.labels), dataset.spec.target_mean))
    ridge = regression_metrics(evaluated.labels, tfidf_ridge(train.texts, train.labels, evaluated.texts))
    found = {f"training_mean_{measure}": mean[measure] for measure in ("mse", "rmse", "mae", "r2")}
    return found | {f"tfidf_ridge_{measure}": value for measure, value in ridge.items()}


def score_prompts(outputs: Outputs, dataset: Dataset, split: str) -> Scored:
    """Of `answered` [N]: whether each token of the answer that is in its row is the likeliest.

    What is cut or has an unknown token is wrong, so that the score is that of greedy generation.
    """
    right = outputs["answered"] & read_answers(dataset.splits[split], unk_id=dataset.spec.unk_id).possible
    return Scored({"answer_accuracy": float(right.mean())}, "answer_accuracy", list(right[:, None]))


def prompt_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """Nats a token of the answers by frequency alone, and the commonest answer to every prompt."""
    unk_id = dataset.spec.unk_id
    train, evaluated = (read_answers(dataset.splits[name], unk_id=unk_id) for name in ("train", split))
    documents = [[np.append(0, answer) for answer in part.kept] for part in (train, evaluated)]  # the first is given
    return {
        "unigram": unigram_nats(documents[0], documents[1], dataset.spec.vocab_size),
        "commonest_answer_accuracy": commonest_answer(train, evaluated),
    }


def language_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """Those of answers where there are prompts, n-grams otherwise."""
    return (prompt_floors if dataset.splits[split].answers else ngram_floors)(dataset, split)


def tag_floor_on(dataset: Dataset, splits: Sequence[str]) -> tuple[str, list[float]]:
    """The most frequent tag of each word."""
    name = "most_frequent_tag"
    return name, [tag_floors(dataset, split)[f"{name}_accuracy"] for split in splits]


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


def score_vectors(outputs: Outputs, dataset: Dataset, split: str) -> Scored:
    """Of `vectors` [N D], learnt without labels, which stand beside them if there are any."""
    figures, values = vector_figures(outputs, dataset, split)
    headline = "knn_accuracy" if "knn_accuracy" in figures else "cosine_to_mean"
    return Scored(figures, headline, list(values[:, None]))


def text_vector_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """TF-IDF with logistic regression, where rows have a class."""
    labelled = all(len(class_labels(dataset.splits[name])) for name in ("train", split))
    return class_floors(dataset, split) if labelled else {}


def score_image_text(outputs: Outputs, dataset: Dataset, split: str) -> Scored:
    """Of `image` and `text`, unit vectors [N E]: is the nearest text of each picture its own, and the other way?"""
    figures, hits = retrieval_figures(outputs, dataset.splits[split])
    return Scored(figures, "image_to_text_recall_at_1", list(hits[:, None]))


def vector_floors(dataset: Dataset, split: str) -> dict[str, float]:
    """Of images what sees pixels and edges, of sounds MFCCs; none without labels."""
    return (audio_floors if dataset.spec.sample_rate else image_floors)(dataset, split)


def keep_vectors(outputs: Outputs, dataset: Dataset) -> Outputs:
    """The vectors of the validation split, on which probes are chosen."""
    del dataset
    return {"val_vectors": outputs["vectors"]}


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


_VECTORS: dict[str, Any] = dict(
    score=score_vectors,
    measure="knn_accuracy",
    tune=keep_vectors,
    reads_train=True,
    watch=watch_vectors,
    look=look_at_vectors,
)
_IMAGE_TEXT = Task(
    name_floors,
    score_image_text,
    measure="image_to_text_recall_at_1",
    watch=watch_retrieval,
    look=look_at_image_text,
)
TASKS = {
    "masked_lm": Task(unigram_floor),
    "causal_lm": Task(language_floors, score_prompts, measure="answer_accuracy"),
    "classification": Task(class_floors, score_classes, floor_on=class_floor_on),
    "multi_label": Task(labels_floors, score_labels),
    "regression": Task(value_floors, score_values, measure="r2"),
    "tagging": Task(tag_floors, score_tags, floor_on=tag_floor_on),
    "pairs": Task(pair_floors, score_pairs, measure="recall_at_1", look=look_at_pairs),
    "simclr": Task(vector_floors, **_VECTORS),
    "moco": Task(vector_floors, **_VECTORS),
    "simcse": Task(text_vector_floors, **_VECTORS),
    "clip": _IMAGE_TEXT,
    "siglip": _IMAGE_TEXT,
    "masked_patches": Task(vector_floors, **_VECTORS),
    "question_answering": Task(answer_floors, score_answers, measure="f1", tune=tune_answers),
}
