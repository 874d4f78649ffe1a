"""A step compiled ahead of time, for TPU slices that are not here too: its memory, largest arrays, what it sends."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax

from research.planning.collectives import compiled_collectives, computations, shape_bytes, turns
from research.planning.topologies import Topology
from research.planning.values import Sent, no_bytes

REMATERIALIZATION = "Involuntary full rematerialization"

# As jax.experimental.topologies knows the kinds.
_EXTERNAL = {"v7x": "tpu7x"}
_NOT_ARRAYS = {"parameter", "get-tuple-element", "tuple", "bitcast", "while", "constant", "call", "conditional"}
_ASSIGNED = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = ([\w\[\],{}:()\d ]*?) ([a-z][\w-]*)\(")


@dataclass(frozen=True)
class Compiled:
    """Bytes on one device; `temporary` has outputs too that take no input's place. `refused` is what the compiler said
    of a program that does not fit; the figures are 0 then."""

    seconds: float
    arguments: float = 0.0
    temporary: float = 0.0
    largest: list[tuple[float, str]] = field(default_factory=list)  # (bytes, shape and layer)
    sent: Sent = field(default_factory=no_bytes)
    rematerializations: tuple[str, ...] = ()
    refused: str = ""


def has_libtpu() -> bool:
    return importlib.util.find_spec("libtpu") is not None


def tpu_devices(topology: Topology) -> list[Any]:
    """Stand-ins for the devices of a TPU slice, in which libtpu sees what it compiles for."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no question to a metadata server that is not there
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    kind, sides = topology.name.replace(" ", "").rpartition("*")[2].split(":")
    options: dict[str, Any] = {}
    if topology.num_slices > 1:
        options["num_slices"] = topology.num_slices
    if math.prod(topology.shape) < 4:
        options["chips_per_host_bounds"] = [*topology.shape, *[1] * (3 - len(topology.shape))]
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # both cores of a chip are one device
    with stderr_to() as _:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{_EXTERNAL.get(kind, kind)}:{sides}", **options
        )
    devices = list(found.devices)
    assert len(devices) == topology.num_devices, (len(devices), topology)
    return devices


def compile_step(traced: Any, platform: str, mesh: Mapping[str, int]) -> Compiled:
    """Compiles a traced step for the devices of its shardings; `mesh` are the sizes of its axes."""
    started = time.perf_counter()
    jax.config.update("jax_enable_compilation_cache", False)  # a program from there would bring no warnings
    try:
        with stderr_to() as written:
            try:
                lowered = traced.lower(lowering_platforms=("cuda" if platform == "gpu" else platform,))
                compiled = lowered.compile()
            finally:
                log = written()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            print(log, file=sys.stderr)
            raise
        return Compiled(time.perf_counter() - started, refused=_refusal(str(error)))
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    seconds = time.perf_counter() - started
    memory, text = compiled.memory_analysis(), compiled.as_text()
    temporary = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    if platform == "tpu":
        # Its temp_size is up to 1.4 times what the compiler has assigned and says in its own report of memory usage:
        # programs that it accepts would not fit. The peak leaves out the gaps between buffers, 2 to 3 %.
        temporary = memory.peak_memory_in_bytes - memory.argument_size_in_bytes
    return Compiled(
        seconds=seconds,
        arguments=float(memory.argument_size_in_bytes),
        temporary=float(temporary),
        largest=largest_arrays(text),
        sent=compiled_collectives(text, mesh),
        rematerializations=tuple(line for line in log.splitlines() if REMATERIALIZATION in line),
    )


def largest_arrays(text: str, count: int = 12) -> list[tuple[float, str]]:
    """The largest arrays that an HLO module computes, with the layer that each belongs to, from its metadata."""
    parts = computations(text)
    fused = {name for name in parts if name.startswith(("fused_", "wrapped_")) or ".fused" in name or "region_" in name}
    running = {name for name, times in turns(parts).items() if times} - fused
    bodies = {name for line in text.splitlines() for name in re.findall(r"body=%?([\w.-]+)", line)}
    found: dict[str, float] = {}
    for name in (running | (bodies & parts.keys())) & parts.keys():
        for line in parts[name]:
            match = _ASSIGNED.match(line)
            if match is None or match[2] in _NOT_ARRAYS:
                continue
            layer = re.search(r'op_name="([^"]*)"', line)
            shapes = " ".join(re.findall(r"\w+\[[\d,]*\]", match[1]))
            what = f"{shapes} {_layer(layer[1]) if layer else match[2]}"
            found[what] = max(found.get(what, 0.0), shape_bytes(match[1]))
    return sorted(((size, what) for what, size in found.items()), reverse=True)[:count]


@contextmanager
def stderr_to() -> Iterator[Any]:
    """Catches what is written to the file descriptor 2, by C++ too; yields a function that gives it so far."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)

        def written() -> str:
            sys.stderr.flush()
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield written
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def _refusal(message: str) -> str:
    """The sentence with the figures: "Used 20.1G of 15.75G hbm"."""
    match = re.search(r"Used [\d.]+\w? of [\d.]+\w? \w+[^.]*\.", message)
    return match[0] if match else message.splitlines()[0][:300]


def _layer(name: str) -> str:
    """An op_name without what says nothing: `jit(train_step)/…/jvp(Model)/backbone/layers/mlp/…`."""
    return name.replace("jit(train_step)/", "")[-120:]
