"""Verdicts on what is installed: Python, packages against their pins, and the wheels that drive an accelerator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from research.checks.findings import Finding, warning, wrong
from research.checks.machine import Facts

PYTHONS = ("3.11", "3.12", "3.13")

# Those that decide what a run computes; the others of constraints.txt share a row.
_CORE = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy", "ml-collections"),
    *("tokenizers", "tensorstore", "safetensors"),
)
_OPTIONAL = {"torch": "hf", "transformers": "hf"}
_LARGEST_LIST = 6


def check_packages(facts: Facts) -> Iterator[Finding]:
    yield _python(facts)
    pins = read_pins(facts.constraints, facts.python)
    if not pins:
        yield warning(
            "pins",
            "constraints.txt is not beside the package",
            "versions are not compared with those that were tested; run from a checkout",
            "launch/local.sh python -m research.doctor",
        )
    ranges = _ranges(facts.own_requirements, facts.python)
    for name in _CORE:
        yield _package(facts, name, pins.get(name, ""), ranges.get(name))
    yield from _others(facts, pins)
    yield from _jaxlib(facts)
    yield from _cuda_wheels(facts)
    yield from _libtpu(facts, pins)
    for name, extra in _OPTIONAL.items():
        version = facts.versions.get(name)
        yield Finding(name, version or f"not installed (only for convert --verify and the parity tests: extra {extra})")


def install(facts: Facts, what: str) -> str:
    """The command that installs `what` at its pinned version, from the root of the checkout."""
    pip = "python -m pip" if "pip" in facts.versions else "uv pip"
    return f"{pip} install -c constraints.txt {what}"


def uninstall(facts: Facts, *names: str) -> str:
    pip = "python -m pip uninstall -y" if "pip" in facts.versions else "uv pip uninstall"
    return f"{pip} {' '.join(name for name in names if name in facts.versions)}"


def cuda_wheels(facts: Facts) -> list[int]:
    """The CUDA versions, 12 or 13, whose jax plugins are installed."""
    return [cuda for cuda in (12, 13) if f"jax-cuda{cuda}-plugin" in facts.versions]


def read_pins(constraints: str, python: str) -> dict[str, str]:
    """name -> version of the lines that hold for this Python, names in lower case with "-"."""
    found = {}
    for line in constraints.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        requirement = Requirement(line)
        if _holds(requirement, python):
            found[_plain(requirement.name)] = next(iter(requirement.specifier)).version
    return found


def _ranges(requirements: Sequence[str], python: str, extra: str = "") -> dict[str, Requirement]:
    """What the requirements ask for, by name, with this extra."""
    parsed = (Requirement(text) for text in requirements)
    return {_plain(each.name): each for each in parsed if _holds(each, python, extra)}


def _holds(requirement: Requirement, python: str, extra: str = "") -> bool:
    # "extra": one that no package has, so that every requirement of an extra is passed over unless it is asked for.
    about = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python, "extra": extra}
    return requirement.marker is None or requirement.marker.evaluate(about)


def _is(version: str, pin: str) -> bool:
    """Whether it is the pinned version, or a build of it: 2.13.0+cpu is 2.13.0."""
    return SpecifierSet(f"=={pin}").contains(version, prereleases=True)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _python(facts: Facts) -> Finding:
    if any(facts.python.startswith(f"{each}.") for each in PYTHONS):
        return Finding("Python", facts.python)
    return wrong(
        "Python",
        facts.python,
        f"it is tested with Python {PYTHONS[0]} to {PYTHONS[-1]}, and its packages are pinned for these",
        "PYTHON=python3.11 GROUNDWORK_VENV=.venv311 launch/local.sh python -m research.doctor",
    )


def _package(facts: Facts, name: str, pin: str, wanted: Requirement | None) -> Finding:
    found = facts.versions.get(name)
    command = install(facts, name)
    if found is None:
        return wrong(name, "not installed", "no run starts without it", install(facts, "-e ."))
    if wanted is not None and not wanted.specifier.contains(found, prereleases=True):
        return wrong(name, found, f"pyproject.toml asks for {wanted.specifier}", command)
    if pin and not _is(found, pin):
        return warning(name, found, f"it is tested with {pin}, the version of constraints.txt", command)
    return Finding(name, f"{found}, as pinned" if pin else found)


def _others(facts: Facts, pins: Mapping[str, str]) -> Iterator[Finding]:
    ours = {name: pin for name, pin in pins.items() if name not in _CORE and not _drives_devices(name)}
    off = {name: facts.versions[name] for name, pin in ours.items() if not _is(facts.versions.get(name, pin), pin)}
    if off:
        listed = [f"{name} {version} (pinned {pins[name]})" for name, version in off.items()]
        shown = ", ".join(listed[:_LARGEST_LIST]) + (
            f", and {len(listed) - _LARGEST_LIST} more" if listed[_LARGEST_LIST:] else ""
        )
        names = " ".join(off)
        yield warning("other packages", shown, "they are not the versions that were tested", install(facts, names))
    elif ours:
        installed = sum(name in facts.versions for name in ours)
        yield Finding("other packages", f"{installed} of them, as pinned")


def _drives_devices(name: str) -> bool:
    return name.startswith("jax-cuda") or name == "libtpu"


def _jaxlib(facts: Facts) -> Iterator[Finding]:
    """jaxlib against what the installed jax itself asks for."""
    jax, jaxlib = facts.versions.get("jax"), facts.versions.get("jaxlib")
    wanted = _ranges(facts.jax_requirements, facts.python).get("jaxlib")
    if jax is None or jaxlib is None or wanted is None:
        return
    if wanted.specifier.contains(jaxlib, prereleases=True):
        yield Finding("jaxlib for jax", f"jax {jax} takes jaxlib {jaxlib}")
    else:
        yield wrong(
            "jaxlib for jax",
            f"jax {jax} with jaxlib {jaxlib}",
            f"this jax asks for jaxlib{wanted.specifier}",
            install(facts, "jax jaxlib"),
        )


def _cuda_wheels(facts: Facts) -> Iterator[Finding]:
    installed, jaxlib = cuda_wheels(facts), facts.versions.get("jaxlib")
    if len(installed) > 1:
        yield wrong(
            "CUDA wheels",
            "for CUDA 12 and for CUDA 13",
            "jax loads one of them, and which is chance; keep the one that suits the driver",
            uninstall(facts, *_wheels(12 if suitable_cuda(facts) == 13 else 13)),
        )
        return
    for cuda in installed:
        versions = {name: facts.versions.get(name, "not installed") for name in _wheels(cuda)}
        shown = ", ".join(f"{name} {version}" for name, version in versions.items())
        if set(versions.values()) == {jaxlib}:
            yield Finding("CUDA wheels", shown)
        else:
            advice = f"the plugin and its runtime must be of jaxlib's version, {jaxlib}"
            yield wrong("CUDA wheels", shown, advice, install(facts, f"-e '.[cuda{cuda}]'"))
    if not installed:
        needed = bool(facts.device_files.get("nvidia") or facts.gpus)
        if needed:
            yield wrong(
                "CUDA wheels",
                "not installed",
                "this machine has an NVIDIA GPU, and jax cannot use it without them",
                install(facts, f"-e '.[cuda{suitable_cuda(facts)}]'"),
            )
        else:
            yield Finding("CUDA wheels", "not installed (this machine shows no NVIDIA GPU)")


def _wheels(cuda: int) -> tuple[str, str]:
    return f"jax-cuda{cuda}-plugin", f"jax-cuda{cuda}-pjrt"


def suitable_cuda(facts: Facts) -> int:
    """The CUDA version whose wheels these GPUs and this driver can use; 12 where the driver is not known."""
    # docs.jax.dev/en/latest/installation.html: CUDA 13 takes a driver of 580 and compute capability 7.5.
    capable = all(capability >= 7.5 for capability in capabilities(facts))
    return 13 if capable and driver_major(facts) >= 580 else 12


def driver_major(facts: Facts) -> int:
    """0 where it is not known."""
    return int(facts.driver.split(".")[0]) if facts.driver else 0


def capabilities(facts: Facts) -> list[float]:
    """The compute capability of each NVIDIA GPU of which it is known."""
    told = [gpu.compute_capability for gpu in facts.gpus]
    told = told if any(told) else [device.compute_capability for device in facts.probe.devices]
    return [float(each) for each in told if each.replace(".", "", 1).isdigit()]


def _libtpu(facts: Facts, pins: Mapping[str, str]) -> Iterator[Finding]:
    version, has_tpu = facts.versions.get("libtpu"), bool(facts.device_files.get("tpu"))
    if version is None:
        if has_tpu:
            advice = "this machine has a TPU, and jax cannot use it without libtpu"
            yield wrong("libtpu", "not installed", advice, install(facts, "-e '.[tpu]'"))
        else:
            yield Finding("libtpu", "not installed (this machine shows no TPU)")
        return
    wanted = _ranges(facts.jax_requirements, facts.python, "tpu").get("libtpu")
    if wanted is not None and not wanted.specifier.contains(version, prereleases=True):
        yield wrong(
            "libtpu",
            version,
            f"this jax asks for libtpu{wanted.specifier}; with another, programs do not load or cannot be read",
            install(facts, "libtpu"),
        )
    elif not _is(version, pins.get("libtpu", version)):
        yield warning("libtpu", version, f"it is tested with {pins['libtpu']}", install(facts, "libtpu"))
    else:
        yield Finding("libtpu", version if has_tpu else f"{version} (this machine shows no TPU; for compiling ahead)")
