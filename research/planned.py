"""The hall of `plan`: a page and a topology become the step that the run would compile, and what it will need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from research.batch import Spec
from research.build import build, parameters
from research.expected import Rows, expect
from research.experiment import Page, build_objective, flops_per_example, read_alike
from research.models import ALL_MODELS
from research.planning.compiled import Compiled, compile_step, has_libtpu, tpu_devices
from research.planning.memory import device_memory, host_memory, step_cost
from research.planning.report import Plan
from research.planning.roofline import bound
from research.planning.search import Setting, Traced, search
from research.planning.topologies import Topology
from research.prepared import Prepared, prepare
from research.trained import open_trained
from research.training.sharding import MeshShape
from research.types import Objective


@dataclass(frozen=True)
class Subject:
    """What a page says, opened as far as that goes without its data."""

    page: Page
    objective: Objective
    spec: Spec
    rows: Rows
    flops_per_example: float


def read_subject(as_read: dict[str, Any], *, num_classes: int = 0) -> Subject:
    """The objective with its model, and the shapes of its rows.

    Raises:
      ValueError: anything on the page that cannot work, or a fact that only the data would tell.
    """
    page = Page(**as_read)
    origin = open_trained(Path(page.init_from)) if page.init_from else None
    data = dict(page.data)
    if origin is not None:
        data = read_alike(data, origin, page.init_from)
    expected = expect(data, num_classes=num_classes)
    spec = expected.spec
    if page.objective["name"] in _LABELLED and not spec.label_names:
        raise ValueError(
            f"objective.name={page.objective['name']} needs the number of classes, which only the data tell; give "
            "--num_classes=N"
        )
    objective, about = build_objective(page, spec, None if page.model else origin)
    backbone = build(about["model"], ALL_MODELS, kind="model")
    flops = flops_per_example(objective, backbone, spec, about["head"].get("name", ""))
    return Subject(page, objective, spec, expected.rows, flops)


_LABELLED = ("classification", "multi_label", "tagging")


def make_plan(
    subject: Subject,
    topology: Topology,
    *,
    config: str,
    compiling: str,
    bandwidth: float,
    say: Callable[[str], None],
) -> Plan:
    """The plan of a page on a topology; `bandwidth` of saves in bytes a second.

    `compiling` is "always", "never", or "auto": where it can be done here.

    Raises:
      ValueError: a mesh that does not suit the devices or the model, or a compile that cannot be done here.
    """
    devices, reason = _devices(topology, compiling)
    prepared = prepare_on(subject, devices)
    mesh = dict(prepared.layout.mesh.shape)
    say(f"tracing the step for {topology.num_devices} devices")
    with prepared.layout.active():
        traced = prepared.train_step.trace(prepared.abstract, prepared.batch)
        platform = topology.chip.platform
        cost = step_cost(traced.jaxpr, prepared.abstract, prepared.batch, mesh, platform)
        compiled: Compiled | None = None
        if not reason:
            say("compiling it")
            compiled = compile_step(traced, platform, mesh)
    page = subject.page
    memory = device_memory(prepared.abstract, prepared.batch, mesh, cost.peak)
    estimated, sent, largest = memory.total, cost.sent, cost.largest
    if compiled is not None and not compiled.refused:
        memory = replace(memory, temporary=compiled.temporary)
        sent, largest = compiled.sent, compiled.largest
    model_flops = page.batch_size * subject.flops_per_example
    return Plan(
        config=config,
        topology=topology,
        mesh=mesh,
        dtype=page.dtype,
        num_parameters=sum(leaf.size for leaf in jax.tree.leaves(prepared.abstract.variables["params"])),
        flops_per_example=subject.flops_per_example,
        tokens_per_example=0 if subject.spec.image_size else subject.spec.length,
        batch_size=page.batch_size,
        num_steps=page.num_steps,
        memory=memory,
        estimated=estimated,
        sent=sent,
        bound=bound(cost, model_flops, topology, mesh, page.dtype),
        host=host_memory(prepared.abstract, prepared.batch, topology, bandwidth),
        largest=largest,
        compiled=compiled,
        reason=reason,
    )


def find_settings(as_read: dict[str, Any], subject: Subject, topology: Topology) -> tuple[list[Setting], str]:
    """Settings of a page that fit a topology, fastest first, and the keys that hold its remat policies."""
    devices = _devices(topology, "auto")[0]
    keys = _remat_keys(as_read.get("model", {}))
    steps: dict[tuple[str, ...], Traced] = {}

    def trace(mesh: Mapping[str, int], remat: str, accumulate: int) -> Traced:
        # Rings and kernels are traced for the mesh that they run on; all else is the same on every mesh.
        by_mesh = tuple(str(size) for size in mesh.values()) if mesh["context"] > 1 or mesh["tensor"] > 1 else ()
        key = (remat, str(accumulate), *by_mesh)
        if key not in steps:
            changed = copy.deepcopy(as_read) | {"accumulate": accumulate, "mesh": {**as_read["mesh"], **mesh}}
            for path in keys if remat else ():
                _set(changed, path, remat)
            prepared = prepare_on(replace(subject, **_opened(changed, subject)), devices)
            with prepared.layout.active():
                jaxpr = prepared.train_step.trace(prepared.abstract, prepared.batch).jaxpr
            steps[key] = Traced(jaxpr, prepared.abstract, prepared.batch)
        return steps[key]

    page = subject.page
    table = build(page.mesh, {"": MeshShape}, kind="mesh").table()
    found = search(
        trace,
        topology,
        remats=("none", "dots", "full") if keys else ("",),
        batch_size=page.batch_size,
        model_flops=page.batch_size * subject.flops_per_example,
        dtype=page.dtype,
        length=0 if subject.spec.image_size else subject.spec.length,
        batch_axes=dict(table)["batch"],
    )
    return found, " ".join(keys)


def _opened(as_read: dict[str, Any], subject: Subject) -> dict[str, Any]:
    page = Page(**as_read)
    origin = open_trained(Path(page.init_from)) if page.init_from else None
    return {"page": page, "objective": build_objective(page, subject.spec, None if page.model else origin)[0]}


def _remat_keys(model: Mapping[str, Any]) -> list[str]:
    """Where on the page remat policies stand: the model's, or those of its towers."""
    takes = parameters(ALL_MODELS[model["name"]]) if model else {}
    if "remat" in takes:
        return ["model.remat"]
    towers = [key for key, value in model.items() if isinstance(value, Mapping)]
    return [f"model.{key}.remat" for key in towers if "remat" in parameters(ALL_MODELS[model[key]["name"]])]


def _set(page: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        page = page[key]
    page[last] = value


def prepare_on(subject: Subject, devices: Sequence[Any]) -> Prepared:
    layout = build(subject.page.mesh, {"": MeshShape}, kind="mesh").over(devices)
    return prepare(subject.page, subject.objective, subject.rows, layout)


def _devices(topology: Topology, compiling: str) -> tuple[list[Any], str]:
    """Devices to trace for, and why the step cannot be compiled for the topology here ("" where it can)."""
    platform, reason = topology.chip.platform, ""
    if compiling == "never":
        reason = "--compile=never"
    elif platform == "tpu" and has_libtpu():
        return tpu_devices(topology), ""
    elif platform == "tpu":
        reason = "libtpu is not installed (Linux x86-64: pip install 'jax[tpu]')"
    elif platform == "gpu":
        here = [each for each in jax.devices() if each.platform == "gpu" and topology.chip.kind in each.device_kind]
        if len(here) >= topology.num_devices:
            return here[: topology.num_devices], ""
        reason = f"a GPU's step can be compiled only where there are {topology.num_devices} of them"
    if reason and compiling == "always":
        raise ValueError(f"--compile=always: {reason}; leave it out for an estimate")
    devices = jax.devices("cpu")
    if len(devices) < topology.num_devices:
        raise RuntimeError(
            f"jax was started with {len(devices)} devices, and {topology.num_devices} are needed to stand in; start "
            "the door by itself: python -m research.plan"
        )
    return list(devices[: topology.num_devices]), reason
