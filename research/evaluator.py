"""The hall's last part: what a model is worth once it is trained, or while it is; scores, floors and samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from research import provenance
from research.batch import AXES, Dataset, Source
from research.build import build, override
from research.data import DATA
from research.data.perturbation import check_perturbable, perturbed
from research.data.rows import FirstRows
from research.data.stream import eval_batches
from research.data.tokenizers import from_json
from research.evaluation import scores
from research.evaluation.means import sums_over
from research.evaluation.tasks import TASKS, Scored
from research.experiment import PAGE, Experiment, sizes_as_read
from research.inference.fill_mask import MASK, fill_mask
from research.inference.generate import Sampling, generate
from research.inference.prompts import answer_prompts
from research.inference.text_model import TextModel
from research.media import vectors_of_texts
from research.settings import Evaluating
from research.trained import open_trained, separator, text_model
from research.training.sharding import Layout, MeshShape, batch_shardings, local_rows, make_layout, put_batch, whole
from research.training.step import make_eval_step
from research.types import Batch, Objective, Variables

_WATCHED = 4000  # rows of a split that are looked at during training


class Evaluator:
    """Scores of whole splits, for a run under way and for a finished one alike."""

    def __init__(
        self, objective: Objective, dataset: Dataset, layout: Layout, *, name: str, seed: int, batch_size: int
    ) -> None:
        self._dataset, self._layout, self._name = dataset, layout, name
        self._seed, self._batch_size = seed, -(-batch_size // layout.batch_parts) * layout.batch_parts
        self._objective = objective
        self._eval_step = jax.jit(make_eval_step(objective, seed=seed))
        outputs = getattr(objective, "outputs", None)
        self._outputs = None if outputs is None else jax.jit(outputs)

    def scores(self, variables: Variables, split: str) -> dict[str, float]:
        """Exact means over the split, under `split/…`."""
        sums = sums_over(self._eval_step, variables, self._batches(self._dataset.splits[split].examples))
        return scores.of_split(sums, self._dataset, split, objective=self._name)

    def all_scores(self, variables: Variables, evaluating: Evaluating, *, floors: bool) -> dict[str, Any]:
        """Every split that is not trained on: means, scores of the outputs, and floors beside them; with `robustness`
        those of its perturbed copies too. What the report shows of the split that the run is judged by (test, or else
        val) is under `exhibits`.
        """
        result: dict[str, Any] = {}
        tuned: Mapping[str, np.ndarray] = {}
        found = {}
        judged = "test" if "test" in self._dataset.splits else "val"
        for split in [name for name in self._dataset.splits if name != "train"]:  # what val decides comes first
            result |= self.scores(variables, split)
            outputs = self.outputs(variables, self._dataset.splits[split].examples)
            if split == "val":
                tuned = scores.tuned(outputs, self._dataset, objective=self._name) | self._of_train(variables)
            scored = scores.score({**outputs, **tuned}, self._dataset, split, objective=self._name)
            if scored is not None:
                result |= scores.of_scored(scored, self._dataset, split)
                found[split] = scored
            if floors:
                result |= scores.floors(self._dataset, split, objective=self._name)
            if split == judged:
                given = {**outputs, **tuned, **self._prompts(variables, split, evaluating)}
                figures, exhibits = scores.look(given, self._dataset, split, objective=self._name)
                result |= figures | ({"exhibits": exhibits} if exhibits else {})
        result |= scores.shift(found)
        return result | (self._robustness(variables, floors=floors) if evaluating.robustness else {})

    def while_training(self, variables: Variables, *, ranked_by: str) -> dict[str, Any]:
        """Means over the validation split and what is watched (see `watch`); the figures of its outputs too, where
        checkpoints are ranked by one of those.
        """
        found: dict[str, Any] = self.scores(variables, "val") | self.watch(variables)
        if ranked_by in ("", *found):
            return found
        outputs = self.outputs(variables, self._dataset.splits["val"].examples)
        tuned = scores.tuned(outputs, self._dataset, objective=self._name) | self._of_train(variables)
        scored = scores.score({**outputs, **tuned}, self._dataset, "val", objective=self._name)
        of_outputs = {} if scored is None else scores.of_scored(scored, self._dataset, "val")
        return {key: value for key, value in of_outputs.items() if isinstance(value, float)} | found

    def check_ranking(self, variables: Variables, metric: str) -> None:
        """Raises ValueError where no such figure of the validation split is measured while a model is trained."""
        batch = next(self._batches(self._dataset.splits["val"].examples))
        means = {name: np.ones(2) for name in jax.eval_shape(self._eval_step, variables, batch)}
        if metric in ("", *scores.of_split(means, self._dataset, "val", objective=self._name)):
            return
        found = self.while_training(variables, ranked_by=metric)
        if metric not in found:
            known = ", ".join(sorted(key for key in found if key.startswith("val/")))
            raise ValueError(f"checkpoint.metric={metric!r} is not measured; use one of {known}")

    def watch(self, variables: Variables) -> dict[str, Any]:
        """Figures of vectors that are learnt without labels while they are: from a few thousand rows of the validation
        split (of the training split too, where neighbours are looked up there); none where the loss says it all.
        """
        task = TASKS[self._name]
        if task.watch is None:
            return {}
        found = {}
        for name in ("train", "val") if task.reads_train else ("val",):
            examples = self._dataset.splits[name].examples
            found[name] = self.outputs(variables, FirstRows(examples, min(len(examples), _WATCHED)))
        return task.watch(found, self._dataset)

    def _of_train(self, variables: Variables) -> dict[str, np.ndarray]:
        if not TASKS[self._name].reads_train:
            return {}
        outputs = self.outputs(variables, self._dataset.splits["train"].examples)
        return {f"train_{key}": values for key, values in outputs.items()}

    def _prompts(self, variables: Variables, split: str, evaluating: Evaluating) -> dict[str, np.ndarray]:
        """The class of each row int [N], and the vectors [C T E] of the texts that describe each class."""
        if not evaluating.zero_shot_field:
            return {}
        column = [str(value) for value in self._dataset.splits[split].fields[evaluating.zero_shot_field]]
        names, classes = np.unique(column, return_inverse=True)
        texts = [template.replace("{}", name) for name in names for template in evaluating.templates]
        model, spec = cast(Any, self._objective).model, self._dataset.spec
        vectors = vectors_of_texts(model, variables, texts, from_json(self._dataset.tokenizer), spec.length)
        return {"prompts": vectors.reshape(len(names), len(evaluating.templates), -1), "classes": classes}

    def outputs(self, variables: Variables, examples: Source) -> dict[str, np.ndarray]:
        """The objective's per-example outputs over the rows of a split, in order; empty where it has none for them."""
        outputs = self._outputs
        return {} if outputs is None else self.over(examples, lambda batch: outputs(variables, batch))

    def over(self, examples: Source, read: Callable[[Batch], Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """What `read` gives for each example [B …] of a split, in its order; empty where it gives nothing."""
        found = []
        for batch in self._batches(examples):
            given = read(batch)
            if not given:
                return {}
            real = whole(batch["example_mask"])
            found.append({key: whole(value)[real] for key, value in given.items()})
        return {key: np.concatenate([part[key] for part in found]) for key in found[0]}

    def _robustness(self, variables: Variables, *, floors: bool) -> dict[str, Any]:
        split = "test" if "test" in self._dataset.splits else "val"
        copies = perturbed(self._dataset, split, seed=self._seed)
        found = {name: self._score(variables, copies, name) for name in copies.splits if name != "train"}
        scored = {name: each for name, each in found.items() if each is not None}
        return scores.robustness(scored, copies, split, objective=self._name, floors=floors)

    def _score(self, variables: Variables, dataset: Dataset, split: str) -> Scored | None:
        outputs = self.outputs(variables, dataset.splits[split].examples)
        return scores.score(outputs, dataset, split, objective=self._name)

    def _batches(self, examples: Source) -> Iterator[Batch]:
        shardings, size = None, self._batch_size
        for batch in eval_batches(examples, batch_size=size, rows=local_rows(self._layout, size)):
            shardings = shardings or batch_shardings(batch, AXES, self._layout)
            yield put_batch(batch, shardings, batch_size=size)


def evaluate_trained(
    workdir: Path, overrides: Sequence[tuple[str, str]], *, step: int | None, floors: bool
) -> dict[str, Any]:
    """Scores of a finished run's checkpoint; `data.*` overrides read other data, with the run's own tokenizer.

    Raises:
      ValueError: no run or checkpoint there, an override of anything but data and evaluation, or data that do not fit.
    """
    page = provenance.read_config(workdir)
    if page is None:
        raise ValueError(f"--workdir={workdir} holds no run (there is no config.json)")
    if "objective" not in page:
        raise ValueError(
            f"--workdir={workdir} holds no run but published weights; finetune from them, evaluate that run"
        )
    for key, text in overrides:
        if key.split(".")[0] not in ("data", "evaluation", "mesh"):
            raise ValueError(f"--config.{key}: a finished run can change its data, evaluation and mesh, not that")
        if key == "evaluation.forgetting":
            raise ValueError(f"--config.{key}: that is measured where finetuning ends; set it there")
        override(page, PAGE, key=key, text=text)
    trained = open_trained(workdir, step=step)
    assert trained.objective is not None  # a run has one
    given = {}
    if trained.about["tokenizer"]:
        given["tokenizer"] = {"name": "file", "path": str(workdir / "tokenizer.json")}
    given |= sizes_as_read(trained.spec)
    dataset = build(dict(page["data"]) | given, DATA, kind="data")
    if dataset.spec.label_names != trained.spec.label_names:
        raise ValueError(f"the data have labels {dataset.spec.label_names}, the model {trained.spec.label_names}")
    settings: Evaluating = build(page.get("evaluation", {}), {"": Evaluating}, kind="evaluation")
    _check_settings(dataset, trained.about["objective"]["name"], settings)
    layout = make_layout(build(page.get("mesh", {}), {"": MeshShape}, kind="mesh"))
    evaluator = Evaluator(
        trained.objective,
        dataset,
        layout,
        name=trained.about["objective"]["name"],
        seed=page.get("seed", 0),
        batch_size=settings.batch_size or page["batch_size"],
    )
    with layout.active():
        variables = jax.device_put(trained.variables, layout.replicated())
        found = evaluator.all_scores(variables, settings, floors=floors)
        found.pop("exhibits", None)  # of a report, which is not written here
        return {"step": trained.step} | found


def draw_samples(experiment: Experiment, params: Any, texts: Sequence[str]) -> list[dict[str, Any]]:
    """The page's sample texts with their masks filled, or continued; none where the objective does neither."""
    name = experiment.about["objective"]["name"]
    if not texts or name not in ("masked_lm", "causal_lm"):
        return []
    model = _language_model(experiment, params)
    if name == "masked_lm":
        return [{"kind": "fill_mask", **sample} for sample in fill_mask(model, texts)]
    sampling, between = Sampling(max_tokens=min(200, model.length // 2), temperature=0.8), separator(experiment.about)
    if between is not None:
        samples = answer_prompts(model, texts, separator=between, sampling=sampling)
    else:
        samples = generate(model, texts, sampling=sampling)
    return [{"kind": "generate", **sample} for sample in samples]


def check_evaluation(experiment: Experiment, settings: Evaluating) -> None:
    """Raises ValueError where the end, hours later, could not perturb the texts, or not fill or continue a sample."""
    texts = settings.samples
    name = experiment.about["objective"]["name"]
    _check_settings(experiment.dataset, name, settings)
    if not texts or name not in ("masked_lm", "causal_lm"):
        return
    model = _language_model(experiment, {})
    room = model.length - (min(200, model.length // 2) if name == "causal_lm" else 0)
    for text in texts:
        if name == "masked_lm" and not MASK.search(text):
            raise ValueError(f"evaluation.samples: {text!r} has no mask; write <mask> where a token is to be filled in")
        length = len(model.start() + model.encode(MASK.sub("x", text) + (separator(experiment.about) or "")))
        if length > room:
            raise ValueError(f"evaluation.samples: {text!r} has {length} tokens, the model room for {room}; shorten it")


def _check_settings(dataset: Dataset, name: str, settings: Evaluating) -> None:
    field = settings.zero_shot_field
    if field and name not in ("clip", "siglip"):
        raise ValueError(f"evaluation.zero_shot_field={field} classifies pictures by texts, and {name} reads no pairs")
    if field and field not in dataset.splits["val"].fields:
        raise ValueError(f"evaluation.zero_shot_field={field} is no field that is kept; add it to data.slice_fields")
    if settings.robustness and TASKS[name].reads_train:
        raise ValueError(
            f"evaluation.robustness scores what a model says of perturbed texts, and {name} gives vectors; leave it out"
        )
    if settings.robustness:
        check_perturbable(dataset.splits["val"])


def _language_model(experiment: Experiment, params: Any) -> TextModel:
    model = cast(Any, experiment.objective).model  # no part of Objective, but masked_lm and causal_lm have one
    return text_model(model, params, experiment.dataset.spec, experiment.about)
