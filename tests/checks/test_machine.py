"""Facts are read as the kernel, nvidia-smi and the file system tell them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from research.checks import machine
from research.checks.machine import Gpu
from research.checks.memory import Memory, read_memory

ROOT = Path(__file__).resolve().parents[2]


def write(root: Path, **texts: str) -> Path:
    """Files below `root`; __ stands for a slash."""
    for name, text in texts.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_gpus_are_read_from_nvidia_smi(tmp_path):
    text = "0, NVIDIA H100 80GB HBM3, 580.65.06, 81559, 1023, 9.0\n1, NVIDIA GB10, 580.65.06, [N/A], [N/A], 12.1"
    gpus, driver, error = machine.read_gpus(lambda command: (0, text), tmp_path)
    assert gpus == [
        Gpu("NVIDIA H100 80GB HBM3", 81559 * 2**20, 1023 * 2**20, "9.0"),
        Gpu("NVIDIA GB10", 0, 0, "12.1"),
    ]
    assert (driver, error) == ("580.65.06", "")


def test_an_old_nvidia_smi_is_asked_again_without_the_capability(tmp_path):
    def run(command):
        if "compute_cap" in command[1]:
            return 2, 'Field "compute_cap" is not a valid field to query.'
        return 0, "0, Tesla V100-SXM2-16GB, 470.82.01, 16160, 0"

    gpus, driver, error = machine.read_gpus(run, tmp_path)
    assert gpus == [Gpu("Tesla V100-SXM2-16GB", 16160 * 2**20)] and (driver, error) == ("470.82.01", "")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, "nvidia-smi is not installed"),
        ((18, "Failed to initialize NVML: Driver/library version mismatch"), "NVML"),
    ],
)
def test_without_nvidia_smi_the_kernel_tells_the_driver(tmp_path, answer, error):
    line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build"
    root = write(tmp_path, proc__driver__nvidia__version=line)
    gpus, driver, told = machine.read_gpus(lambda command: answer, root)
    assert gpus == [] and driver == "580.65.06" and error in told


def test_device_files_are_told_by_maker(tmp_path):
    root = write(tmp_path, dev__nvidia0="", dev__nvidia12="", dev__nvidiactl="", dev__vfio__7="", dev__vfio__vfio="")
    assert machine.device_files(root) == {"nvidia": [f"{root}/dev/nvidia0", f"{root}/dev/nvidia12"]}
    write(root, sys__bus__pci__devices__a__vendor="0x1ae0\n")  # Google's: what is passed through is a TPU
    assert machine.device_files(root)["tpu"] == [f"{root}/dev/vfio/7"]


def test_holders_of_a_tpu_are_found_by_lock_and_by_open_file(tmp_path):
    root = write(tmp_path, tmp__libtpu_lockfile="", dev__accel0="")
    inode = (root / "tmp/libtpu_lockfile").stat().st_ino
    write(
        root,
        proc__locks=f"1: POSIX  ADVISORY  WRITE 411 08:02:{inode} 0 EOF\n2: FLOCK ADVISORY WRITE 5 08:02:3 0 EOF\n",
    )
    for process, target in (("422", root / "dev/accel0"), ("433", root / "dev/null"), ("444", root / "dev/accel0")):
        (root / "proc" / process / "fd").mkdir(parents=True)
        (root / "proc" / process / "fd" / "3").symlink_to(target)
    files = machine.device_files(root)["tpu"]
    assert machine.read_tpu_lock(root, files, this_process=444) == ("", [411, 422])


def test_a_folder_that_is_not_there_yet_is_tried_where_it_will_be(tmp_path):
    found = machine.try_folder(tmp_path / "new" / "run")
    assert (found.path, found.error) == (str(tmp_path), "") and found.free > 0
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "run").write_text("")
    assert "is a file" in machine.try_folder(tmp_path / "run").error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_leave_to_write_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    assert machine.try_folder(tmp_path / "run").error == "Permission denied"


MEMINFO = "MemTotal: 1000000 kB\nMemFree: 10 kB\nMemAvailable: 600000 kB\n"


def test_memory_is_limited_by_the_lowest_group_of_version_2(tmp_path):
    root = write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/jobs/mine\n")
    write(
        root, **{"sys__fs__cgroup__jobs__memory.max": "300000000\n", "sys__fs__cgroup__jobs__mine__memory.max": "max\n"}
    )
    write(root, **{"sys__fs__cgroup__jobs__memory.current": "250000000\n"})
    write(root, **{"sys__fs__cgroup__jobs__memory.stat": "anon 1\ninactive_file 50000000\n"})
    found = read_memory(root)
    assert found == Memory(1_024_000_000, 614_400_000, 300_000_000, 200_000_000)
    assert found.usable == 100_000_000


def test_memory_is_limited_by_the_group_of_version_1(tmp_path):
    root = write(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="4:cpu,memory:/job\n0::/\n")
    write(root, **{"sys__fs__cgroup__memory__memory.limit_in_bytes": "9223372036854771712\n"})
    write(root, **{"sys__fs__cgroup__memory__job__memory.limit_in_bytes": "500000000\n"})
    assert read_memory(root).limit == 500_000_000


def test_the_cpu_is_named_with_its_flags(tmp_path):
    root = write(tmp_path, proc__cpuinfo="processor : 0\nmodel name : A CPU\nflags : fpu amx_bf16\nbugs : none\n")
    assert machine.read_cpu(root) == (frozenset({"fpu", "amx_bf16"}), "A CPU")


def test_commands_that_are_not_there_or_fail_are_no_errors():
    assert machine.run_command(["no-such-command-here"]) is None
    assert machine.run_command([sys.executable, "-c", "import sys; print('no'); sys.exit(3)"]) == (3, "no")


def test_the_door_leaves_jax_to_a_process_of_its_own():
    code = "import sys; import research.doctor; print([m for m in ('jax', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
