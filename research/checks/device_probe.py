"""What jax sees and computes here, asked in a process of its own: a wrong flag aborts it, and a lost device hangs it.

python -m research.checks.device_probe [SIZE] prints a JSON object a line for each step that it finished.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DTYPES = ("float32", "bfloat16", "float16")
_SECONDS = 180  # the first contact with a large slice takes a minute
_LONGEST = 600  # characters of a message
_BUSY = 0.1  # seconds that a timing lasts


@dataclass(frozen=True)
class Device:
    """A device of this process. `memory` is what jax may take of it in bytes, 0 where it does not say."""

    kind: str
    platform: str  # as jax says: cpu, gpu, tpu
    memory: int = 0
    compute_capability: str = ""


@dataclass(frozen=True)
class Probe:
    """What the probe found. `error` says why it ended early, and `failed_at` during what."""

    devices: Sequence[Device] = ()
    num_processes: int = 1
    flops: dict[str, float] = field(default_factory=dict)  # by dtype: FLOP/s of a large matrix product on one device
    refused: dict[str, str] = field(default_factory=dict)  # by dtype: why it cannot be multiplied
    total: float | None = None  # the sum over all devices of 1, 2, …; None where there is one device
    error: str = ""
    failed_at: str = ""
    complaint: str = ""  # what jax said of a platform that it passed over


def probe(*, size: int = 0, command: Sequence[str] = (), seconds: float = _SECONDS) -> Probe:
    """Runs this module in a process of its own, with matrices of `size` rows (0: what suits the device)."""
    command = command or (sys.executable, "-m", "research.checks.device_probe", str(size))
    # From anywhere: the child must find this package as its parent did.
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=seconds)
        out, noise, code = done.stdout, done.stderr.decode(errors="replace"), done.returncode
        error = _last_words(noise) or f"exit code {code}" if code else ""
    except subprocess.TimeoutExpired as late:
        out, noise, error = late.stdout or b"", "", f"no answer in {seconds:g} seconds"
    return read(out.decode(errors="replace"), error, complaint=_complaint(noise))


def read(out: str, error: str, *, complaint: str = "") -> Probe:
    """The lines that a probe printed, as one value."""
    found: dict[str, Any] = {"flops": {}, "refused": {}}
    steps = [
        "the first contact with jax's devices",
        *(f"a product of {dtype} matrices" for dtype in DTYPES),
        "a sum",
        "the end",
    ]
    finished = 0
    for line in out.splitlines():
        if not line.startswith('{"step":'):  # libraries print too
            continue
        step = json.loads(line)
        finished += 1
        if step["step"] == "devices":
            found["devices"] = tuple(Device(**each) for each in step["devices"])
            found["num_processes"] = step["num_processes"]
        elif step["step"] == "sum":
            found["total"] = step["total"]
        else:
            kind = "refused" if step["refused"] else "flops"
            found[kind][step["step"]] = step["refused"] or step["flops"]
    failed_at = steps[min(finished, len(steps) - 1)] if error else ""
    return Probe(**found, error=error, failed_at=failed_at, complaint=complaint)


def _last_words(text: str) -> str:
    """Of a traceback or an abort the line that says what happened."""
    lines = _lines(text)
    telling = [line for line in lines if "Error" in line or "Unknown flag" in line]
    return (telling or lines or [""])[-1][:_LONGEST]


def _complaint(text: str) -> str:
    telling = [line for line in _lines(text) if "Unable to initialize backend" in line or "RuntimeError" in line]
    return telling[-1][:_LONGEST] if telling else ""


def _lines(text: str) -> list[str]:
    """Without the dates and places that C++ libraries put before what they log."""
    lines = (re.sub(r"^[DIWEF]\d{4} [\d:.]+\s+\d+ [\w.]+:\d+\] ", "", line.strip()) for line in text.splitlines())
    return [line for line in lines if line]


def steps(size: int) -> Iterator[dict[str, Any]]:
    """Every step's result, as it is done."""
    import jax

    devices = jax.local_devices()
    yield {
        "step": "devices",
        "devices": [
            {
                "kind": device.device_kind,
                "platform": device.platform,
                "memory": int((device.memory_stats() or {}).get("bytes_limit", 0)),
                "compute_capability": str(getattr(device, "compute_capability", "") or ""),
            }
            for device in devices
        ],
        "num_processes": jax.process_count(),
    }
    size = size or suitable_size(devices[0].platform, int((devices[0].memory_stats() or {}).get("bytes_limit", 0)))
    for dtype in DTYPES:
        flops, refused = 0.0, ""
        try:
            flops = matmul_flops(dtype, size)
        except (jax.errors.JaxRuntimeError, NotImplementedError) as problem:
            refused = str(problem).splitlines()[0][:300]
        yield {"step": dtype, "flops": flops, "refused": refused}
    yield {"step": "sum", "total": sum_over(devices) if len(devices) > 1 else None}


def suitable_size(platform: str, memory: int) -> int:
    """Rows of matrices that keep a device busy and leave most of its memory free."""
    if platform == "cpu":
        return 512
    largest = math.isqrt(memory // 64) if memory else 8192  # four float32 matrices in a quarter of it
    return max(256, min(8192, largest // 256 * 256))


def matmul_flops(dtype: str, size: int) -> float:
    """FLOP/s of repeated `size` x `size` products on the first device, at jax's default precision."""
    import jax
    import jax.numpy as jnp

    # A CPU has its speed in bfloat16 only where sums are asked for in float32, as `matmul_dtype` does.
    sums = jnp.float32 if jax.default_backend() == "cpu" else dtype

    @jax.jit
    def repeated(first, second, count):
        def again(_, product):
            return jnp.matmul(product, second, preferred_element_type=sums).astype(dtype)

        return jax.lax.fori_loop(0, count, again, first)

    first, second = (
        # Entries of variance 1/size keep products of products at 1: nothing overflows in float16.
        (jax.random.normal(key, (size, size), jnp.float32) / math.sqrt(size)).astype(dtype)
        for key in jax.random.split(jax.random.key(0))
    )
    jax.block_until_ready(repeated(first, second, 1))
    once = _seconds(lambda: jax.block_until_ready(repeated(first, second, 1)))
    count = max(1, min(1000, round(_BUSY / max(once, 1e-6))))
    best = min(_seconds(lambda: jax.block_until_ready(repeated(first, second, count))) for _ in range(2))
    return 2 * size**3 * count / best


def _seconds(call: Any) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def sum_over(devices: Sequence[Any]) -> float:
    """1 + 2 + … + n by a collective over n devices, each of which holds one number."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, Mesh, PartitionSpec

    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    add = jax.shard_map(
        lambda part: jax.lax.psum(part, "data"), mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec()
    )
    return float(jax.jit(add)(jnp.arange(1, len(devices) + 1, dtype=jnp.float32))[0])


if __name__ == "__main__":
    for result in steps(int(sys.argv[1]) if len(sys.argv) > 1 else 0):
        print(json.dumps(result), flush=True)
