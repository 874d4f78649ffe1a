"""From sums and outputs over a split to the figures of result.json, and the floors that stand beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.batch import Dataset
from research.evaluation.tasks import TASKS, bits
from research.metrics import divide


def of_split(sums: Mapping[str, np.ndarray], dataset: Dataset, split: str, *, objective: str) -> dict[str, float]:
    """Means over a split; for language also perplexity and, for causal_lm, bits per byte = nats / ln 2 / bytes."""
    values = {f"{split}/{name}": value for name, value in divide(sums).items()}
    if objective in ("causal_lm", "masked_lm"):
        values[f"{split}/perplexity"] = math.exp(min(values[f"{split}/loss"], 700.0))
    if objective == "causal_lm" and dataset.splits[split].num_bytes:
        values[f"{split}/bits_per_byte"] = bits(float(sums["loss"][0]), dataset.splits[split].num_bytes)
    return values


def tuned(outputs: Mapping[str, np.ndarray], dataset: Dataset, *, objective: str) -> Mapping[str, np.ndarray]:
    """What the outputs over the validation split decide for all splits, to be passed on with the outputs of each."""
    tune = TASKS[objective].tune
    return {} if tune is None else tune(outputs, dataset)


def of_outputs(outputs: Mapping[str, np.ndarray], dataset: Dataset, split: str, *, objective: str) -> dict[str, Any]:
    """Scores of the objective's outputs; nothing where its loss says it all.

    Where rows of the split stand in the training split too, the headline figure without them is there as well.
    """
    score = TASKS[objective].score
    if score is None:
        return {}
    scored = score(outputs, dataset, split)
    found = dict(scored.figures)
    trained_on = set(dataset.splits["train"].hashes)
    unseen = np.array([key not in trained_on for key in dataset.splits[split].hashes], bool)
    if len(unseen) and unseen.any() and not unseen.all():
        found["rows_seen_in_training"] = int((~unseen).sum())
        kept = [values for values, new in zip(scored.values, unseen, strict=True) if new]
        found[f"{scored.headline}_without_seen_rows"] = float(np.concatenate(kept).mean())
    return {f"{split}/{name}": value for name, value in found.items()} | {"label_names": list(dataset.spec.label_names)}


def floors(dataset: Dataset, split: str, *, objective: str) -> dict[str, Any]:
    """What needs no network (`evaluation/tasks.py`), under `floor/split/…`."""
    return {f"floor/{split}/{name}": value for name, value in TASKS[objective].floors(dataset, split).items()}


def summary(result: Mapping[str, Any]) -> list[str]:
    """One line a split: each score with its floors beside it."""
    lines = []
    for split in dict.fromkeys(key.split("/")[0] for key in result if "/" in key and not key.startswith("floor/")):
        scores = {key.split("/", 1)[1]: value for key, value in result.items() if key.startswith(f"{split}/")}
        beside = {key.split("/", 2)[2]: value for key, value in result.items() if key.startswith(f"floor/{split}/")}
        plain = [f"{key} {value:.4g}" for key, value in scores.items() if isinstance(value, float) and "/" not in key]
        if plain:
            lines.append(f"{split}: " + "  ".join(plain))
        if beside:
            lines.append(f"{split} floors: " + "  ".join(f"{key} {value:.4g}" for key, value in beside.items()))
    return lines
