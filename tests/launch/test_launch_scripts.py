"""All scripts of launch/: they parse, lint, print what they would run, and refuse bad usage in a sentence."""

import difflib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.launch.checkout import HARD, ROOT

SCRIPTS = sorted(path for path in (ROOT / "launch").rglob("*") if path.suffix in (".sh", ".sbatch"))
DOOR = ("python", "-m", "research.pretrain", "--config=configs/quickstart.py")
TPU = ("launch/tpu_vm.sh", "--name=mlm", "--zone=us-west4-a")
GKE = ("launch/gke/launch.sh", "--name=mlm", "--image=europe-docker.pkg.dev/p/r/groundwork:1")
JOB = {"SLURM_JOB_ID": "42", "SLURM_GPUS_ON_NODE": "4", "SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "8"}

GOLDEN = {
    "processes": (("launch/processes.sh", "--port=12355", "--dry-run", "2", *DOOR, *HARD), {}),
    "slurm_gpus": (("bash", "launch/slurm.sbatch", "--dry-run", *DOOR, *HARD), JOB),
    "slurm_cpus": (("bash", "launch/slurm.sbatch", "--restarts=3", "--dry-run", *DOOR), {}),
    "tpu_vm": (
        (*TPU, "--type=v5litepod-16", "--spot", "--dry-run", "--", *DOOR, "--workdir=gs://bucket/mlm", *HARD),
        {},
    ),
    "tpu_vm_slices": (
        (
            *TPU,
            "--type=v6e-256",
            "--slices=2",
            "--project=p",
            "--keep",
            "--repo=https://example.org/groundwork.git",
            "--setup=sudo mount /disk",
            "--create-flag=--network=n",
            "--dry-run",
            "--",
            *DOOR,
            "--workdir",
            "/disk/mlm",
        ),
        {},
    ),
    "gke": ((*GKE, "--type=tpu-v5-lite-podslice", "--topology=4x4", "--dry-run", "--", *DOOR, *HARD), {}),
    "gke_slices": (
        (*GKE, "--type=tpu-v4-podslice", "--topology=2x2x4", "--slices=3", "--spot", "--dry-run", "--", *DOOR),
        {},
    ),
}

BAD = [
    (("launch/local.sh",), "which command?"),
    (("launch/local.sh", "--help"), "which command?"),
    (("launch/processes.sh",), "how many processes?"),
    (("launch/processes.sh", "none", "true"), "how many processes?"),
    (("launch/processes.sh", "0", "true"), "how many processes?"),
    (("launch/processes.sh", "2"), "which command?"),
    (("launch/processes.sh", "--retry=2", "2", "true"), "unknown flag --retry=2"),
    (("launch/processes.sh", "--retries=-1", "2", "true"), "--retries=-1 is not a count"),
    (("launch/detached.sh",), "which of start, follow and stop?"),
    (("launch/detached.sh", "start"), "which command?"),
    (("launch/detached.sh", "stop", "it"), "stop takes nothing after it"),
    (("bash", "launch/slurm.sbatch"), "which command?"),
    (("bash", "launch/slurm.sbatch", "--nodes=2", "true"), "unknown flag --nodes=2"),
    (("bash", "launch/slurm.sbatch", "--restarts=many", "true"), "--restarts=many is not a count"),
    (("bash", "launch/slurm.sbatch", "true"), "this is no Slurm job"),
    ((*TPU, "--type=v5litepod-16"), "which command?"),
    (("launch/tpu_vm.sh", "--zone=z", "--type=v4-8", "--", "true"), "--name is missing"),
    (("launch/tpu_vm.sh", "--name=mlm", "--type=v4-8", "--", "true"), "--zone is missing"),
    (("launch/tpu_vm.sh", "--name=mlm", "--zone=z", "--", "true"), "--type is missing"),
    (("launch/tpu_vm.sh", "--name=My_run", "--zone=z", "--type=v4-8", "--", "true"), "--name=My_run"),
    ((*TPU, "--type=v99-8", "--", "true"), "give --runtime-version"),
    ((*TPU, "--type=v4-8", "--slices=two", "--", "true"), "--slices=two is not a whole number"),
    ((*TPU, "--type=v4-8", "--slices=0", "--", "true"), "--slices=0 is no TPU"),
    ((*TPU, "--type=v4-8", "--preemptible", "--", "true"), "unknown flag --preemptible"),
    ((*TPU, "--type=v4-8", "python", "-m", "research.pretrain"), "unknown flag python"),
    ((*TPU, "--type=v4-8", "--", *DOOR, "--workdir=runs/mlm"), "--workdir=runs/mlm lies on the TPU's own disk"),
    ((*TPU, "--type=v4-8", "--", *DOOR, "--workdir", "runs/mlm"), "--workdir=runs/mlm lies on the TPU's own disk"),
    (("launch/gke/launch.sh", "--image=i", "--type=t", "--topology=4x4", "--", "true"), "--name is missing"),
    (("launch/gke/launch.sh", "--name=n", "--type=t", "--topology=4x4", "--", "true"), "--image is missing"),
    ((*GKE, "--topology=4x4", "--", "true"), "--type is missing"),
    ((*GKE, "--type=tpu-v4-podslice", "--", "true"), "--topology is missing"),
    ((*GKE, "--type=tpu-v4-podslice", "--topology=16", "--", "true"), "--topology=16 is not like 4x4"),
    ((*GKE, "--type=t", "--topology=4x4", "--chips-per-host=5", "--", "true"), "--chips-per-host=5 does not divide"),
    ((*GKE, "--type=t", "--topology=4x4"), "which command?"),
    ((*GKE, "--type=t", "--topology=4x4", "--", "a\x07"), "holds a control character"),
    ((*GKE, "--type=t", "--gpus=4", "--", "true"), "unknown flag --gpus=4"),
]


def start(command, variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "GROUNDWORK_EXTRAS"))}
    kept |= {"TMPDIR": "/tmp", "LC_ALL": "C.UTF-8"} | variables
    return subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_parses_and_lints(path):
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_is_strict_and_begins_with_its_usage(path):
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    comment = [line for line in lines[1:15] if not line.startswith("#SBATCH")]
    assert comment[0].startswith("# ") and f"launch/{path.relative_to(ROOT / 'launch')}" in comment[1]
    assert "set -euo pipefail" in lines


@pytest.mark.parametrize("name", GOLDEN)
def test_dry_run_prints_what_it_would_run(name):
    command, variables = GOLDEN[name]
    done = start(command, variables)
    assert (done.returncode, done.stderr) == (0, "")
    found = re.sub(r"\b[0-9a-f]{40}\b", "COMMIT", done.stdout).replace(str(ROOT), "CHECKOUT")
    expected = (Path(__file__).parent / "golden" / f"{name}.txt").read_text()
    assert found == expected, "\n".join(difflib.unified_diff(expected.splitlines(), found.splitlines(), lineterm=""))


@pytest.mark.parametrize(("command", "sentence"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_usage_is_one_sentence_and_code_2(command, sentence):
    done = start(command, {})
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert sentence in line
    assert line.startswith(next(part for part in command if part.startswith("launch/")) + ": ")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"SLURM_NTASKS_PER_NODE": "1"}, "use --ntasks-per-node=4"),
        ({"SLURM_GPUS_PER_TASK": "1"}, "--gpus-per-task hides GPUs from jax"),
        ({"SLURM_SUBMIT_DIR": "/"}, "submit from the root of the checkout"),
    ],
)
def test_slurm_refuses_a_job_that_jax_cannot_use(variables, sentence):
    done = start(("bash", "launch/slurm.sbatch", *DOOR), JOB | variables)
    assert done.returncode == 2
    assert sentence in done.stderr
