"""The hall's other half: an experiment on its devices, from the first batch to the last checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from research import provenance
from research.batch import Example
from research.build import build
from research.data.stream import TrainStream
from research.evaluator import Evaluator, check_evaluation
from research.experiment import Experiment
from research.finish import best_state, finish, stop_early
from research.forgetting import open_forgetting
from research.prepared import check_batch, prepare
from research.probing import check_probe, solve
from research.settings import Evaluating, Logging, Saving, Tuning
from research.training.audit import Audit
from research.training.checkpoint import Checkpoints
from research.training.devices import peak_flops
from research.training.diagnosis import first_bad_layer
from research.training.hooks import Evaluate, Save, StopAtBadStep
from research.training.log import Log
from research.training.loop import fit
from research.training.optimizer import OPTIMIZERS
from research.training.restore import restore_latest
from research.training.sharding import MeshShape, local_rows, make_layout, put_batch
from research.training.state import TrainState, init_state, join, separate, to_evaluate
from research.training.step_folder import is_writer
from research.types import Batch


class Run:
    """An experiment with its mesh, shardings and compiled steps."""

    def __init__(self, experiment: Experiment) -> None:
        page = experiment.page
        self.experiment, self.page, self.objective = experiment, page, experiment.objective
        self.layout = layout = make_layout(build(page.mesh, {"": MeshShape}, kind="mesh"))
        self.tuning: Tuning = build(page.tuning, {"": Tuning}, kind="tuning")
        if self.tuning.linear_probe:
            check_probe(experiment.about["head"], experiment.about["objective"]["name"])
        check_batch(page, layout)
        examples = experiment.dataset.splits["train"].examples
        rows = local_rows(layout, page.batch_size)
        self.stream = TrainStream(examples, seed=page.seed, batch_size=page.batch_size, rows=rows)
        first = self.stream.batch_at(0)
        prepared = prepare(page, self.objective, first, layout)
        self._batch_shardings = prepared.batch_shardings
        self.first_batch = self._put(first)
        self.optimizer, self._transform = prepared.optimizer, prepared.transform
        self.abstract, self.shardings = prepared.abstract, prepared.shardings
        self.train_step = prepared.train_step
        self.saving: Saving = build(page.checkpoint, {"": Saving}, kind="checkpoint")
        settings: Evaluating = build(page.evaluation, {"": Evaluating}, kind="evaluation")
        self.forgetting = open_forgetting(experiment, settings.forgetting)
        self.evaluator = Evaluator(
            self.objective,
            experiment.dataset,
            layout,
            name=experiment.about["objective"]["name"],
            seed=page.seed,
            batch_size=settings.batch_size or page.batch_size,
        )

    def start(self, directory: Path, *, fall_back: bool) -> tuple[TrainState, dict[str, Any] | None]:
        """The newest checkpoint's state and host part, or a fresh state and None."""
        params, rest = separate(self.abstract)
        restored = restore_latest(directory, params=params, state=rest, fall_back=fall_back)
        if restored is not None:
            given = list(self.experiment.about["label_names"])
            known = list(restored.about.get("label_names", given))
            if known != given:
                raise ValueError(f"the data have labels {given}, the run so far {known}; use a new --workdir")
            return join(restored.params, restored.state), restored.host
        origin = self.experiment.origin
        given = None
        if origin is not None and self.page.weights == "pretrained":
            given = origin.to_start(self.experiment.about["head"], frozen="frozen" in self.abstract.variables)
        state = init_state(
            self.objective,
            self._transform,
            self.first_batch,
            seed=self.page.seed,
            shardings=self.shardings,
            given=given,
        )
        return state, None

    def batches(self, *, start: int, audit: Audit | None = None) -> Iterator[Batch]:
        """Global batches from the example `start` on, on the devices."""
        for step, batch in enumerate(self.stream.batches(start=start), start // self.page.batch_size + 1):
            if audit is not None:
                audit.write(step, batch["example_id"])
            yield self._put(batch)

    def _put(self, batch: Example) -> Batch:
        return put_batch(batch, self._batch_shardings, batch_size=self.page.batch_size)

    def evaluate(self, state: TrainState, log: Log) -> dict[str, float]:
        """The validation split, while training; a collapse is said as soon as it is seen."""
        variables = to_evaluate(state)
        found = self.evaluator.while_training(variables, ranked_by=self.saving.metric)
        collapse = found.pop("collapse", "")
        if collapse:
            log.say(
                f"COLLAPSE at step {int(state.step)}: {collapse}; lower optimizer.peak_rate, or look at "
                "the augmentation with `python -m research.inspect --workdir=…`"
            )
        return found

    def explain(self, state: TrainState, bad: int) -> str:
        """What went wrong at step `bad` (counted from 0), by running its batch again."""
        # Layer by layer the step runs eagerly, which arrays that lie in several processes cannot.
        cause = "start it in one process to hear which layer"
        if jax.process_count() == 1:
            batch = self._put(self.stream.batch_at(bad))
            cause = first_bad_layer(self.objective, state, batch, seed=self.page.seed)
        first = bad * self.page.batch_size
        return (
            f"step {bad + 1} is not finite: {cause}; its batch is examples {first} to "
            f"{first + self.page.batch_size - 1}; nothing was updated since and the last checkpoint is good; "
            "lower optimizer.peak_rate or look at that batch with `python -m research.inspect`"
        )

    def describe(self, state: TrainState) -> str:
        count = sum(leaf.size for leaf in jax.tree.leaves(state.variables["params"]))
        device = jax.devices()[0]
        about = self.experiment.about
        return (
            f"{about['objective']['name']} · {about['model']['name']} · {count / 1e6:.2f} M parameters · "
            f"{about['model']['dtype']} · {self.layout.size} x {device.device_kind}"
            + (f" · {mesh}" if (mesh := self.layout.describe()) else "")
        )


def train(experiment: Experiment, workdir: Path, *, command: Sequence[str], started: float) -> dict[str, Any]:
    """Runs an experiment in a workdir, or continues it there; returns what result.json holds."""
    page = experiment.page
    settings: Logging = build(page.log, {"": Logging}, kind="log")
    evaluating: Evaluating = build(page.evaluation, {"": Evaluating}, kind="evaluation")
    check_evaluation(experiment, evaluating)
    run = Run(experiment)
    saving = run.saving
    before = provenance.read_config(workdir)
    kept: dict[str, Any] = {name: getattr(saving, name) for name in ("keep_latest", "keep_best", "metric")}
    kept["mode"] = saving.best
    with run.layout.active(), Checkpoints(workdir / "checkpoints", about=experiment.about, **kept) as checkpoints:
        state, host = run.start(workdir / "checkpoints", fall_back=saving.fall_back)
        if before is not None:
            rates = build(before["optimizer"], OPTIMIZERS, kind="optimizer", num_steps=before["num_steps"]).schedule
            provenance.check_schedule(
                experiment.as_read, before, rates=run.optimizer.schedule, rates_before=rates, step=int(state.step)
            )
        run.evaluator.check_ranking(to_evaluate(state), saving.metric)
        provenance.begin(workdir, experiment.as_read, command=command, dataset=experiment.dataset)
        with _open_log(run, workdir, settings, started) as log:
            if host is not None:
                log.resume(int(state.step), host["window"])
                log.say(f"continuing from step {int(state.step)}")
            log.say(run.describe(state))
            ends = {"num_steps": page.num_steps}
            health = StopAtBadStep(run.explain, every=settings.every, **ends)
            evaluate = Evaluate(lambda state: run.evaluate(state, log), log, every=evaluating.every, **ends)
            save = Save(checkpoints, log, evaluate, health, every=saving.every, batch_size=page.batch_size, **ends)
            kept = {"seen": log.values(saving.metric), "linear_probe": run.tuning.linear_probe}
            early = stop_early(evaluating, saving, evaluate, save, **kept)
            with save:
                audit = Audit(workdir) if settings.audit else None
                batches = log.watch(run.batches(start=int(state.step) * page.batch_size, audit=audit))
                hooks = (log, health, evaluate, save, *([early] if early else []))
                if run.tuning.linear_probe:
                    if host is None:
                        state = solve(run, state, log)
                        save.save(0, state)
                elif early is None or not early.done:
                    state = fit(run.train_step, state, batches, num_steps=page.num_steps, hooks=hooks)
            checkpoints.wait()
            if early is not None:
                state = best_state(run, state, checkpoints, log)
            return finish(run, state, workdir, log, evaluating, started)


def _open_log(run: Run, workdir: Path, settings: Logging, started: float) -> Log:
    peak = peak_flops(jax.devices()[0].device_kind, run.experiment.about["model"]["dtype"])
    return Log(
        workdir,
        every=settings.every,
        num_steps=run.page.num_steps,
        batch_size=run.page.batch_size,
        tokens_per_example=run.experiment.dataset.spec.length,
        rate=run.optimizer.schedule,
        started=started,
        flops_per_example=run.experiment.flops_per_example,
        peak_flops=None if peak is None else peak * run.layout.size,
        tensorboard=settings.tensorboard,
        writes=is_writer(),
    )
