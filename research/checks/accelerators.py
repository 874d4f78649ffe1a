"""Verdicts on accelerators before jax is asked: the driver against the wheels, what hides devices, who uses them."""

from __future__ import annotations

from collections.abc import Iterator

from research.checks.findings import Finding, warning, wrong
from research.checks.machine import Facts
from research.checks.packages import capabilities, cuda_wheels, driver_major, install, uninstall

# docs.jax.dev/en/latest/installation.html: the NVIDIA driver and the compute capability that each CUDA's wheels need.
_DRIVERS = {12: 525, 13: 580}
_CAPABILITIES = {12: 5.2, 13: 7.5}
# docs.nvidia.com/deeplearning/cudnn: the releases after 9.10 leave out GPUs before Turing; jax's wheels take 9.10.2.
_LAST_CUDNN_BEFORE_TURING = "9.10.2.21"
_BUSY_SHARE = 0.1

_MAKERS = {"nvidia": "NVIDIA GPU", "amd": "AMD GPU", "tpu": "TPU"}
PLATFORMS = {"nvidia": {"cuda", "gpu"}, "amd": {"rocm", "gpu"}, "tpu": {"tpu"}}


def check_accelerators(facts: Facts) -> Iterator[Finding]:
    yield _what_is_here(facts)
    yield from _nvidia_smi(facts)
    yield from _driver(facts)
    yield from _capability(facts)
    yield from _cudnn(facts)
    yield from _hidden(facts)
    yield from _busy(facts)
    yield from _tpu_lock(facts)


def makers(facts: Facts) -> list[str]:
    """Whose accelerators this machine has: nvidia, amd, tpu."""
    return [maker for maker in _MAKERS if facts.device_files.get(maker) or (maker == "nvidia" and facts.gpus)]


def hidden(facts: Facts) -> list[str]:
    """The makers whose accelerators JAX_PLATFORMS keeps from jax."""
    named = named_platforms(facts)
    if not named or not named <= {"cpu"}.union(*PLATFORMS.values()):  # another plugin may lead to the same devices
        return []
    return [maker for maker in makers(facts) if PLATFORMS[maker].isdisjoint(named)]


def named_platforms(facts: Facts) -> set[str]:
    """Those of JAX_PLATFORMS, by which alone jax then goes."""
    return set(filter(None, facts.environment.get("JAX_PLATFORMS", "").split(",")))


def _what_is_here(facts: Facts) -> Finding:
    counts = {}
    for gpu in facts.gpus:
        about = f"{gpu.name}{f' ({gpu.memory / 1e9:.0f} GB)' if gpu.memory else ''}"
        counts[about] = counts.get(about, 0) + 1
    shown = [f"{count} x {about}" for about, count in counts.items()]
    shown += [f"{_MAKERS[maker]}: {', '.join(files)}" for maker, files in facts.device_files.items() if not shown]
    return Finding("accelerators", "; ".join(shown) or "none: jax computes on the CPU")


def _nvidia_smi(facts: Facts) -> Iterator[Finding]:
    if not facts.nvidia_error:
        return
    if "mismatch" in facts.nvidia_error:
        advice = "the driver was updated and the old one is still loaded; start the machine again"
        yield wrong("nvidia-smi", facts.nvidia_error, advice, "sudo reboot")
    elif "not installed" in facts.nvidia_error:
        yield Finding("nvidia-smi", f"{facts.nvidia_error}: the use of GPU memory is not checked")
    else:
        advice = "the driver does not answer; until it does jax finds no GPU (its log says why)"
        yield wrong("nvidia-smi", facts.nvidia_error, advice, "sudo dmesg | grep -i -E 'nvrm|nvidia'")


def _driver(facts: Facts) -> Iterator[Finding]:
    if "nvidia" not in makers(facts):
        return
    driver = driver_major(facts)
    if not driver:
        yield warning(
            "NVIDIA driver",
            "its version is unknown",
            f"the wheels for CUDA 12 need {_DRIVERS[12]} or newer, those for CUDA 13 {_DRIVERS[13]}",
            "nvidia-smi --query-gpu=driver_version --format=csv",
        )
        return
    for cuda in cuda_wheels(facts) or [12]:
        if driver >= _DRIVERS[cuda]:
            yield Finding("NVIDIA driver", f"{facts.driver}, for CUDA {cuda} (from {_DRIVERS[cuda]})")
            continue
        advice = f"the wheels for CUDA {cuda} need driver {_DRIVERS[cuda]} or newer"
        if driver >= _DRIVERS[12]:
            advice += "; those for CUDA 12 run on this one"
            yield wrong("NVIDIA driver", facts.driver, advice, _switch(facts, 12))
        else:
            advice += "; install a newer driver (on Ubuntu as here, else from nvidia.com/drivers)"
            yield wrong("NVIDIA driver", facts.driver, advice, "sudo ubuntu-drivers install && sudo reboot")


def _switch(facts: Facts, cuda: int) -> str:
    """The command that replaces the wheels of the other CUDA by those of this one."""
    other = 12 if cuda == 13 else 13
    extra = install(facts, f"-e '.[cuda{cuda}]'")
    names = (f"jax-cuda{other}-plugin", f"jax-cuda{other}-pjrt")
    return f"{uninstall(facts, *names)} && {extra}" if other in cuda_wheels(facts) else extra


def _capability(facts: Facts) -> Iterator[Finding]:
    found = capabilities(facts)
    if not found:
        return
    lowest = min(found)
    name = "compute capability"
    for cuda in cuda_wheels(facts) or [12]:
        if lowest >= _CAPABILITIES[cuda]:
            continue
        advice = f"the wheels for CUDA {cuda} need {_CAPABILITIES[cuda]} or more"
        if lowest >= _CAPABILITIES[12]:
            yield wrong(name, f"{lowest}", f"{advice}; those for CUDA 12 run on this GPU", _switch(facts, 12))
        else:
            yield wrong(name, f"{lowest}", f"{advice}: jax does not support this GPU", "export JAX_PLATFORMS=cpu")
        return
    if lowest < 8.0:
        yield warning(
            name,
            f"{lowest}: no bfloat16 units",
            "dtype=auto computes in float32 here; a page that names dtype=bfloat16 is slowed down by it",
            "python -m research.pretrain … --config.dtype=float32",
        )
    else:
        yield Finding(name, f"{lowest}: bfloat16 is native, and dtype=auto chooses it")


def _cudnn(facts: Facts) -> Iterator[Finding]:
    version = facts.versions.get("nvidia-cudnn-cu12", "")
    old = [each for each in capabilities(facts) if each < 7.5]
    if old and 12 in cuda_wheels(facts) and version and _numbers(version) > _numbers(_LAST_CUDNN_BEFORE_TURING):
        yield wrong(
            "cuDNN",
            version,
            f"cuDNN after 9.10 leaves out GPUs of compute capability {min(old)}: convolutions fail on them",
            install(facts, f"'nvidia-cudnn-cu12=={_LAST_CUDNN_BEFORE_TURING}'"),
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _hidden(facts: Facts) -> Iterator[Finding]:
    for maker in hidden(facts):
        yield wrong(
            "JAX_PLATFORMS",
            facts.environment["JAX_PLATFORMS"],
            f"it keeps jax from the {_MAKERS[maker]} that this machine has",
            "unset JAX_PLATFORMS",
        )
    visible = facts.environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and facts.gpus:
        shown = [each for each in visible.split(",") if each.strip() and each.strip() != "-1"]
        if not shown:
            advice = "it hides every GPU from jax"
            yield wrong("CUDA_VISIBLE_DEVICES", repr(visible), advice, "unset CUDA_VISIBLE_DEVICES")
        elif len(shown) < len(facts.gpus):
            advice = f"{len(facts.gpus) - len(shown)} of {len(facts.gpus)} GPUs are hidden from jax"
            yield warning("CUDA_VISIBLE_DEVICES", visible, advice, "unset CUDA_VISIBLE_DEVICES")
    libraries = facts.environment.get("LD_LIBRARY_PATH", "")
    if cuda_wheels(facts) and ("cuda" in libraries.lower() or "cudnn" in libraries.lower()):
        advice = "CUDA libraries found there take the place of those that jax's wheels bring and are tested with"
        yield warning("LD_LIBRARY_PATH", libraries, advice, "unset LD_LIBRARY_PATH")


def _busy(facts: Facts) -> Iterator[Finding]:
    for index, gpu in enumerate(facts.gpus):
        if gpu.memory and gpu.used > _BUSY_SHARE * gpu.memory:
            yield warning(
                "GPU memory",
                f"GPU {index}: {gpu.used / 1e9:.1f} of {gpu.memory / 1e9:.1f} GB in use before the doctor came",
                "jax takes three quarters of a GPU at its start and fails where others have them; end these processes",
                "nvidia-smi --query-compute-apps=pid,used_memory,name --format=csv",
            )
    if facts.gpus and not any(gpu.used > _BUSY_SHARE * gpu.memory for gpu in facts.gpus if gpu.memory):
        yield Finding("GPU memory", "free")


def _tpu_lock(facts: Facts) -> Iterator[Finding]:
    if "tpu" not in makers(facts):
        return
    if facts.tpu_holders:
        listed = " ".join(map(str, facts.tpu_holders))
        advice = "one process at a time can have the chips; wait until it ends, or end it"
        yield wrong("TPU lock", f"held by process {listed}", advice, f"kill {listed}")
    elif facts.tpu_lock_error:
        advice = "libtpu cannot lock the chips and takes them for busy"
        yield wrong("TPU lock", facts.tpu_lock_error, advice, "sudo rm /tmp/libtpu_lockfile")
    else:
        yield Finding("TPU lock", "free")
