"""What finetuning forgets: the loss of pretraining, of the model that it started from and of the backbone it leaves."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research import provenance
from research.batch import Dataset, Split
from research.build import build
from research.data import DATA
from research.data.rows import FirstRows
from research.evaluator import Evaluator
from research.experiment import Experiment
from research.settings import Evaluating
from research.training.sharding import Layout
from research.types import Objective, Params


@dataclass(frozen=True)
class Forgetting:
    """Validation rows of a run that was pretrained here, its objective and its parameters."""

    name: str  # of the objective
    objective: Objective
    params: Params
    data: Dataset
    seed: int
    batch_size: int

    def measure(self, params: Params, layout: Layout) -> dict[str, Any]:
        """`forgetting/before` and `forgetting/after`, in nats, and the number of `forgetting/rows`.

        After is the backbone of `params` under the head of before.
        """
        sizes = {"seed": self.seed, "batch_size": self.batch_size}
        evaluator = Evaluator(self.objective, self.data, layout, name=self.name, **sizes)
        before = jax.device_put(self.params, layout.replicated())
        after = {**before, "backbone": params["backbone"]}
        found: dict[str, Any] = {"forgetting/rows": len(self.data.splits["val"].examples)}
        for name, each in (("before", before), ("after", after)):
            found[f"forgetting/{name}"] = evaluator.scores({"params": each}, "val")["val/loss"]
        return found


def open_forgetting(experiment: Experiment, num_rows: int) -> Forgetting | None:
    """The first `num_rows` validation rows of the run that an experiment starts from; None where none are asked for.

    Raises:
      ValueError: it starts from no run of its own kind, or the data of that run are gone or have changed.
    """
    if not num_rows:
        return None
    origin, page = experiment.origin, experiment.page
    if origin is None or page.weights == "scratch":
        raise ValueError(
            f"evaluation.forgetting={num_rows}: a model that starts from scratch has nothing to forget; leave it out"
        )
    place = Path(page.init_from)
    pretrained = provenance.read_config(place)
    if pretrained is None or "path" not in origin.about["data"] or origin.objective is None:
        raise ValueError(
            f"evaluation.forgetting={num_rows}: {place} holds published weights, without the data that they were "
            "pretrained on; leave it out"
        )
    if origin.spec.image_size:
        raise ValueError(
            f"evaluation.forgetting={num_rows}: it is the loss of a language model before and after, and {place} is a "
            "model of images; leave it out"
        )
    block = dict(origin.about["data"]) | {"tokenizer": {"name": "file", "path": str(place / "tokenizer.json")}}
    try:
        dataset = build(block, DATA, kind="data")
    except ValueError as error:
        raise ValueError(
            f"evaluation.forgetting={num_rows}: the data of {place} cannot be read again ({error}); put them back, or "
            "leave it out"
        ) from error
    before = json.loads((place / "run.json").read_text())["data"].get("fingerprint", "")
    if before != dataset.facts.get("fingerprint", ""):
        raise ValueError(
            f"evaluation.forgetting={num_rows}: the data of {place} have changed since it was trained; leave it out"
        )
    evaluating: Evaluating = build(pretrained["evaluation"], {"": Evaluating}, kind="evaluation")
    examples = dataset.splits["val"].examples
    return Forgetting(
        name=origin.about["objective"]["name"],
        objective=origin.objective,
        params=jax.tree.map(np.array, origin.params),  # a copy: training gives up the buffers that it starts from
        data=replace(dataset, splits={"val": Split(FirstRows(examples, min(num_rows, len(examples))))}),
        seed=pretrained["seed"],
        batch_size=evaluating.batch_size or pretrained["batch_size"],
    )
