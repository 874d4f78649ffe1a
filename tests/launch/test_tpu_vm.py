"""The flow on a Cloud TPU against a stand-in gcloud: two workers a slice, preempted, lost, interrupted, refused."""

import signal
import time

import pytest

from tests.launch.checkout import HARD, script

# A queued resource is a file that holds its state; a worker is a folder that is its home.
GCLOUD = """#!/usr/bin/env bash
echo "$3 $4 $5" >>"$RECORD/calls"
cloud=$RECORD/cloud state=$RECORD/state
case "$3 $4" in
  'queued-resources create')
    [ ! -e "$RECORD/refuse" ] || exit 1
    mkdir -p "$cloud" && echo "${GRANTED:-ACTIVE}" >"$state" ;;
  'queued-resources describe') cat "$state" ;;
  'queued-resources delete') rm -r "$cloud" "$state" ;;
  'tpu-vm scp')
    for worker in 0 1; do
      mkdir -p "$cloud/${6%%:*}-$worker" && cp "$5" "$cloud/${6%%:*}-$worker/${6#*:}"
    done ;;
  'tpu-vm ssh')
    for argument in "$@"; do [[ $argument != --command=* ]] || command=${argument#*=}; done
    if [[ $command = *follow && -e $RECORD/drop ]]; then rm "$RECORD/drop"; exit 255; fi
    for worker in 0 1; do
      (cd "$cloud/$5-$worker" && HOME=$PWD WORKER=$5-$worker exec bash -c "$command") & workers+=($!)
    done
    code=0
    for worker in "${workers[@]}"; do wait "$worker" || code=${code/#0/$?}; done
    exit "$code" ;;
esac
"""


@pytest.fixture
def cloud(checkout):
    script(checkout.bin / "gcloud", GCLOUD)
    script(checkout.bin / "uv", "#!/bin/sh\n")
    checkout.commit()
    return checkout


def launch(cloud, *command, flags=()):
    return ("launch/tpu_vm.sh", "--name=mlm", "--zone=z", "--type=v5litepod-8", "--poll=0", *flags, "--", *command)


def calls(cloud, *, of="queued-resources") -> list[str]:
    lines = [line.split() for line in (cloud.record / "calls").read_text().splitlines()]
    return [verb for noun, verb, _ in lines if noun == of and verb != "describe"]


def test_run_that_saved_starts_again_on_the_same_tpu(cloud):
    done = cloud.run(*launch(cloud, cloud.door, *HARD))
    assert done.returncode == 0, done.stderr
    assert "preempted; starting again (1 of 10)" in done.stderr
    assert calls(cloud) == ["create", "delete"]
    assert not (cloud.record / "state").exists()
    for worker in ("mlm-0", "mlm-1"):
        assert f"process {worker} speaks" in done.stdout
        assert cloud.arguments(worker) == [*HARD, "--distributed"]


def test_slices_run_together_and_may_be_kept(cloud):
    door = str(script(cloud.bin / "notes", '#!/bin/sh\ntouch "$RECORD/ran.$WORKER"\n'))
    done = cloud.run(*launch(cloud, door, flags=("--slices=2", "--keep")))
    assert done.returncode == 0, done.stderr
    assert calls(cloud) == ["create"]
    ran = sorted(path.name for path in cloud.record.glob("ran.*"))
    assert ran == ["ran.mlm-0-0", "ran.mlm-0-1", "ran.mlm-1-0", "ran.mlm-1-1"]
    done = cloud.run(*launch(cloud, "true", flags=("--slices=2",)))
    assert done.returncode == 0
    assert "taking over mlm (ACTIVE)" in done.stderr
    assert calls(cloud) == ["create", "delete"]


def test_another_tpu_is_asked_for_after_one_was_preempted(cloud):
    text = '#!/usr/bin/env bash\n[ -e "$RECORD/again" ] && exit 0\nsleep 0.2\ntouch "$RECORD/again"\n'
    lost = str(script(cloud.bin / "lost", text + 'echo SUSPENDED >"$RECORD/state"\nexit 1\n'))
    done = cloud.run(*launch(cloud, lost, flags=("--spot",)))
    assert done.returncode == 0, done.stderr
    assert calls(cloud) == ["create", "delete", "create", "delete"]


def test_retries_are_bounded(cloud):
    done = cloud.run(*launch(cloud, "true", flags=("--retries=2",)), GRANTED="FAILED")
    assert done.returncode == 75
    assert calls(cloud) == ["create", "delete"] * 3


def test_failure_is_learnt_after_a_lost_connection_and_not_tried_again(cloud):
    (cloud.record / "drop").touch()
    done = cloud.run(*launch(cloud, "bash", "-c", "exit 1"))
    assert done.returncode == 1
    assert "the connection was lost; following again" in done.stderr
    assert calls(cloud) == ["create", "delete"]


def test_interrupted_run_is_saved_and_its_tpu_deleted(cloud):
    text = '#!/usr/bin/env bash\ntrap "touch $RECORD/saved.$WORKER; exit 75" TERM\ntouch "$RECORD/began.$WORKER"\n'
    waits = script(cloud.bin / "waits", text + "while :; do sleep 0.1; done\n")
    started = cloud.start(*launch(cloud, str(waits)))
    while len(list(cloud.record.glob("began.*"))) < 2:
        assert started.poll() is None
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    _, errors = started.communicate(timeout=30)
    assert started.returncode == 130, errors
    assert len(list(cloud.record.glob("saved.*"))) == 2
    assert calls(cloud) == ["create", "delete"]


def test_refused_request_deletes_nothing(cloud):
    (cloud.record / "refuse").touch()
    done = cloud.run(*launch(cloud, "true"))
    assert done.returncode == 1
    assert "the request was refused" in done.stderr
    assert calls(cloud) == ["create"]


def test_uncommitted_changes_are_refused(cloud):
    (cloud.folder / "launch" / "local.sh").write_text("changed")
    done = cloud.run(*launch(cloud, "true"))
    assert done.returncode == 2
    assert "changes that are not committed" in done.stderr
    assert not (cloud.record / "calls").exists()
