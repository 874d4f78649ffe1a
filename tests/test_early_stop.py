"""Early stopping: where it stops, what the run then gives, and that an interrupted run ends the same."""

import json
import shutil

import jax
import numpy as np
import pytest

from research.trained import open_trained
from research.training.early_stop import StopEarly
from research.training_door import run_training
from tests.pages import small_page


class Fixed:
    """Stands for Evaluate: the value of each step."""

    latest = (-1, {})


class Saved:
    def __init__(self):
        self.steps = []

    def save(self, step, state):
        self.steps.append(step)


@pytest.mark.parametrize(
    ("mode", "values", "stop", "saved"),
    [
        ("max", [1.0, 3.0, 2.0, 3.0, 4.0], 4, [1, 2, 4]),
        ("min", [3.0, 2.0, 2.5, 1.0, 1.5, 2.0, 0.0], 6, [1, 2, 4, 6]),
        ("min", [1.0, float("nan"), 0.5], None, [1, 3]),
    ],
)
def test_it_stops_after_two_evaluations_without_a_better_one(mode, values, stop, saved):
    evaluate, save = Fixed(), Saved()
    hook = StopEarly(evaluate, save, metric="val/x", mode=mode, patience=2, seen=[])
    ended = None
    for step, value in enumerate(values, start=1):
        evaluate.latest = (step, {"val/x": value})
        if hook(step, None, {}):
            ended = step
            break
    assert ended == stop and save.steps == saved
    again = StopEarly(evaluate, save, metric="val/x", mode=mode, patience=2, seen=values[:stop])
    assert again.done == (stop is not None)


def test_a_metric_that_is_not_measured_is_named():
    evaluate = Fixed()
    evaluate.latest = (1, {"val/loss": 1.0})
    hook = StopEarly(evaluate, Saved(), metric="val/beauty", mode="max", patience=1, seen=[])
    with pytest.raises(ValueError, match="metric='val/beauty' is not measured; use one of val/loss"):
        hook(1, None, {})


@pytest.fixture(scope="module")
def stopped(corpus, tmp_path_factory):
    """A run whose rate is far too high: its validation loss soon rises."""
    workdir = tmp_path_factory.mktemp("early") / "run"
    return workdir, train(corpus, workdir)


def train(corpus, workdir, **more):
    changes = {
        "optimizer__peak_rate": 0.3,
        "evaluation__every": 1,
        "evaluation__patience": 2,
        "evaluation__samples": "()",
    }
    changes |= {"num_steps": 40, "checkpoint__keep_latest": 3} | more
    run_training("pretrain", [*small_page(corpus, "causal_lm", **changes), f"--workdir={workdir}"])
    return json.loads((workdir / "result.json").read_text())


def losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}


def test_a_run_gives_its_best_step(stopped):
    workdir, result = stopped
    found = losses(workdir)
    best = min(found, key=found.get)
    assert max(found) == best + 2 < 40
    assert result["step"] == best and result["val/loss"] == pytest.approx(found[best], abs=1e-6)
    assert open_trained(workdir).step == best
    newest = open_trained(workdir, step=best + 2)
    pairs = zip(jax.tree.leaves(open_trained(workdir).params), jax.tree.leaves(newest.params), strict=True)
    assert any(not np.array_equal(first, second) for first, second in pairs)


@pytest.mark.slow
def test_the_same_command_again_trains_no_further(stopped, corpus):
    workdir, result = stopped
    before = losses(workdir)
    again = train(corpus, workdir)
    assert losses(workdir) == before
    assert again["step"] == result["step"] and again["val/loss"] == result["val/loss"]


@pytest.mark.slow
def test_an_interrupted_run_stops_where_the_whole_one_did(stopped, corpus, tmp_path):
    workdir, result = stopped
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    (copy / "result.json").unlink()
    (copy / "checkpoints" / "chosen.json").unlink()
    shutil.rmtree(copy / "checkpoints" / str(result["step"] + 2))
    assert train(corpus, copy)["step"] == result["step"]
    assert losses(copy) == losses(workdir)


@pytest.mark.parametrize("metric", ["val/beauty", "test/loss"])
def test_a_metric_that_nothing_measures_is_refused_before_the_first_step(corpus, tmp_path, metric):
    with pytest.raises(ValueError, match=f"checkpoint.metric='{metric}' is not measured; use one of val/accuracy, "):
        train(corpus, tmp_path / "x", checkpoint__metric=metric)
    assert not (tmp_path / "x" / "metrics.jsonl").exists()


def test_patience_needs_evaluations(corpus, tmp_path):
    with pytest.raises(ValueError, match="evaluation.patience needs evaluation.every"):
        train(corpus, tmp_path / "x", evaluation__every=0)
