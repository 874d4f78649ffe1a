"""The Slurm job and the TPU script around the real door: two processes, twenty steps, preempted once, resumed."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.launch.checkout import ROOT, Checkout, script
from tests.launch.test_slurm import submit
from tests.launch.test_tpu_vm import GCLOUD

pytestmark = pytest.mark.slow

STEPS = 20


def door(workdir: Path) -> list[str]:
    page = {
        "num_steps": STEPS,
        "checkpoint.every": 5,
        "log.every": 1,
        "evaluation.every": 0,
        "evaluation.samples": "()",
    }
    flags = [f"--config.{key}={value}" for key, value in page.items()]
    page_file = ROOT / "configs" / "quickstart.py"
    return [sys.executable, "-m", "research.pretrain", f"--config={page_file}:tiny", f"--workdir={workdir}", *flags]


def steps(workdir: Path) -> list[int]:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return [line["step"] for line in found if "train/loss" in line]


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def environment() -> dict[str, str]:
    one = "--xla_force_host_platform_device_count=1"
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": one,
        "PYTHONPATH": str(ROOT),
        "JAX_COORDINATOR_ADDRESS": free_address(),
        "JAX_NUM_PROCESSES": "2",
    }


def wait_for(workdir: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while len(steps(workdir)) < step:
        assert time.monotonic() < deadline, f"step {step} was not reached"
        time.sleep(0.05)


def test_slurm_job_is_preempted_and_goes_on(checkout: Checkout, tmp_path):
    workdir = tmp_path / "run"
    # Of what srun sets, the number of the task is what the processes need here.
    script(
        checkout.folder / "launch" / "local.sh",
        '#!/usr/bin/env bash\nexport JAX_PROCESS_ID=${SLURM_PROCID:-}\nexec "$@"\n',
    )
    job = submit(checkout, *door(workdir), **environment())
    wait_for(workdir, 7)
    job.send_signal(signal.SIGTERM)
    output, errors = job.communicate(timeout=240)
    assert job.returncode == 75, output + errors
    reached = steps(workdir)
    assert 7 <= len(reached) < STEPS
    again = submit(checkout, *door(workdir), SLURM_RESTART_COUNT="1", **environment())
    output, errors = again.communicate(timeout=240)
    assert again.returncode == 0, output + errors
    assert f"continuing from step {reached[-1]}" in output
    assert steps(workdir) == list(range(1, STEPS + 1))


def test_tpu_run_is_preempted_and_goes_on_by_itself(checkout: Checkout, tmp_path):
    workdir = tmp_path / "run"
    script(
        checkout.folder / "launch" / "local.sh", '#!/usr/bin/env bash\nexport JAX_PROCESS_ID=${WORKER##*-}\nexec "$@"\n'
    )
    script(checkout.bin / "gcloud", GCLOUD)
    script(checkout.bin / "uv", "#!/bin/sh\n")
    checkout.commit()
    flags = ("--name=mlm", "--zone=z", "--type=v5litepod-8", "--poll=0")
    started = checkout.start("launch/tpu_vm.sh", *flags, "--", *door(workdir), **environment())
    wait_for(workdir, 7)
    # What a preemption does to a worker: its processes are asked to end.
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and _is_door(process, workdir):
            os.kill(int(process.name), signal.SIGTERM)
            break
    output, errors = started.communicate(timeout=400)
    assert started.returncode == 0, output + errors
    assert "preempted; starting again (1 of 10)" in errors
    assert steps(workdir) == list(range(1, STEPS + 1))


def _is_door(process: Path, workdir: Path) -> bool:
    try:
        command = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return command[0].endswith(b"python") and f"--workdir={workdir}".encode() in command
