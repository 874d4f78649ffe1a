"""Verdicts on what jax sees and computes: its devices, the types they multiply, their speed, and a sum over all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from research.checks.accelerators import PLATFORMS, hidden, makers, named_platforms
from research.checks.findings import Finding, warning, wrong
from research.checks.machine import Facts
from research.checks.packages import cuda_wheels, install, suitable_cuda
from research.training.devices import native_dtype, peak_flops

_LEAST_SHARE_OF_PEAK = 0.5
_ONE_DEVICE = "python -m research.pretrain … --config.mesh.devices=1"
_PRODUCTIVE = 1.5  # times as fast as float32: what makes another type worth a flag

_SWITCHES = {
    "JAX_DISABLE_JIT": "nothing is compiled: steps take a hundred times as long",
    "JAX_ENABLE_X64": "numbers become 64 bits wide: slower, and results differ from those of others",
    "JAX_DEBUG_NANS": "every operation is checked and waited for: steps are slow",
}


def check_devices(facts: Facts) -> Iterator[Finding]:
    yield from _switches(facts)
    if facts.probe.devices:
        yield from _seen(facts)
        yield from _dtypes(facts)
        yield from _speed(facts)
        yield from _sum(facts)
    if facts.probe.error:
        yield _failed(facts)


def _switches(facts: Facts) -> Iterator[Finding]:
    for name, harm in _SWITCHES.items():
        value = facts.environment.get(name, "").lower()
        if value not in ("", "0", "false", "f", "no", "n", "off"):
            yield warning(name, value, harm, f"unset {name}")


def _seen(facts: Facts) -> Iterator[Finding]:
    devices = facts.probe.devices
    kinds = Counter((each.kind, each.memory) for each in devices)
    shown = [
        f"{count} x {kind}{f', {memory / 1e9:.1f} GB each' if memory else ''}"
        for (kind, memory), count in kinds.items()
    ]
    found = f"{'; '.join(shown)} ({devices[0].platform})"
    if facts.probe.num_processes > 1:
        found += f", in one of {facts.probe.num_processes} processes"
    on_cpu = all(each.platform == "cpu" for each in devices)
    if on_cpu and makers(facts):
        yield _unseen(facts, found)
    elif not on_cpu and len(devices) < len(facts.gpus) and "CUDA_VISIBLE_DEVICES" not in facts.environment:
        advice = f"nvidia-smi lists {len(facts.gpus)} GPUs; look for the one that does not answer"
        yield wrong("devices of jax", found, advice, "nvidia-smi -q | grep -i -E 'product name|xid|pending|ecc mode'")
    else:
        yield Finding("devices of jax", found)


def _unseen(facts: Facts, found: str) -> Finding:
    """Why an accelerator is there and jax does not see it: the likeliest reason is the one that is looked at first."""
    maker = makers(facts)[0]
    name = {"nvidia": "an NVIDIA GPU", "amd": "an AMD GPU", "tpu": "a TPU"}[maker]
    see = f"this machine has {name}, and jax computes on the CPU: "
    if hidden(facts):
        return wrong("devices of jax", found, see + "JAX_PLATFORMS hides it", "unset JAX_PLATFORMS")
    if maker == "nvidia" and not cuda_wheels(facts):
        command = install(facts, f"-e '.[cuda{suitable_cuda(facts)}]'")
        return wrong("devices of jax", found, see + "its CUDA wheels are not installed", command)
    if maker == "tpu" and "libtpu" not in facts.versions:
        return wrong("devices of jax", found, see + "libtpu is not installed", install(facts, "-e '.[tpu]'"))
    if maker == "amd":
        advice = see + "its plugin is not among the pinned packages (docs.jax.dev, installation, AMD GPU)"
        return wrong("devices of jax", found, advice, "python -m pip install 'jax[rocm7-local]'")
    platform = "tpu" if maker == "tpu" else "cuda"
    advice = see + (facts.probe.complaint or "it says why where it may not fall back")
    return wrong("devices of jax", found, advice, f"JAX_PLATFORMS={platform} python -c 'import jax; jax.devices()'")


def _dtypes(facts: Facts) -> Iterator[Finding]:
    probe, device = facts.probe, facts.probe.devices[0]
    for dtype, reason in probe.refused.items():
        found = f"{dtype}: {reason}"
        yield warning(
            "types", found, "pages that name it cannot run here", "python -m research.pretrain … --config.dtype=float32"
        )
    if not probe.flops:
        return
    scale, unit = (1e12, "TFLOP/s") if max(probe.flops.values()) >= 1e12 else (1e9, "GFLOP/s")
    shown = ", ".join(f"{dtype} {flops / scale:.3g}" for dtype, flops in probe.flops.items())
    auto = native_dtype(device.platform, device.compute_capability)
    found = f"{shown} {unit} of matrix products; dtype=auto is {auto}"
    bfloat16, float32 = probe.flops.get("bfloat16", 0.0), probe.flops.get("float32", 0.0)
    if device.platform == "cpu":
        units = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in facts.cpu_flags]
        found += f"; this CPU has {' and '.join(units) or 'no bfloat16 units'}"
        if bfloat16 > _PRODUCTIVE * float32:
            found += ": --config.matmul_dtype=bfloat16 is faster here"
    yield Finding("types", found)


def _speed(facts: Facts) -> Iterator[Finding]:
    """The speed of the type that dtype=auto chooses, against the chip's data sheet."""
    device = facts.probe.devices[0]
    if device.platform == "cpu":
        return
    dtype = native_dtype(device.platform, device.compute_capability)
    peak, flops = peak_flops(device.kind, dtype), facts.probe.flops.get(dtype)
    if flops is None:
        return
    if peak is None:
        yield Finding("speed", f"{flops / 1e12:.3g} TFLOP/s in {dtype}; the peak of {device.kind} is not known here")
        return
    found = f"{flops / peak:.0%} of the peak of {peak / 1e12:.4g} TFLOP/s in {dtype}"
    if flops >= _LEAST_SHARE_OF_PEAK * peak:
        yield Finding("speed", found)
        return
    advice = "large products usually reach more than half: look for other processes, heat or a limit on power"
    command = "nvidia-smi -q -d PERFORMANCE,POWER,TEMPERATURE" if device.platform == "gpu" else ""
    yield warning("speed", found, advice, command)


def _sum(facts: Facts) -> Iterator[Finding]:
    probe, count = facts.probe, len(facts.probe.devices)
    if count == 1 or probe.error and probe.total is None:
        return
    expected = count * (count + 1) / 2
    found = f"1 + … + {count} over {count} devices is {probe.total:g}" if probe.total is not None else "it gave nothing"
    if probe.total == expected:
        yield Finding("sum over devices", found)
        return
    advice = (
        f"it should be {expected:g}: the links between devices do not work, and no run on several of them can be right"
    )
    command = _ONE_DEVICE
    if probe.devices[0].platform == "gpu":
        command = "NCCL_DEBUG=INFO python -m research.doctor   # until it works: --config.mesh.devices=1"
    yield wrong("sum over devices", found, advice, command)


def _failed(facts: Facts) -> Finding:
    probe, environment = facts.probe, facts.environment
    check, found = "jax", f"{probe.failed_at} failed: {probe.error}"
    if "Unknown flag" in probe.error:
        variable = "LIBTPU_INIT_ARGS" if "LIBTPU_INIT_ARGS" in probe.error else "XLA_FLAGS"
        advice = (
            f"this jaxlib does not know a flag of {variable}={environment.get(variable, '')} and ends every process"
        )
        return wrong(check, found, advice, f"unset {variable}")
    if probe.failed_at == "a sum":
        advice = "several devices cannot exchange numbers; a run on one of them can go on"
        return wrong("sum over devices", found, advice, _ONE_DEVICE)
    if "no answer" in probe.error:
        if "tpu" in makers(facts):
            advice = "where a slice has several hosts, all of them must start at the same time"
            command = "gcloud compute tpus tpu-vm ssh NAME --worker=all --command='… python -m research.doctor'"
            return wrong(check, found, advice, command)
        advice = "a device does not answer; another process may hold it"
        return wrong(check, found, advice, "nvidia-smi" if "nvidia" in makers(facts) else "ps aux --sort=-%cpu | head")
    here = set().union(*(PLATFORMS[maker] for maker in makers(facts)))
    if named_platforms(facts) and named_platforms(facts).isdisjoint(here) and not probe.devices:
        advice = f"JAX_PLATFORMS={environment['JAX_PLATFORMS']} names a platform that is not to be had here"
        return wrong(check, found, advice, "unset JAX_PLATFORMS")
    advice = "the whole message is to be seen by this"
    return wrong(check, found, advice, "python -m research.checks.device_probe")
