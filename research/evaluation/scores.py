"""From sums and outputs over a split to the figures of result.json, and the floors that stand beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.batch import Dataset
from research.evaluation.slices import slices
from research.evaluation.tasks import TASKS, Scored, bits
from research.metrics import divide

ROBUSTNESS = "robustness/"


def of_split(sums: Mapping[str, np.ndarray], dataset: Dataset, split: str, *, objective: str) -> dict[str, float]:
    """Means over a split; for language also perplexity and, for causal_lm, bits per byte = nats / ln 2 / bytes."""
    values = {f"{split}/{name}": value for name, value in divide(sums).items()}
    if objective in ("causal_lm", "masked_lm"):
        values[f"{split}/perplexity"] = math.exp(min(values[f"{split}/loss"], 700.0))
    part = dataset.splits[split]
    if objective == "causal_lm" and part.num_bytes and not part.answers:  # of a prompt's bytes nothing is told
        values[f"{split}/bits_per_byte"] = bits(float(sums["loss"][0]), part.num_bytes)
    return values


def tuned(outputs: Mapping[str, np.ndarray], dataset: Dataset, *, objective: str) -> dict[str, np.ndarray]:
    """What the outputs over the validation split decide for all splits, to be passed on with the outputs of each."""
    tune = TASKS[objective].tune
    return {} if tune is None else dict(tune(outputs, dataset))


def score(outputs: Mapping[str, np.ndarray], dataset: Dataset, split: str, *, objective: str) -> Scored | None:
    """The objective's outputs over a split, scored; None where its loss says it all, or such data give none."""
    scorer = TASKS[objective].score
    return None if scorer is None or not outputs else scorer(outputs, dataset, split)


def look(
    outputs: Mapping[str, np.ndarray], dataset: Dataset, split: str, *, objective: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What takes longer, of the split that a run is judged by: figures with their floors, and what its report shows."""
    look = TASKS[objective].look
    if look is None or not outputs:
        return {}, {}
    found = look(outputs, dataset, split)
    figures: dict[str, Any] = {f"{split}/{name}": value for name, value in found.figures.items()}
    figures |= {f"floor/{split}/{name}": value for name, value in found.floors.items()}
    return figures, {"split": split, **found.exhibits}


def of_scored(scored: Scored, dataset: Dataset, split: str) -> dict[str, Any]:
    """The figures, and the headline figure by slices of the split.

    Where rows of the split stand in the training split too, the headline figure without them is there as well.
    """
    found = dict(scored.figures)
    trained_on = set(dataset.splits["train"].hashes)
    unseen = np.array([key not in trained_on for key in dataset.splits[split].hashes], bool)
    if len(unseen) and unseen.any() and not unseen.all():
        found["rows_seen_in_training"] = int((~unseen).sum())
        kept = [values for values, new in zip(scored.values, unseen, strict=True) if new]
        found[f"{scored.headline}_without_seen_rows"] = float(np.concatenate(kept).mean())
    found["slices"] = slices(scored.values, scored.headline, dataset.splits[split], dataset.spec.label_names)
    return {f"{split}/{name}": value for name, value in found.items()} | {"label_names": list(dataset.spec.label_names)}


def robustness(
    scored: Mapping[str, Scored], perturbed: Dataset, split: str, *, objective: str, floors: bool
) -> dict[str, Any]:
    """The headline figure of each perturbed copy of a split and its drop, "clean" minus perturbed (of an error a drop
    below 0 is a loss), under `robustness/split/kind`; with `floors` those of the floor under the same perturbations.

    `scored` are "clean" and every copy, `perturbed` has them as splits.
    """
    headline = scored["clean"].headline
    found = {headline: {name: float(np.concatenate(each.values).mean()) for name, each in scored.items()}}
    floor_on = TASKS[objective].floor_on
    if floors and floor_on is not None:
        floor, figures = floor_on(perturbed, list(scored))
        found[f"{floor}_{headline}"] = dict(zip(scored, figures, strict=True))
    result: dict[str, Any] = {}
    for kind in [name for name in scored if name != "clean"]:
        figures = {}
        for name, by_kind in found.items():
            figures |= {name: by_kind[kind], f"{name.removesuffix(headline)}drop": by_kind["clean"] - by_kind[kind]}
        result[f"{ROBUSTNESS}{split}/{kind}"] = figures
    return result


def shift(scored: Mapping[str, Scored]) -> dict[str, float]:
    """`shift/drop`: the headline figure of the test split (of the validation split where there is none) minus that of
    the split "shift", where there is one.
    """
    if "shift" not in scored:
        return {}
    clean, moved = scored.get("test", scored["val"]), scored["shift"]
    return {"shift/drop": float(np.concatenate(clean.values).mean() - np.concatenate(moved.values).mean())}


def floors(dataset: Dataset, split: str, *, objective: str) -> dict[str, Any]:
    """What needs no network (`evaluation/tasks.py`), under `floor/split/…`."""
    return {f"floor/{split}/{name}": value for name, value in TASKS[objective].floors(dataset, split).items()}


def summary(result: Mapping[str, Any]) -> list[str]:
    """One line a split: each score with its floors beside it; then the drop under each perturbation."""
    lines = []
    for split in dict.fromkeys(key.split("/")[0] for key in result if "/" in key and not key.startswith("floor/")):
        scores = {key.split("/", 1)[1]: value for key, value in result.items() if key.startswith(f"{split}/")}
        beside = {key.split("/", 2)[2]: value for key, value in result.items() if key.startswith(f"floor/{split}/")}
        plain = [f"{key} {value:.4g}" for key, value in scores.items() if isinstance(value, float) and "/" not in key]
        if plain:
            lines.append(f"{split}: " + "  ".join(plain))
        if beside:
            lines.append(f"{split} floors: " + "  ".join(f"{key} {value:.4g}" for key, value in beside.items()))
    drops = [f"{key.split('/')[2]} {value['drop']:.4g}" for key, value in result.items() if key.startswith(ROBUSTNESS)]
    return [*lines, "drop under " + "  ".join(drops)] if drops else lines
