"""The same batch must mean the same, however it is cut, packed, spread or computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from research.checks.measures import Measure, Outcome
from research.checks.subject import NUM_STEPS, HostBatch, Subject, Taken, cosine, difference, relative, take_steps
from research.training.feature_cache import check_accumulation
from research.types import Variables

TOLERANCE = 1e-5  # relative to each tensor's largest absolute value
MARGIN = 2.0  # over `resolution`, where that is more
ROUNDINGS = 4
MICROBATCHES = 4
BFLOAT16_LOSS, BFLOAT16_COSINE = 0.02, 0.98  # 8 bits of mantissa: 0.4 % a value


def packed(subject: Subject) -> Outcome:
    check = "packed = separate"
    broken = "documents that share a row are not read as they are alone: attention, positions or state cross a border"
    if subject.packed is None:
        return Outcome(check, note="no row holds two documents")
    objective, batch = subject.fixed(subject.packed)
    layout = subject.layout(devices=1)
    together, apart = (
        take_steps(subject, layout, num_steps=1, objective=objective, batches=[each])
        for each in (batch, separate(batch, subject.axes))
    )
    return _compared(check, together, apart, sentence=broken)


def accumulated(subject: Subject) -> Outcome:
    check = "accumulated = whole"
    broken = "microbatches do not add up to the whole batch: a mean of means, or examples that meet each other"
    try:
        check_accumulation(subject.objective, subject.variables, MICROBATCHES)
    except ValueError as error:
        return Outcome(check, note=f"refused: {error}", refused=True)
    batch = dict(subject.batches[0])
    if not subject.objective.couples_examples:  # rows that do not count, so that microbatches weigh differently
        batch["example_mask"] = np.arange(subject.batch_size) % (MICROBATCHES + 1) != MICROBATCHES
    whole, parts = (
        take_steps(subject, subject.layout(devices=1), num_steps=1, batches=[batch], accumulate=number)
        for number in (1, MICROBATCHES)
    )
    return _compared(check, whole, parts, note=f"{MICROBATCHES} microbatches", sentence=broken)


def sharded(subject: Subject) -> Outcome:
    """Every mesh of `meshes` that divides the model; to TOLERANCE, or to what float32 resolves where that is less."""
    check = "sharded = single"
    broken = "a mesh changes what is learnt: something is summed, or not summed, over a wrong axis"
    measures: dict[str, float] = {"loss": 0.0, "gradient": 0.0, "parameters": 0.0}
    notes, worst, done = [], ("", 0.0), []
    for shape in meshes(subject):
        name = " x ".join(f"{axis} {size}" for axis, size in shape.items() if size > 1)
        try:
            taken = take_steps(subject, subject.layout(**shape), num_steps=NUM_STEPS)
        except ValueError as error:
            if "divide" not in str(error):
                raise
            notes.append(f"{name} left out: {error}")
            continue
        done.append(name)
        found = {
            "loss": (relative(subject.alone.losses, taken.losses), ""),
            "gradient": difference(subject.alone.gradient, taken.gradient),
            "parameters": difference(subject.alone.params, taken.params),
        }
        for kind, (apart, leaf) in found.items():
            measures[kind] = max(measures[kind], apart)
            if apart > worst[1]:
                worst = (f"most in {kind} {leaf} on {name}", apart)
    if not done:
        reason = "; ".join(notes) or f"jax sees {len(jax.devices())} device; JAX_PLATFORMS=cpu gives eight virtual ones"
        return Outcome(check, note=f"not measured: {reason}")
    bounds = dict.fromkeys(measures, TOLERANCE)
    if max(measures.values()) > TOLERANCE:
        for kind, apart in resolution(subject).items():
            bounds[kind] = max(TOLERANCE, MARGIN * apart)
            if bounds[kind] > TOLERANCE:
                notes.append(f"on one device round-off alone changes {kind} by {apart:.3g}")
    note = "; ".join([f"meshes: {', '.join(done)}", worst[0], *notes])
    return Outcome(check, [Measure(kind, value, bounds[kind]) for kind, value in measures.items()], note, broken)


def resolution(subject: Subject) -> dict[str, float]:
    """What float32 resolves here: how far losses, gradients and parameters move on one device when the rows come in
    another order or, where they do not meet each other, twice (both mean the same, and are other sums), and when all
    parameters begin a rounding away.

    Batch norm takes most of a gradient away, and long sums leave errors of 2e-5 in the rest of a small model's. Even
    pictures, whose pixels are equal over wide fields, sit on the kinks of ReLU and max-pooling, and part within steps.
    """
    rows = np.arange(subject.batch_size)
    orders = [rows[::-1], np.roll(rows, len(rows) // 2)]
    if not subject.objective.couples_examples:
        orders.append(np.tile(rows, 2))
    found = {"loss": 0.0, "gradient": 0.0, "parameters": 0.0}
    changes: list[dict[str, Any]] = [
        {"batches": [{key: value[order] for key, value in batch.items()} for batch in subject.batches]}
        for order in orders
    ]
    changes += [{"variables": _a_rounding_away(subject.variables, seed)} for seed in range(ROUNDINGS)]
    for change in changes:
        moved = take_steps(subject, subject.layout(devices=1), num_steps=NUM_STEPS, **change)
        if relative(subject.alone.losses[0], moved.losses[0]) > TOLERANCE:
            continue  # the order has a meaning: mixup mixes neighbours
        found["loss"] = max(found["loss"], relative(subject.alone.losses, moved.losses))
        found["gradient"] = max(found["gradient"], difference(subject.alone.gradient, moved.gradient)[0])
        found["parameters"] = max(found["parameters"], difference(subject.alone.params, moved.params)[0])
    return found


def _a_rounding_away(variables: Variables, seed: int) -> Variables:
    """The variables with each float32 parameter the next above or below."""
    rng = np.random.default_rng(seed)

    def move(leaf: Any) -> Any:
        if leaf.dtype != np.float32:
            return leaf
        return jnp.asarray(
            np.nextafter(np.asarray(leaf), rng.choice(np.array([-np.inf, np.inf], np.float32), size=leaf.shape))
        )

    return {**variables, "params": jax.tree.map(move, variables["params"])}


def rematerialised(subject: Subject) -> Outcome:
    check = "remat on = off"
    if subject.remat is None:
        return Outcome(check, note="the model has no remat")
    taken = take_steps(subject, subject.layout(devices=1), num_steps=1, objective=subject.remat)
    return _compared(check, subject.alone, taken, sentence="recomputed activations differ from those that were kept")


def bfloat16(subject: Subject) -> Outcome:
    check = "bfloat16 near float32"
    taken = take_steps(subject, subject.layout(devices=1), num_steps=1, objective=subject.bfloat16)
    loss = relative(subject.alone.losses[0], taken.losses[0])
    return Outcome(
        check,
        [
            Measure("loss", loss, BFLOAT16_LOSS),
            Measure("cosine of gradients", cosine(subject.alone.gradient, taken.gradient), BFLOAT16_COSINE, True),
        ],
        sentence="bfloat16 is further from float32 than rounding explains: a sum or a norm is not in float32",
    )


def meshes(subject: Subject) -> Iterator[Mapping[str, int]]:
    """Meshes over all devices that together have every axis which the table gives the model's parameters and batch."""
    boxed = jax.eval_shape(lambda batch: subject.objective.init(jax.random.key(0), batch), dict(subject.batches[0]))
    specs = jax.tree.leaves(nn.get_partition_spec(boxed), is_leaf=lambda leaf: isinstance(leaf, jax.P))
    names = {name for spec in specs for name in spec}
    names |= {name for key in subject.batches[0] for name in subject.axes[key]}
    table = dict(subject.layout(devices=1).rules)
    axes = {axis for name in names if name for axis in table.get(name, ())}
    count, seen = len(jax.devices()), []
    for wanted in (
        dict(fsdp=count // 2, tensor=2),
        dict(context=count // 2, fsdp=2),
        dict(fsdp=count),
        dict(replica=2, tensor=2, context=count // 4),
        dict(replica=2, data=2, fsdp=count // 4),
        dict(data=count),
    ):
        shape = {axis: size for axis, size in wanted.items() if axis in axes and size > 1}
        size = int(np.prod([*shape.values()], initial=1))
        if count % size:
            continue
        shape["data"] = shape.get("data", 1) * (count // size)
        if count > 1 and shape not in seen and len(seen) < 5:
            seen.append(shape)
            yield shape


def separate(batch: HostBatch, axes: Mapping[str, tuple[str | None, ...]]) -> dict[str, np.ndarray]:
    """Each document of packed rows in a row of its own."""
    segments = batch["segment_ids"]
    places = [(row, which) for row in range(len(segments)) for which in range(1, segments[row].max() + 1)]
    rows = np.array([row for row, _ in places])
    found = {key: value[rows] for key, value in batch.items() if axes[key][1:2] != ("length",)}
    for key, value in batch.items():
        if key in found:
            continue
        found[key] = np.zeros((len(places), *value.shape[1:]), value.dtype)
        for index, (row, which) in enumerate(places):
            here = value[row][segments[row] == which]
            found[key][index, : len(here)] = np.ones_like(here) if key == "segment_ids" else here
    return found | {"example_id": np.arange(len(places), dtype=np.uint32)}


def _compared(check: str, first: Taken, second: Taken, *, sentence: str, note: str = "") -> Outcome:
    apart, leaf = difference(first.gradient, second.gradient)
    measures = [
        Measure("loss", relative(first.losses[0], second.losses[0]), TOLERANCE),
        Measure("gradient", apart, TOLERANCE),
    ]
    where = f"most in {leaf}" if apart > TOLERANCE else ""
    return Outcome(check, measures, "; ".join(part for part in (note, where) if part), sentence)
