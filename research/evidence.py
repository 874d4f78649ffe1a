"""Whether pretraining helped: seeds of the pretrained start, its twin and the floor, for each budget of labels."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from research import provenance
from research.batch import Dataset
from research.build import build
from research.evaluation.evidence import compare, table
from research.evaluation.report import write_report
from research.experiment import Evidence, complete, open_experiment
from research.run import train

ARMS = ("pretrained", "scratch")


def gather(
    page: dict[str, Any],
    workdir: Path,
    *,
    command: Sequence[str],
    started: float,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Finetunes every arm, each a run of its own under WORKDIR/runs, and sums them up; returns what result.json holds.

    Finished runs are kept: the same command continues where it stopped. Every choice of labels, and every seed, is the
    same for both arms, so that their difference is paired.
    """
    settings: Evidence = build(page["evidence"], {"": Evidence}, kind="evidence")
    full = open_experiment(_arm(page, settings, budget=0, seed=0, weights="pretrained", num_rows=1), say=say)
    num_rows = len(full.dataset.splits["train"].hashes)  # one a label; a question has several rows
    metric = settings.metric or ("test/accuracy" if "test" in full.dataset.splits else "val/accuracy")
    _check(settings, metric, full.dataset, num_rows)
    provenance.begin(workdir, page, command=command, dataset=full.dataset)
    budgets = []
    for budget in settings.budgets:
        found: dict[str, list[Mapping[str, Any]]] = {arm: [] for arm in ARMS}
        for seed in range(settings.seeds):
            for weights in ARMS:
                arm = _arm(page, settings, budget=budget, seed=seed, weights=weights, num_rows=num_rows)
                folder = workdir / "runs" / f"{budget or 'all'}-labels-{weights}-{seed}"
                say(f"== {folder.name}")
                found[weights].append(_result(arm, folder, command, say))
        if metric not in found["pretrained"][0]:
            measured = ", ".join(sorted(key for key in found["pretrained"][0] if "/" in key))
            raise ValueError(f"evidence.metric={metric!r} is not measured; use one of {measured}")
        budgets.append(_summary(found, metric, labels=budget or num_rows))
    result = {
        "evidence": {"metric": metric, "seeds": settings.seeds, "budgets": budgets},
        "shared_rows": full.dataset.facts.get("shared_rows"),
        "wall_seconds": time.perf_counter() - started,
    }
    provenance.write_json(workdir / "result.json", result)
    for line in table(budgets, metric):
        say(line)
    say(f"report: {write_report(workdir)}")
    return result


def _check(settings: Evidence, metric: str, dataset: Dataset, num_rows: int) -> None:
    num_classes = dataset.spec.num_classes
    for budget in settings.budgets:
        if budget and not num_classes <= budget <= num_rows:
            raise ValueError(
                f"evidence.budgets={settings.budgets}: {budget} labels cannot be had of {num_rows} training rows of "
                f"{num_classes} classes; use numbers between the two, or 0 for all"
            )
    split = metric.split("/")[0]
    if split not in dataset.splits or split == "train":
        others = ", ".join(name for name in dataset.splits if name != "train")
        raise ValueError(f"evidence.metric={metric!r}: there is no {split} split; the data have {others}")


def _arm(
    page: Mapping[str, Any], settings: Evidence, *, budget: int, seed: int, weights: str, num_rows: int
) -> dict[str, Any]:
    """The page of one run."""
    arm = copy.deepcopy(dict(page)) | {"evidence": {}, "seed": page["seed"] + seed, "weights": weights}
    arm["evaluation"] = dict(arm["evaluation"]) | {"floors": weights == "pretrained"}
    if budget:
        arm["data"] = dict(arm["data"]) | {"num_labels": budget, "labels_seed": seed}
        steps = max(round(page["num_steps"] * min(1.0, budget / num_rows) ** 0.5), settings.least_steps)
        arm["num_steps"] = min(steps, page["num_steps"])
        optimizer, schedule = dict(arm["optimizer"]), dict(arm["optimizer"].get("schedule", {}))
        if schedule.get("warmup_steps"):
            schedule["warmup_steps"] = max(1, schedule["warmup_steps"] * arm["num_steps"] // page["num_steps"])
            arm["optimizer"] = optimizer | {"schedule": schedule}
    return complete(arm)


def _result(arm: dict[str, Any], folder: Path, command: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """What a run's result.json holds: of one that is finished, or after it is trained."""
    provenance.check_workdir(folder, arm)
    done = folder / "result.json"
    if done.is_file():
        return json.loads(done.read_text())
    began = time.perf_counter()
    return train(open_experiment(arm, say=lambda line: None), folder, command=command, started=began)


def _summary(found: Mapping[str, Sequence[Mapping[str, Any]]], metric: str, *, labels: int) -> dict[str, Any]:
    split, name = metric.split("/", 1)
    scores = {arm: [float(result[metric]) for result in results] for arm, results in found.items()}
    start, end = f"floor/{split}/", f"_{name}"
    keys = [key for key in found["pretrained"][0] if key.startswith(start) and key.endswith(end)]
    floors = {
        key.removeprefix(start).removesuffix(end): [float(result[key]) for result in found["pretrained"]]
        for key in keys
    }
    seconds = {arm: sum(result["wall_seconds"] for result in results) for arm, results in found.items()}
    return compare(scores["pretrained"], scores["scratch"], floors) | {"labels": labels, "wall_seconds": seconds}
