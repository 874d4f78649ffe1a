"""The environment that makes jax fast and quiet here: set before jax is imported, where the user has not set it."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

MARK = "GROUNDWORK_TUNED"
_DEVICE_COUNT = "xla_force_host_platform_device_count"
_IN_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"

# What the kernel shows where an accelerator is installed; "[0-9]" passes over the control file /dev/vfio/vfio.
_GPU_FILES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")
_TPU_FILES = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")


def tune(*, virtual_devices: int = 0) -> None:
    """Sets what `defaults` gives and starts this process once more: the C library reads its settings at the start only.

    A process that is tuned already goes on at once (set GROUNDWORK_TUNED=1 to keep the environment as it is), and so
    does one that has imported jax: a test or a notebook that calls a door.
    """
    if os.environ.get(MARK) or "jax" in sys.modules:
        return
    found = platform(os.environ)
    environment = {**defaults(os.environ, found), **os.environ, MARK: "1"}
    if virtual_devices and found == "cpu":
        add_virtual_devices(environment, virtual_devices)
        # Collectives that do not depend on each other would be met in any order, by each device in its own.
        environment["XLA_FLAGS"] += f" {_IN_ORDER}"
        # A thread waits in each collective: with one a device, those that others wait for find none left to run on.
        environment.setdefault("PJRT_NPROC", str(8 * virtual_devices))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not orig_argv[0]: a bare "python" would be looked up again, perhaps outside of this virtual environment.
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def add_virtual_devices(environment: MutableMapping[str, str], count: int) -> None:
    """So many CPU devices, where the environment does not say how many; before jax is imported."""
    flags = environment.get("XLA_FLAGS", "")
    if _DEVICE_COUNT not in flags:
        environment["XLA_FLAGS"] = f"{flags} --{_DEVICE_COUNT}={count}".strip()


def platform(environment: Mapping[str, str]) -> str:
    """ "cpu", "gpu" or "tpu": the first of JAX_PLATFORMS, else what the device files show; "" where that is unknown.

    Only Linux shows device files, so elsewhere (a plugin for another accelerator may be installed) it is unknown.
    """
    named = environment.get("JAX_PLATFORMS", "").split(",")[0]
    if named:
        return "gpu" if named in ("cuda", "rocm") else named
    if sys.platform != "linux":
        return ""
    for name, patterns in (("tpu", _TPU_FILES), ("gpu", _GPU_FILES)):
        if any(glob.glob(pattern) for pattern in patterns):
            return name
    return "cpu"


def defaults(environment: Mapping[str, str], platform: str) -> dict[str, str]:
    """What to set where `environment` does not set it.

    Every compiled program is kept in one folder, so that a second run starts warm; programs of another CPU, flag or jax
    version never match. On the CPU the C library gives large buffers huge pages: fresh ones cost page faults otherwise.
    """
    cache = Path(environment.get("GROUNDWORK_CACHE") or "~/.cache/groundwork").expanduser()
    found = {
        "JAX_COMPILATION_CACHE_DIR": str(cache / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if platform == "cpu":
        found["JAX_PLATFORMS"] = "cpu"  # an installed libtpu would look for its chips, at length and aloud
        if sys.platform == "linux":
            found["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    return found
