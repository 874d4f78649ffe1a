"""What the doctor knows of a machine: gathered once, as plain values, so that its verdicts can be tested anywhere."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from research.checks.device_probe import Probe
from research.checks.memory import Memory, read_memory

CHECKOUT = Path(__file__).resolve().parents[2]

# Runs a command and gives its exit code and all that it printed; None where there is no such command.
Run = Callable[[Sequence[str]], tuple[int, str] | None]

# The device files that each maker's driver shows. Other devices too are passed through /dev/vfio, so there PCI decides.
_DEVICE_FILES = {"nvidia": ("nvidia[0-9]*", "dxg"), "amd": ("kfd",), "tpu": ("accel[0-9]*",)}
_GOOGLE_PCI_VENDOR = "0x1ae0"
_TPU_LOCK = "tmp/libtpu_lockfile"
# What changes how jax runs; nothing else of the environment is read, as it may hold secrets.
_VARIABLES = re.compile(
    r"(JAX|XLA|LIBTPU|TPU|NCCL|GROUNDWORK|TF_CPP)_\w+|CUDA_VISIBLE_DEVICES|GLIBC_TUNABLES|LD_LIBRARY_PATH|LD_PRELOAD"
    r"|ALLOW_MULTIPLE_LIBTPU_LOAD|(OMP|MKL|OPENBLAS)_NUM_THREADS"
)
_GPU_COLUMNS = ("index", "name", "driver_version", "memory.total", "memory.used", "compute_cap")


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi tells of it before the doctor uses it; memory in bytes, 0 or "" where it does not say."""

    name: str
    memory: int = 0
    used: int = 0
    compute_capability: str = ""


@dataclass(frozen=True)
class Folder:
    """A folder that runs write to; `path` is what exists of it. `error` says why a file could not be written there."""

    wanted: str
    path: str
    free: int
    error: str = ""


@dataclass(frozen=True)
class Facts:
    """All that the verdicts are made from. Sizes are in bytes, limits 0 where there are none or they are unknown."""

    python: str
    constraints: str  # the text of constraints.txt, "" where it is not there
    versions: Mapping[str, str]  # of every installed distribution, names in lower case with "-"
    own_requirements: Sequence[str]  # what this project's and jax's packages ask for, in the form of pip
    jax_requirements: Sequence[str]
    environment: Mapping[str, str]
    workdir: Folder
    cache: Folder
    compiled: Folder | None = None  # where compiled programs are kept, if that is not within the cache
    memory: Memory = field(default_factory=Memory)
    shared_memory: int = 0
    open_files: int = 0
    cores: int = 1
    cpu: str = ""
    cpu_flags: frozenset[str] = frozenset()
    device_files: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by maker
    gpus: Sequence[Gpu] = ()
    driver: str = ""  # NVIDIA's
    nvidia_error: str = ""  # what nvidia-smi said instead of listing GPUs
    tpu_lock_error: str = ""
    tpu_holders: Sequence[int] = ()  # processes, other than this one, that have a TPU open
    probe: Probe = field(default_factory=Probe)


def gather(workdir: Path, *, cache: Path, probe: Callable[[], Probe], run: Run | None = None) -> Facts:
    """Looks at this machine; `probe` is called last, as while it runs the devices are in use."""
    run = run or run_command
    files = device_files(Path("/"))
    gpus, driver, error = read_gpus(run, Path("/"))
    lock_error, holders = read_tpu_lock(Path("/"), files.get("tpu", ()), this_process=os.getpid())
    flags, cpu = read_cpu(Path("/"))
    constraints = CHECKOUT / "constraints.txt"
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
    is_apart = compiled and "://" not in compiled and cache not in Path(compiled).parents
    return Facts(
        python=platform.python_version(),
        constraints=constraints.read_text() if constraints.exists() else "",
        versions=installed_versions(),
        own_requirements=requirements("groundwork"),
        jax_requirements=requirements("jax"),
        environment={name: value for name, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(name)},
        workdir=try_folder(workdir),
        cache=try_folder(cache),
        compiled=try_folder(Path(compiled)) if is_apart else None,
        memory=read_memory(Path("/")),
        shared_memory=shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0,
        open_files=max(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0]),  # -1: unlimited
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        cpu=cpu,
        cpu_flags=flags,
        device_files=files,
        gpus=gpus,
        driver=driver,
        nvidia_error=error if files.get("nvidia") else "",
        tpu_lock_error=lock_error,
        tpu_holders=holders,
        probe=probe(),
    )


def run_command(command: Sequence[str]) -> tuple[int, str] | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, (done.stdout + done.stderr).strip()


def installed_versions() -> dict[str, str]:
    found = {}
    for each in importlib.metadata.distributions():
        name = each.metadata["Name"]
        if name:  # a folder that an interrupted removal left behind has none
            found.setdefault(name.lower().replace("_", "-"), each.version)
    return found


def requirements(distribution: str) -> list[str]:
    try:
        return importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def device_files(root: Path) -> dict[str, list[str]]:
    """The device files of accelerators, by maker: nvidia, amd, tpu."""
    found = {
        maker: sorted(str(path) for pattern in patterns for path in (root / "dev").glob(pattern))
        for maker, patterns in _DEVICE_FILES.items()
    }
    vendors = [path.read_text().strip() for path in (root / "sys/bus/pci/devices").glob("*/vendor")]
    if _GOOGLE_PCI_VENDOR in vendors:
        found["tpu"] += sorted(str(path) for path in (root / "dev/vfio").glob("[0-9]*"))
    return {maker: paths for maker, paths in found.items() if paths}


def read_gpus(run: Run, root: Path) -> tuple[list[Gpu], str, str]:
    """The GPUs of nvidia-smi, the driver's version, and what nvidia-smi said where it failed."""
    error = ""
    for columns in (_GPU_COLUMNS, _GPU_COLUMNS[:-1]):  # drivers before 510 do not know compute_cap
        asked = run(["nvidia-smi", f"--query-gpu={','.join(columns)}", "--format=csv,noheader,nounits"])
        if asked is None:
            error = "nvidia-smi is not installed"
            break
        code, text = asked
        if code == 0:
            rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
            rows = [row for row in rows if len(row) == len(columns)]
            return [_gpu(row) for row in rows], rows[0][2] if rows else "", ""
        error = text.splitlines()[-1] if text else f"exit code {code}"
    kernel = root / "proc/driver/nvidia/version"
    named = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", kernel.read_text()) if kernel.exists() else None
    return [], named.group() if named else "", error


def _gpu(row: Sequence[str]) -> Gpu:
    total, used = (int(cell) * 2**20 if cell.isdigit() else 0 for cell in row[3:5])  # "[N/A]" where it is shared
    capability = row[5] if len(row) > 5 and re.fullmatch(r"\d+\.\d+", row[5]) else ""
    return Gpu(row[1], total, used, capability)


def read_tpu_lock(root: Path, files: Sequence[str], *, this_process: int) -> tuple[str, list[int]]:
    """Why the lock of libtpu cannot be taken by this user, and the other processes that hold it or have a TPU open."""
    lock, holders, error = root / _TPU_LOCK, set[int](), ""
    if lock.exists():
        if not os.access(lock, os.W_OK):
            error = f"{lock} belongs to another user"
        locks = root / "proc/locks"
        for line in locks.read_text().splitlines() if locks.exists() else ():
            fields = line.split()  # 1: POSIX ADVISORY WRITE 1234 08:02:131090 0 EOF
            if len(fields) > 5 and fields[5].endswith(f":{lock.stat().st_ino}"):
                holders.add(int(fields[4]))
    for process in (root / "proc").glob("[0-9]*") if files else ():
        if not set(files).isdisjoint(_links(process / "fd")):
            holders.add(int(process.name))
    return error, sorted(holders - {this_process})


def _links(folder: Path) -> list[str]:
    try:
        return [os.readlink(path) for path in folder.iterdir()]
    except OSError:  # another user's process, or one that has just ended
        return []


def read_cpu(root: Path) -> tuple[frozenset[str], str]:
    """The CPU's flags and name; nothing where the kernel does not tell."""
    path = root / "proc/cpuinfo"
    text = path.read_text() if path.exists() else ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    name = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return frozenset(flags.group(1).split() if flags else ()), name.group(1) if name else platform.machine()


def try_folder(wanted: Path) -> Folder:
    """Writes a file where the folder is, or will be made, and deletes it again."""
    path = wanted.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    error = ""
    try:
        if not path.is_dir():
            raise NotADirectoryError(20, f"{path} is a file")
        with tempfile.NamedTemporaryFile(dir=path, prefix=".doctor-") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        error = problem.strerror or str(problem)
    return Folder(str(wanted), str(path), shutil.disk_usage(path).free, error)
