"""Runs of several processes with real collectives: equal to one process, killed, stopped, asked to stop, mismatched."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.pages import ROOT, SMALL

pytestmark = pytest.mark.slow

STEPS = 12
TIMEOUT = 12.0  # seconds until a silent process is given up
PAGE = SMALL | {
    "model.dropout": 0.0,
    "mesh.devices": 0,
    "num_steps": STEPS,
    "evaluation.every": 0,
    "evaluation.samples": "()",
    "checkpoint.every": 3,
    "log.every": 1,
    "log.audit": "true",
    "data.valid_path": "",
}


class Started:
    """The processes of one run, each with so many virtual devices."""

    def __init__(self, corpus: Path, workdir: Path, count: int, devices: int, *, num_started: int = 0, **changes: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.processes = []
        for index in range(num_started or count):
            page = PAGE | {"data.path": corpus} | (changes if index else {})
            flags = [f"--config={ROOT}/configs/quickstart.py:tiny", f"--workdir={workdir}", f"--timeout={TIMEOUT}"]
            flags += [f"--config.{key}={value}" for key, value in page.items()]
            if count > 1:
                flags += [f"--coordinator_address={address}", f"--num_processes={count}", f"--process_id={index}"]
            environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
            command = [sys.executable, "-m", "research.pretrain", *flags]
            pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))  # pyright: ignore

    def end(self) -> list[tuple[int, str]]:
        """Exit code and output of each."""
        found = []
        for process in self.processes:
            text, _ = process.communicate(timeout=300)
            found.append((process.returncode, text))
        return found

    def at_step(self, workdir: Path, step: int) -> None:
        """Returns once that step is logged."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            if len(losses(workdir)) >= step:
                return
            assert all(process.poll() is None for process in self.processes), self.end()
            time.sleep(0.05)
        raise AssertionError(f"step {step} was not reached")


def losses(workdir: Path) -> list[str]:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.dumps(json.loads(line)["train/loss"]) for line in lines if line.endswith("}")]


def numbers(workdir: Path) -> np.ndarray:
    return np.array([float(loss) for loss in losses(workdir)])


def examples(workdir: Path) -> list[list[int]]:
    """The example ids of every step, in the order of the processes; of a step that stands twice the last."""
    ids: dict[int, tuple[str, dict[str, list[int]]]] = {}  # of a step: how many processes, and what each has read
    for path in sorted((workdir / "audit").iterdir(), key=lambda each: each.stat().st_mtime):
        index, _, count = path.stem.partition("-of-")
        for line in path.read_text().splitlines():
            record = json.loads(line)
            before = ids.get(record["step"], ("", {}))
            parts = before[1] if before[0] == count else {}
            ids[record["step"]] = (count, {**parts, index: record["example_ids"]})
    return [sum((parts[index] for index in sorted(parts)), []) for _, (_, parts) in sorted(ids.items())]


@pytest.fixture(scope="module")
def one(corpus, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("one") / "run"
    assert Started(corpus, workdir, 1, 8).end()[0][0] == 0
    return workdir


@pytest.fixture(scope="module")
def two(corpus, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("two") / "run"
    assert [code for code, _ in Started(corpus, workdir, 2, 4).end()] == [0, 0]
    return workdir


def test_two_processes_of_four_devices_give_what_one_of_eight_gives(one, two):
    np.testing.assert_allclose(numbers(two), numbers(one), rtol=1e-5)
    assert examples(two) == examples(one) == [list(range(8 * step, 8 * step + 8)) for step in range(STEPS)]
    assert len(list((two / "audit").iterdir())) == 2
    assert json.loads((two / "result.json").read_text())["val/loss"] == pytest.approx(
        json.loads((one / "result.json").read_text())["val/loss"], rel=1e-5
    )


def test_killed_it_goes_on_with_other_numbers_of_processes_and_devices(corpus, one, tmp_path):
    workdir = tmp_path / "run"
    started = Started(corpus, workdir, 2, 4)
    started.at_step(workdir, random.Random().randint(4, 6))
    started.processes[1].send_signal(signal.SIGKILL)
    (code, said), (killed, _) = started.end()
    assert killed == -signal.SIGKILL
    assert code == 75
    assert "process 1 of 2 was not heard of" in said
    started = Started(corpus, workdir, 1, 4)
    started.at_step(workdir, 8)
    started.processes[0].send_signal(signal.SIGKILL)
    started.end()
    assert [code for code, _ in Started(corpus, workdir, 4, 2).end()] == [0, 0, 0, 0]
    np.testing.assert_allclose(numbers(workdir), numbers(one), rtol=1e-5)
    assert examples(workdir) == examples(one)


def test_killed_and_then_asked_to_stop_it_is_bitwise_the_unbroken_run(corpus, two, tmp_path):
    workdir = tmp_path / "run"
    started = Started(corpus, workdir, 2, 4)
    started.at_step(workdir, random.Random().randint(4, 6))
    for process in started.processes:
        process.send_signal(signal.SIGKILL)
    started.end()
    started = Started(corpus, workdir, 2, 4)
    started.at_step(workdir, 8)
    started.processes[1].send_signal(signal.SIGTERM)
    ended = started.end()
    assert [code for code, _ in ended] == [75, 75]
    assert len({said.split("saved step ")[1].split(";")[0] for _, said in ended}) == 1
    assert len(losses(workdir)) < STEPS
    assert [code for code, _ in Started(corpus, workdir, 2, 4).end()] == [0, 0]
    assert losses(workdir) == losses(two)


def test_a_process_that_hangs_is_named_within_the_set_time(corpus, tmp_path):
    workdir = tmp_path / "run"
    started = Started(corpus, workdir, 2, 4)
    started.at_step(workdir, 3)
    started.processes[1].send_signal(signal.SIGSTOP)
    since = time.monotonic()
    said, _ = started.processes[0].communicate(timeout=10 * TIMEOUT)
    taken = time.monotonic() - since
    started.processes[1].send_signal(signal.SIGKILL)
    started.end()
    assert started.processes[0].returncode == 75
    assert "process 1 of 2 was not heard of" in said
    assert taken < 3 * TIMEOUT


def test_processes_with_other_configs_are_named_before_any_work(corpus, tmp_path):
    ended = Started(corpus, tmp_path / "run", 2, 2, **{"optimizer.peak_rate": "0.5"}).end()
    assert [code for code, _ in ended] == [2, 2]
    assert all("process 1 on" in said and "has another config.optimizer.peak_rate" in said for _, said in ended)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_process_that_does_not_come_is_named(corpus, tmp_path):
    ended = Started(corpus, tmp_path / "run", 3, 2, num_started=2).end()
    assert [code for code, _ in ended] == [1, 1]
    assert all("process 2 of 3 did not come within 12 s" in said for _, said in ended)
