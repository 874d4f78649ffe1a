"""A plan in words: a table, a verdict in one sentence, and the same as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from research.planning.compiled import Compiled
from research.planning.memory import Host, Memory
from research.planning.roofline import MFU, Bound
from research.planning.topologies import GIB, Topology


@dataclass(frozen=True)
class Plan:
    """All that is known of a run before it starts. FLOPs are the model's, forward and backward."""

    config: str
    topology: Topology
    mesh: Mapping[str, int]
    dtype: str
    num_parameters: int
    flops_per_example: float
    tokens_per_example: int  # 0: not text
    batch_size: int
    num_steps: int
    memory: Memory
    estimated: float  # bytes on one device as the walk of the step has them
    sent: Mapping[tuple[str, str], float]
    bound: Bound
    host: Host
    largest: list[tuple[float, str]] = field(default_factory=list)
    compiled: Compiled | None = None
    reason: str = ""  # why nothing was compiled

    @property
    def fits(self) -> bool:
        refused = self.compiled is not None and bool(self.compiled.refused)
        host = self.host.input + self.host.save
        return not refused and self.memory.total <= self.topology.capacity and host <= self.topology.host_memory

    @property
    def verdict(self) -> str:
        shares = f"{_gib(self.memory.total)} of {_gib(self.topology.capacity)} a device"
        how = "compiled" if self.compiled else "estimated"
        if self.compiled and self.compiled.refused:
            return f"does not fit: the compiler says {self.compiled.refused}"
        if self.memory.total > self.topology.capacity:
            return f"does not fit: {shares} ({how}); --search looks for a mesh, remat and microbatches that do"
        if not self.fits:
            needed = self.host.input + self.host.save
            return f"does not fit: a host would need {_gib(needed)} of its {_gib(self.topology.host_memory)}"
        return f"fits: {shares} ({how})"

    def seconds(self) -> float | None:
        """Of the whole run, at least."""
        return None if self.bound.step is None else self.bound.step * self.num_steps


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON holds it: bytes, seconds, FLOPs."""
    step = plan.bound.step
    memory = {item.name: getattr(plan.memory, item.name) for item in dataclasses.fields(plan.memory)}
    found: dict[str, Any] = {
        "config": plan.config,
        "topology": plan.topology.name,
        "devices": plan.topology.num_devices,
        "mesh": {axis: size for axis, size in plan.mesh.items() if size > 1},
        "dtype": plan.dtype,
        "fits": plan.fits,
        "verdict": plan.verdict,
        "parameters": plan.num_parameters,
        "flops_per_example": plan.flops_per_example,
        "mfu_formula": MFU,
        "batch_size": plan.batch_size,
        "num_steps": plan.num_steps,
        "memory": {**memory, "gradients": plan.memory.gradients, "total": plan.memory.total},
        "memory_estimated": plan.estimated,
        "capacity": plan.topology.capacity,
        "host": {**dataclasses.asdict(plan.host), "capacity": plan.topology.host_memory},
        "sent": [{"kind": kind, "axes": axes, "bytes": size} for (kind, axes), size in sorted(plan.sent.items())],
        "bound": {**dataclasses.asdict(plan.bound), "step": step, "limited_by": plan.bound.limited_by},
        "largest": [{"bytes": size, "what": what} for size, what in plan.largest],
    }
    if step is not None:
        found["examples_per_second"] = plan.batch_size / step
        found["hours"] = step * plan.num_steps / 3600
        found["chip_hours"] = found["hours"] * plan.topology.num_chips
    if plan.compiled is None:
        found["not_compiled"] = plan.reason
    else:
        found["compiled"] = {
            "seconds": plan.compiled.seconds,
            "arguments": plan.compiled.arguments,
            "temporary": plan.compiled.temporary,
            "refused": plan.compiled.refused,
            "rematerializations": list(plan.compiled.rematerializations),
        }
    return found


def table(plan: Plan) -> str:
    """The plan as lines of text, the verdict last."""
    topology, memory = plan.topology, plan.memory
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1) or "one device"
    chips = f"{topology.num_devices} x {topology.chip.kind}, {topology.num_hosts} hosts"
    rows = [
        ("config", f"{plan.config}, {plan.dtype}"),
        ("topology", f"{topology.name}: {chips}; mesh {mesh}"),
        ("parameters", f"{plan.num_parameters / 1e6:,.1f} M"),
        ("model FLOPs", _flops(plan)),
        ("", ""),
        ("a device", f"of {_gib(topology.capacity)}"),
        ("  parameters", _gib(memory.parameters)),
        ("  optimizer", _gib(memory.optimizer)),
    ]
    if memory.average:
        rows.append(("  average", _gib(memory.average)))
    rows += [
        ("  other state, batch", _gib(memory.other + memory.batch)),
        ("  gradients", _gib(memory.gradients)),
        ("  activations and temporaries", _gib(memory.temporary - memory.gradients)),
        ("  total", f"{_gib(memory.total)} ({100 * memory.total / topology.capacity:.0f} %)"),
        ("", _source(plan)),
        ("", ""),
        ("a host", f"of {_gib(topology.host_memory)}"),
        ("  input", _gib(plan.host.input)),
        ("  copy while saving", _gib(plan.host.save)),
        ("checkpoint", f"{_gib(plan.host.checkpoint)}, {_time(plan.host.save_seconds)} to write"),
        ("", ""),
        *_sent(plan),
        *_bound(plan),
    ]
    lines = [f"{name:<32}{text}".rstrip() for name, text in rows]
    if plan.largest:
        whose = "largest arrays of the compiled step" if plan.compiled else "held when the step is fullest (estimate)"
        lines += ["", f"{whose}:"] + [f"  {_gib(size):>10}  {what}" for size, what in plan.largest[:8]]
    if plan.compiled and plan.compiled.rematerializations:
        lines += ["", *plan.compiled.rematerializations]
    return "\n".join([*lines, "", plan.verdict])


def _flops(plan: Plan) -> str:
    each = plan.flops_per_example
    if plan.tokens_per_example:
        return f"{each / plan.tokens_per_example:.3g} a token, {each * plan.batch_size:.3g} a step"
    return f"{each:.3g} an example, {each * plan.batch_size:.3g} a step"


def _source(plan: Plan) -> str:
    estimate = f"the estimate without a compiler is {_gib(plan.estimated)}"
    if plan.compiled is None:
        return f"estimated, not compiled: {plan.reason}"
    return f"compiled in {plan.compiled.seconds:.0f} s; {estimate}"


def _sent(plan: Plan) -> list[tuple[str, str]]:
    rows = [
        (f"  {kind}", f"{_gib(size)} a step over {axes}")
        for (kind, axes), size in sorted(plan.sent.items(), key=lambda item: -item[1])
        if size >= 2.0**10
    ]
    how = "in the compiled step" if plan.compiled and not plan.compiled.refused else "by the rules of sharding"
    return [("sent by a device", how if rows else "nothing"), *rows, ("", "")]


def _bound(plan: Plan) -> list[tuple[str, str]]:
    bound, step = plan.bound, plan.bound.step
    if step is None:
        return [("time", f"n/a: what a {plan.topology.chip.kind} can do in {plan.dtype} is not known")]
    rate = plan.batch_size / step
    speed = (
        f"{rate:,.0f} examples/s" if not plan.tokens_per_example else f"{rate * plan.tokens_per_example:,.0f} tokens/s"
    )
    hours = step * plan.num_steps / 3600
    parts = {"compute": bound.compute, "memory": bound.memory} | {f"over {k}": v for k, v in bound.sending.items()}
    said = ", ".join(f"{name} {_time(seconds)}" for name, seconds in parts.items() if seconds)
    return [
        ("a step takes at least", f"{_time(step)}, limited by {bound.limited_by} ({said})"),
        ("MFU at most", f"{100 * (bound.mfu or 0):.1f} %: {MFU}"),
        ("speed at most", speed),
        (
            "the run at least",
            f"{hours:,.1f} h, {hours * plan.topology.num_chips:,.0f} chip-hours, {plan.num_steps} steps",
        ),
    ]


def _gib(size: float) -> str:
    if size < 2.0**20:
        return f"{size / 2.0**10:.1f} KiB"
    return f"{size / 2.0**20:.1f} MiB" if size < GIB else f"{size / GIB:,.2f} GiB"


def _time(seconds: float) -> str:
    if seconds < 1.0:
        return f"{1e3 * seconds:.3g} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
