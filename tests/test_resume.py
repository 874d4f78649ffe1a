"""A broken run and the unbroken one are the same, to the last bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from research.run import Run
from research.training.log import TIMED_KEYS
from research.training.restore import Restored, read_params
from research.training.step_folder import complete_steps
from research.training_door import run_training
from tests.pages import ROOT, call, small_page


def lines(workdir):
    """metrics.jsonl but for times."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMED_KEYS} for line in found]


def assert_same_run(first, second, step):
    assert lines(first) == lines(second)
    parameters = [read_params(workdir / "checkpoints", step) for workdir in (first, second)]
    for a, b in zip(*map(jax.tree.leaves, parameters), strict=True):
        assert np.array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize("objective", ["masked_lm", "causal_lm"])
def test_a_stopped_and_grown_run_equals_the_unbroken_one(corpus, tmp_path, objective):
    page = small_page(corpus, objective, log__every=4, checkpoint__every=10, evaluation__every=10)
    for workdir, stops in (("unbroken", (24,)), ("broken", (10, 24))):
        for num_steps in stops:
            run_training("pretrain", [*page, f"--workdir={tmp_path / workdir}", f"--config.num_steps={num_steps}"])
    # The first part of the broken run logged its last step, 10; the unbroken run has only evaluated there.
    first, second = lines(tmp_path / "unbroken"), lines(tmp_path / "broken")
    assert [line for line in first if line["step"] > 12] == [line for line in second if line["step"] > 12]
    parameters = [read_params(tmp_path / name / "checkpoints", 24) for name in ("unbroken", "broken")]
    assert all(map(np.array_equal, *map(jax.tree.leaves, parameters)))


def start(arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "research.pretrain", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for(condition, process, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["masked_lm", "causal_lm"])
def test_a_run_killed_after_20_steps_equals_the_unbroken_one_of_50(corpus, tmp_path, objective):
    page = small_page(corpus, objective, num_steps=50, log__every=7, checkpoint__every=20, evaluation__every=20)
    call("pretrain", [*page, f"--workdir={tmp_path / 'unbroken'}"])
    broken = tmp_path / "broken"
    process = start([*page, f"--workdir={broken}"])
    wait_for(lambda: complete_steps(broken / "checkpoints") if (broken / "checkpoints").is_dir() else [], process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    call("pretrain", [*page, f"--workdir={broken}"])
    assert_same_run(tmp_path / "unbroken", broken, 50)


@pytest.mark.slow
def test_ten_random_kills_lose_no_complete_checkpoint(corpus, tmp_path):
    page = small_page(corpus, "masked_lm", num_steps=400, log__every=7, checkpoint__every=1, evaluation__every=0)
    call("pretrain", [*page, f"--workdir={tmp_path / 'unbroken'}"])
    broken, draw, in_a_save = tmp_path / "broken", random.Random(5), 0
    checkpoints = broken / "checkpoints"

    def reached(step):
        return checkpoints.is_dir() and max(complete_steps(checkpoints), default=0) >= step

    for _ in range(10):
        before = max(complete_steps(checkpoints), default=0) if checkpoints.is_dir() else 0
        process = start([*page, f"--workdir={broken}"])
        target = before + draw.randint(1, 8)
        wait_for(lambda target=target: reached(target), process)
        time.sleep(draw.uniform(0, 0.1))
        complete = max(complete_steps(checkpoints))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert max(complete_steps(checkpoints)) >= complete
        in_a_save += any(not (folder / "checksums.json").exists() for folder in checkpoints.iterdir())
    assert in_a_save >= 1
    call("pretrain", [*page, f"--workdir={broken}"])
    assert_same_run(tmp_path / "unbroken", broken, 400)


@pytest.mark.slow
def test_sigterm_saves_and_exits_75_and_the_next_start_continues(corpus, tmp_path):
    page = small_page(corpus, "masked_lm", num_steps=3000, log__every=10, checkpoint__every=0)
    process = start([*page, f"--workdir={tmp_path}"])
    wait_for(lambda: (tmp_path / "metrics.jsonl").exists() and lines(tmp_path), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 75
    step = max(complete_steps(tmp_path / "checkpoints"))
    assert 0 < step < 3000
    done = call("pretrain", [*page, f"--workdir={tmp_path}"])
    assert f"continuing from step {step}" in done.stdout


def test_a_run_whose_labels_have_changed_is_not_continued(tmp_path, monkeypatch):
    """In another order the targets would be other classes, without an error."""
    saved = Restored(3, {}, {}, {}, {}, {"label_names": ["no", "yes"]})
    monkeypatch.setattr("research.run.restore_latest", lambda *arguments, **keywords: saved)
    monkeypatch.setattr("research.run.separate", lambda state: ({}, {}))
    monkeypatch.setattr("research.run.join", lambda params, state: "state")

    def start(names):
        run = SimpleNamespace(abstract=None, experiment=SimpleNamespace(about={"label_names": names}))
        return Run.start(run, tmp_path, fall_back=False)

    assert start(["no", "yes"]) == ("state", {})
    with pytest.raises(ValueError, match=r"the data have labels \['yes', 'no'\], the run so far \['no', 'yes'\]"):
        start(["yes", "no"])
