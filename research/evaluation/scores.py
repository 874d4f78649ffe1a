"""From sums and outputs over a split to the figures of result.json, and the floors that stand beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.batch import Dataset
from research.evaluation.baselines import kneser_ney, tfidf_logistic, unigram_nats
from research.evaluation.calibration import abstention, expected_calibration_error, mistakes, reliability
from research.evaluation.classification import classification_metrics
from research.evaluation.tagging import MISSING, most_frequent_tag, tagging_metrics
from research.metrics import divide

_ORDERS = (2, 3, 4, 5)
_FLOOR_TOKENS = 30_000_000  # a longer training split is cut for the n-gram floors, and the cut is reported


def of_split(sums: Mapping[str, np.ndarray], dataset: Dataset, split: str, *, objective: str) -> dict[str, float]:
    """Means over a split; for language also perplexity and, for causal_lm, bits per byte = nats / ln 2 / bytes."""
    values = {f"{split}/{name}": value for name, value in divide(sums).items()}
    if objective in ("causal_lm", "masked_lm"):
        values[f"{split}/perplexity"] = math.exp(min(values[f"{split}/loss"], 700.0))
    if objective == "causal_lm" and dataset.splits[split].num_bytes:
        values[f"{split}/bits_per_byte"] = _bits(float(sums["loss"][0]), dataset.splits[split].num_bytes)
    return values


def of_outputs(outputs: Mapping[str, np.ndarray], dataset: Dataset, split: str) -> dict[str, Any]:
    """Scores of the objective's outputs: of probabilities or of tags; nothing where it gave neither.

    Where rows of the split stand in the training split too, the accuracy without them is there as well.
    """
    if "probabilities" in outputs:
        found, right = _of_probabilities(outputs["probabilities"], dataset, split)
    elif "tags" in outputs:
        found, right = _of_tags(outputs["tags"], dataset, split)
    else:
        return {}
    trained_on = set(dataset.splits["train"].hashes)
    unseen = np.array([key not in trained_on for key in dataset.splits[split].hashes], bool)
    if len(unseen) and unseen.any() and not unseen.all():
        found["rows_seen_in_training"] = int((~unseen).sum())
        found["accuracy_without_seen_rows"] = float(
            np.concatenate([row for row, new in zip(right, unseen, strict=True) if new]).mean()
        )
    return {f"{split}/{name}": value for name, value in found.items()} | {"label_names": list(dataset.spec.label_names)}


def _of_probabilities(
    probabilities: np.ndarray, dataset: Dataset, split: str
) -> tuple[dict[str, Any], Sequence[np.ndarray]]:
    """The scores, and of each row what was right [1]."""
    names, part = dataset.spec.label_names, dataset.splits[split]
    labels = np.asarray(part.labels)
    found = classification_metrics(labels, probabilities, names)
    found["reliability"] = reliability(labels, probabilities)
    found["ece"] = expected_calibration_error(found["reliability"])
    found["abstention"] = abstention(labels, probabilities)
    found["mistakes"] = mistakes(part.texts, labels, probabilities, names)
    return found, list((probabilities.argmax(axis=1) == labels)[:, None])


def _of_tags(tags: np.ndarray, dataset: Dataset, split: str) -> tuple[dict[str, Any], Sequence[np.ndarray]]:
    """The scores, and of each row which words were right."""
    names, part = dataset.spec.label_names, dataset.splits[split]
    predicted = [
        [names[tags[row, column]] if column >= 0 else MISSING for column in columns]
        for row, columns in enumerate(part.places)
    ]
    true = [[names[tag] for tag in sentence] for sentence in part.tags]
    right = [np.array(first) == np.array(second) for first, second in zip(true, predicted, strict=True)]
    return tagging_metrics(true, predicted, names), right


def floors(dataset: Dataset, split: str, *, objective: str) -> dict[str, Any]:
    """What needs no network: unigram (and n-grams for causal_lm) in nats a token, TF-IDF with logistic
    regression, the most frequent tag."""
    train, evaluated = dataset.splits["train"], dataset.splits[split]
    if objective == "classification":
        predicted, probabilities = tfidf_logistic(train.texts, train.labels, evaluated.texts)
        del predicted
        found = classification_metrics(evaluated.labels, probabilities, dataset.spec.label_names)
        return {f"floor/{split}/tfidf_{name}": found[name] for name in ("accuracy", "f1")}
    if objective == "tagging":
        names = dataset.spec.label_names
        true, known = ([[names[tag] for tag in tags] for tags in part.tags] for part in (evaluated, train))
        found = tagging_metrics(true, most_frequent_tag(train.words, known, evaluated.words), names)
        return {f"floor/{split}/most_frequent_tag_{name}": found[name] for name in ("accuracy", "f1")}
    vocab_size = dataset.spec.vocab_size
    documents = _first_tokens(train.documents, _FLOOR_TOKENS)
    held_out = list(evaluated.documents)
    result: dict[str, Any] = {f"floor/{split}/unigram": unigram_nats(documents, held_out, vocab_size)}
    if objective == "causal_lm":
        predicted = sum(len(document) - 1 for document in held_out)
        for order, nats in kneser_ney(documents, held_out, orders=_ORDERS, vocab_size=vocab_size).items():
            result[f"floor/{split}/kneser_ney_{order}"] = nats
            if evaluated.num_bytes:
                result[f"floor/{split}/kneser_ney_{order}_bits_per_byte"] = _bits(nats * predicted, evaluated.num_bytes)
    return result


def summary(result: Mapping[str, Any]) -> list[str]:
    """One line a split: each score with its floors beside it."""
    lines = []
    for split in ("val", "test"):
        scores = {key.split("/", 1)[1]: value for key, value in result.items() if key.startswith(f"{split}/")}
        beside = {key.split("/", 2)[2]: value for key, value in result.items() if key.startswith(f"floor/{split}/")}
        plain = [f"{key} {value:.4g}" for key, value in scores.items() if isinstance(value, float) and "/" not in key]
        if plain:
            lines.append(f"{split}: " + "  ".join(plain))
        if beside:
            lines.append(f"{split} floors: " + "  ".join(f"{key} {value:.4g}" for key, value in beside.items()))
    return lines


def _first_tokens(documents: Any, limit: int) -> list[np.ndarray]:
    taken, total = [], 0
    for document in documents:
        taken.append(np.asarray(document))
        total += len(document)
        if total >= limit:
            break
    return taken


def _bits(nats: float, num_bytes: int) -> float:
    return nats / math.log(2.0) / num_bytes
