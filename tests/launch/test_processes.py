"""Several processes on one machine: what they are given, what they end with, and that none stays behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.launch.checkout import HARD, ROOT, script


def test_processes_get_their_place_and_start_again_after_a_preemption(checkout):
    done = checkout.run("launch/processes.sh", "--retries=1", "2", checkout.door, *HARD)
    assert done.returncode == 0, done.stderr
    assert "preempted and saved; starting again (1 of 1)" in done.stderr
    addresses = set()
    for process in "01":
        assert f"{process}| process {process} speaks" in done.stdout.splitlines()
        *given, address, number, index = checkout.arguments(process)
        assert given == HARD
        assert (number, index) == ("--num_processes=2", f"--process_id={process}")
        addresses.add(address)
    [address] = addresses
    assert re.fullmatch(r"--coordinator_address=127\.0\.0\.1:\d+", address)


def test_retries_end(checkout):
    door = script(checkout.bin / "always", "#!/bin/sh\necho ran\nexit 75\n")
    done = checkout.run("launch/processes.sh", "--retries=1", "2", str(door))
    assert done.returncode == 75
    assert done.stdout.count("ran") == 4


@pytest.mark.parametrize(("codes", "expected"), [((0, 0), 0), ((0, 3), 3), ((3, 75), 75), ((75, 3), 75), ((2, 0), 2)])
def test_code_is_75_or_the_first_bad_one(checkout, codes, expected):
    # Together, so that none is ended for the other's sake.
    text = '#!/usr/bin/env bash\ntouch "$RECORD/${@: -1}"\n'
    text += 'until [ "$(ls "$RECORD" | wc -l)" = 2 ]; do sleep 0.05; done\n'
    text += "case ${@: -1} in " + " ".join(f"*={index}) exit {code} ;;" for index, code in enumerate(codes)) + " esac\n"
    door = script(checkout.bin / "codes", text)
    assert checkout.run("launch/processes.sh", "2", str(door)).returncode == expected


def test_others_end_with_the_one_that_fails_and_leave_nothing_behind(checkout):
    text = '#!/usr/bin/env bash\ncase ${@: -1} in *=0) exit 3 ;; esac\nsleep 600 & echo $! >"$RECORD/child"\nwait\n'
    text = text.replace("exit 3", 'until [ -e "$RECORD/child" ]; do sleep 0.1; done; exit 3')
    done = checkout.run("launch/processes.sh", "2", str(script(checkout.bin / "uneven", text)))
    assert done.returncode == 3
    child = int((checkout.record / "child").read_text())
    for _ in range(50):
        if not running(child):
            break
        time.sleep(0.1)
    assert not running(child)


def test_signal_reaches_every_process_and_ends_the_retries(checkout):
    text = '#!/usr/bin/env bash\ntrap "exit 75" TERM\ntouch "$RECORD/${@: -1}"\nwhile :; do sleep 0.1; done\n'
    started = checkout.start("launch/processes.sh", "--retries=5", "2", str(script(checkout.bin / "waits", text)))
    while len(list(checkout.record.iterdir())) < 2:
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    _, errors = started.communicate(timeout=30)
    assert started.returncode == 75
    assert "starting again" not in errors


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    return not stat.strip().startswith("Z")


@pytest.mark.slow
def test_door_trains_the_same_on_two_processes_as_on_one(tmp_path):
    door = [sys.executable, "-m", "research.pretrain"]
    kept = os.environ | {"JAX_PLATFORMS": "cpu"}
    run = dict(cwd=ROOT, capture_output=True, text=True, timeout=600)
    flags = subprocess.run([*door, "--help"], env=kept, **run).stdout
    if "--coordinator_address" not in flags:
        pytest.skip("this door has no --coordinator_address")
    losses = {}
    for number, devices in ((1, 2), (2, 1)):
        workdir = tmp_path / str(number)
        command = [*door, "--config=configs/quickstart.py:tiny", f"--workdir={workdir}"]
        if number > 1:
            command = ["launch/processes.sh", str(number), *command]
        devices_flag = f"--xla_force_host_platform_device_count={devices}"
        done = subprocess.run(command, env=kept | {"XLA_FLAGS": devices_flag}, **run)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (workdir / "result.json").is_file()
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        losses[number] = {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}
    assert losses[1]
    assert losses[2] == pytest.approx(losses[1], rel=1e-4)
