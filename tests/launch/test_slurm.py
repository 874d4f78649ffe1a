"""The Slurm job against stand-in srun and scontrol, two processes of a command that is preempted once."""

import signal
import time

from tests.launch.checkout import HARD, script

# Two tasks; ends with the higher code, as srun does.
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$RECORD/srun"
while [[ $1 = --* ]]; do shift; done
trap 'kill -TERM "${tasks[@]}"' TERM
for task in 0 1; do SLURM_PROCID=$task "$@" & tasks+=($!); done
highest=0
for task in "${tasks[@]}"; do
  until code=0; wait "$task" || code=$?; ! kill -0 "$task" 2>/dev/null; do :; done
  code=0; wait "$task" || code=$?
  [ "$code" -le "$highest" ] || highest=$code
done
exit "$highest"
"""
SCONTROL = '#!/bin/sh\necho "$*" >>"$RECORD/scontrol"\n'


def submit(checkout, *command, **variables):
    script(checkout.bin / "srun", SRUN)
    script(checkout.bin / "scontrol", SCONTROL)
    job = dict(SLURM_JOB_ID="42", SLURM_SUBMIT_DIR=str(checkout.folder)) | variables
    # Slurm runs a copy from a folder of its own.
    copy = script(checkout.record / "slurm_script", (checkout.folder / "launch" / "slurm.sbatch").read_text())
    return checkout.start(str(copy), *command, **job)


def requeued(checkout) -> list[str]:
    kept = checkout.record / "scontrol"
    return kept.read_text().splitlines() if kept.exists() else []


def test_job_queues_again_after_a_preemption_and_ends(checkout):
    first = submit(checkout, checkout.door, *HARD)
    _, errors = first.communicate(timeout=30)
    assert first.returncode == 75
    assert requeued(checkout) == ["requeue 42"]
    assert "back into the queue (1 of 20)" in errors
    second = submit(checkout, checkout.door, *HARD, SLURM_RESTART_COUNT="1")
    second.communicate(timeout=30)
    assert second.returncode == 0
    assert requeued(checkout) == ["requeue 42"]
    for process in "01":
        assert checkout.arguments(process) == [*HARD, "--distributed"]


def test_restarts_are_bounded(checkout):
    job = submit(checkout, "--restarts=3", checkout.door, SLURM_RESTART_COUNT="3")
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 75
    assert requeued(checkout) == []
    assert "submit the same command to go on" in errors


def test_failure_is_not_put_back(checkout):
    job = submit(checkout, "false")
    job.communicate(timeout=30)
    assert job.returncode == 1
    assert requeued(checkout) == []


def test_signal_to_the_batch_shell_reaches_every_process(checkout):
    text = '#!/usr/bin/env bash\ntrap "exit 75" TERM\ntouch "$RECORD/began.$SLURM_PROCID"\n'
    job = submit(checkout, str(script(checkout.bin / "waits", text + "while :; do sleep 0.1; done\n")))
    while len(list(checkout.record.glob("began.*"))) < 2:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=30)
    assert job.returncode == 75
    assert requeued(checkout) == ["requeue 42"]
