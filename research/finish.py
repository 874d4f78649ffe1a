"""The end of a run: its best step where it stopped early, the final evaluation, samples, and the report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from research import provenance
from research.evaluation import scores
from research.evaluation.report import write_report
from research.evaluator import draw_samples
from research.interop import fingerprint, write_adapters
from research.settings import Evaluating, Saving
from research.training.checkpoint import Checkpoints
from research.training.early_stop import StopEarly
from research.training.hooks import Evaluate, Save
from research.training.log import Log
from research.training.restore import read_params, read_variables
from research.training.sharding import whole
from research.training.state import TrainState, separate, to_evaluate
from research.training.step_folder import is_writer
from research.types import Variables

if TYPE_CHECKING:
    from research.run import Run


def stop_early(
    evaluating: Evaluating, saving: Saving, evaluate: Evaluate, save: Save, *, seen: Sequence[float], linear_probe: bool
) -> StopEarly | None:
    """The hook that ends a run which gets no better; None where the page does not want it."""
    if not evaluating.patience or linear_probe:
        return None
    if not evaluating.every or not saving.keep_best:
        raise ValueError("evaluation.patience needs evaluation.every and checkpoint.keep_best of 1 or more")
    patience = evaluating.patience
    return StopEarly(evaluate, save, metric=saving.metric, mode=saving.best, patience=patience, seen=seen)


def best_state(run: Run, state: TrainState, checkpoints: Checkpoints, log: Log) -> TrainState:
    """The state with the weights of its best step, which is noted as the one that the run ended with."""
    best = checkpoints.choose_best()
    log.say(f"stopped at step {int(state.step)}; the best was step {best}")
    params = read_params(checkpoints.directory, best, like=separate(run.abstract)[0])
    # What changed beside the parameters belongs to that step too: batch statistics of another would not fit them.
    rest = {kind: tree for kind, tree in read_variables(checkpoints.directory, best).items() if kind != "frozen"}
    rest = {kind: jax.device_put(tree, run.shardings.variables[kind]) for kind, tree in rest.items()}
    variables = {**state.variables, **rest, "params": params}
    ema = None if state.ema is None else params
    return dataclasses.replace(state, step=jnp.asarray(best, jnp.int32), variables=variables, ema=ema)


def finish(
    run: Run, state: TrainState, workdir: Path, log: Log, evaluating: Evaluating, started: float
) -> dict[str, Any]:
    """The final evaluation of every split that is not trained on, its floors, samples, result.json and report.html."""
    result: dict[str, Any] = {"step": int(state.step)}
    variables = to_evaluate(state)
    merged = getattr(run.objective, "merged", None)  # LoRA
    params = variables["params"] if merged is None else merged(variables)
    result |= run.evaluator.all_scores(variables, evaluating, floors=evaluating.floors)
    exhibits = result.pop("exhibits", {})
    if run.forgetting is not None:
        result |= run.forgetting.measure(params, run.layout)
    result["shared_rows"] = dict(run.experiment.dataset.facts.get("shared_rows", {}))
    result["first_step_seconds"] = log.first_step_seconds
    result["peak_memory_mb"] = provenance.peak_memory_mb()
    result["wall_seconds"] = time.perf_counter() - started
    if is_writer():
        provenance.write_json(workdir / "result.json", result)
    for line in scores.summary(result):
        log.say(line)
    if exhibits and is_writer():
        provenance.write_json(workdir / "exhibits.json", exhibits)
    _draw(run, params, workdir, log, evaluating)
    if is_writer():
        log.say(f"report: {write_report(workdir)}")
    if run.tuning.lora_rank and run.page.init_from and run.page.weights == "pretrained":
        keep_adapters(run, variables, workdir / "adapters", result)
    if run.page.then:
        log.say("next: " + run.page.then.replace("{workdir}", str(workdir)))
    return result


def keep_adapters(run: Run, variables: Variables, folder: Path, result: dict[str, Any]) -> None:
    """Adapters and head by themselves, to be carried to where the start lies too: `open_trained` takes the folder."""
    params, frozen = (jax.tree.map(whole, variables[kind]) for kind in ("params", "frozen"))
    if is_writer():
        about = {key: value for key, value in run.experiment.about.items() if key != "tokenizer"}
        backbone = fingerprint(frozen["backbone"])
        said = {"base": run.page.init_from, "backbone": backbone, "step": result["step"], "about": about}
        write_adapters(folder, params, said)
        provenance.write_json(folder / "result.json", result)
        if tokenizer := run.experiment.dataset.tokenizer:
            (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")


def _draw(run: Run, params: Any, workdir: Path, log: Log, evaluating: Evaluating) -> None:
    """Samples, kept and said."""
    if evaluating.samples and jax.process_count() > 1:
        log.say("samples are drawn in one process: use predict on this workdir")
        return
    shown = draw_samples(run.experiment, params, evaluating.samples)
    if is_writer():
        provenance.write_json(workdir / "samples.json", shown)
    for sample in shown:
        log.say(f"{sample['kind']}: {sample['input']}  ->  {sample['output']}")
