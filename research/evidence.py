"""Whether pretraining helped: runs of the pretrained start, its twin and the floor, for each budget of labels."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from research import provenance
from research.build import build
from research.evaluation.evidence import compare, over_runs, table
from research.evaluation.report import write_report
from research.evaluation.scores import ROBUSTNESS
from research.evaluation.tasks import measure_of
from research.evaluator import check_evaluation
from research.experiment import Experiment, complete, open_experiment
from research.forgetting import open_forgetting
from research.metrics import more_is_better
from research.run import train
from research.settings import Evaluating, Evidence

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

    Finished runs are kept: the same command continues where it stopped. Every choice of labels, and every seed or fold,
    is the same for both arms, so that their difference is paired.
    """
    settings: Evidence = build(page["evidence"], {"": Evidence}, kind="evidence")
    _check_folds(settings, page["data"])
    full = open_experiment(_arm(page, settings, budget=0, index=0, weights="pretrained", num_rows=1), say=say)
    num_rows = len(full.dataset.splits["train"].hashes)  # one a label; a question has several rows
    split = "test" if "test" in full.dataset.splits else "val"
    metric = settings.metric or f"{split}/{measure_of(page['objective']['name'], full.dataset.spec.label_names)}"
    _check(settings, metric, full, num_rows)
    provenance.begin(workdir, page, command=command, dataset=full.dataset)
    budgets = []
    for budget in settings.budgets:
        found: dict[str, list[Mapping[str, Any]]] = {arm: [] for arm in ARMS}
        for index in range(settings.folds or settings.seeds):
            for weights in ARMS:
                arm = _arm(page, settings, budget=budget, index=index, weights=weights, num_rows=num_rows)
                kind = "fold-" if settings.folds else ""
                folder = workdir / "runs" / f"{budget or 'all'}-labels-{weights}-{kind}{index}"
                say(f"== {folder.name}")
                found[weights].append(_result(arm, folder, command, say))
        if metric not in found["pretrained"][0]:
            measured = ", ".join(sorted(key for key in found["pretrained"][0] if "/" in key))
            raise ValueError(f"evidence.metric={metric!r} is not measured; use one of {measured}")
        test_share = len(full.dataset.splits["test"].examples) / (budget or num_rows) if settings.folds else 0.0
        budgets.append(_summary(found, metric, labels=budget or num_rows, test_share=test_share))
    over = {"folds": settings.folds} if settings.folds else {"seeds": settings.seeds}
    evidence = {"metric": metric, **over, "budgets": budgets}
    result = {
        "evidence": evidence,
        "shared_rows": full.dataset.facts.get("shared_rows"),
        "wall_seconds": time.perf_counter() - started,
    }
    provenance.write_json(workdir / "result.json", result)
    for line in table(evidence):
        say(line)
    say(f"report: {write_report(workdir)}")
    return result


def _check_folds(settings: Evidence, data: Mapping[str, Any]) -> None:
    if settings.folds and data.get("test_path"):
        raise ValueError(
            f"evidence.folds={settings.folds} makes test splits of the training data, and data.test_path="
            f"{data['test_path']} is one; leave one of the two out"
        )
    if settings.folds and (data.get("folds") or data.get("fold")):
        raise ValueError("evidence.folds goes through all folds; leave data.folds and data.fold out")


def _check(settings: Evidence, metric: str, full: Experiment, num_rows: int) -> None:
    dataset, num_classes = full.dataset, full.dataset.spec.num_classes
    # Of tags a choice of sentences need not have every one.
    least = 1 if full.page.objective["name"] == "tagging" else num_classes
    for budget in settings.budgets:
        if budget and not least <= budget <= num_rows:
            raise ValueError(
                f"evidence.budgets={settings.budgets}: {budget} labels cannot be had of {num_rows} training rows of "
                f"{num_classes} classes; use numbers from {least} to {num_rows}, or 0 for all"
            )
    split = metric.split("/")[0]
    if split not in dataset.splits or split == "train":
        others = ", ".join(name for name in dataset.splits if name != "train")
        raise ValueError(f"evidence.metric={metric!r}: there is no {split} split; the data have {others}")
    if settings.folds and split != "test":
        raise ValueError(f"evidence.metric={metric!r}: folds are scored as test splits; use a figure of test")
    evaluating: Evaluating = build(full.page.evaluation, {"": Evaluating}, kind="evaluation")
    check_evaluation(full, evaluating)
    open_forgetting(full, evaluating.forgetting)


def _arm(
    page: Mapping[str, Any], settings: Evidence, *, budget: int, index: int, weights: str, num_rows: int
) -> dict[str, Any]:
    """The page of one run: of the seed, or the fold, `index`."""
    arm = copy.deepcopy(dict(page)) | {"evidence": {}, "seed": page["seed"] + index, "weights": weights}
    arm["evaluation"] = dict(arm["evaluation"]) | {"floors": weights == "pretrained"}
    if weights == "scratch":
        arm["evaluation"] |= {"forgetting": 0}
        # A random start has nothing worth keeping: frozen, or at small rates, it would be a twin that cannot learn.
        arm["tuning"] = {key: value for key, value in dict(page["tuning"]).items() if key == "linear_probe"}
    if settings.folds:
        arm["data"] = dict(arm["data"]) | {"folds": settings.folds, "fold": index}
    if budget:
        arm["data"] = dict(arm["data"]) | {"num_labels": budget, "labels_seed": index}
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


def _summary(
    found: Mapping[str, Sequence[Mapping[str, Any]]], metric: str, *, labels: int, test_share: float
) -> dict[str, Any]:
    split, name = metric.split("/", 1)
    scores = {arm: [float(result[metric]) for result in results] for arm, results in found.items()}
    start, end = f"floor/{split}/", f"_{name}"
    keys = [key for key in found["pretrained"][0] if key.startswith(start) and key.endswith(end)]
    others = [key.split("/", 1)[1] for key in found["pretrained"][0] if key.startswith(f"{split}/")]
    longer = tuple(f"_{other}" for other in others if other.endswith(end))  # answer_accuracy is no accuracy
    keys = [key for key in keys if not key.endswith(longer)]
    floors = {
        key.removeprefix(start).removesuffix(end): [float(result[key]) for result in found["pretrained"]]
        for key in keys
    }
    seconds = {arm: sum(result["wall_seconds"] for result in results) for arm, results in found.items()}
    ascending = more_is_better(metric)
    compared = compare(scores["pretrained"], scores["scratch"], floors, test_share=test_share, ascending=ascending)
    return compared | _beside(found, test_share) | {"labels": labels, "wall_seconds": seconds}


def _beside(found: Mapping[str, Sequence[Mapping[str, Any]]], test_share: float) -> dict[str, Any]:
    """What else the runs measured: `robustness` {kind: {arm: the drop}}, of the figure `robustness_of`, and
    `forgetting`, pretrained only."""
    kinds = [key for key in found["pretrained"][0] if key.startswith(ROBUSTNESS)]
    robustness = {
        key.split("/")[-1]: {
            arm: over_runs([result[key]["drop"] for result in results], test_share=test_share)
            for arm, results in found.items()
        }
        for key in kinds
    }
    headline = next((name for key in kinds for name in found["pretrained"][0][key]), "")
    measured = {"robustness": robustness, "robustness_of": headline} if robustness else {}
    if "forgetting/after" in found["pretrained"][0]:
        lost = [result["forgetting/after"] - result["forgetting/before"] for result in found["pretrained"]]
        measured["forgetting"] = over_runs(lost, test_share=test_share)
    return measured
