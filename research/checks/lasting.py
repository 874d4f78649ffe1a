"""What a run keeps: its state on the devices and on the disk, the order of its data, and what it has learnt."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.checks.measures import Measure, Outcome
from research.checks.subject import HostBatch, Run, Subject, start
from research.training.checkpoint import Checkpoints
from research.training.state import TrainState, separate
from research.types import Batch

SAVED_AT, GOES_ON = 3, 3  # steps
HOSTS = (1, 2, 4)
REPEATS, FALL = 20, 0.99
# Vectors and tables that no rule divides weigh more in a small model than in a large one.
PARAMETERS_BESIDE, MOMENTS_BESIDE = 0.1, 0.05


def divided(subject: Subject) -> Outcome:
    """The share of the state that one device holds, beside 1 / fsdp."""
    check = "state falls as 1/fsdp"
    broken = "devices hold more of the state than their part: parameters, optimizer state or average are copied whole"
    notes = []
    for count in (8, 4, 2):
        if count > len(jax.devices()):
            continue
        try:
            state = start(subject, subject.layout(devices=count, fsdp=count, data=1), subject.transform, ema=True)
        except ValueError as error:
            if "divide" not in str(error):
                raise
            notes.append(f"fsdp {count} left out: {error}")
            continue
        given = {name: state.variables[name] for name in ("params", "frozen") if name in state.variables}
        share = _share(state.variables["params"])
        measures = [
            Measure("parameters", _share(given), 1 / count + PARAMETERS_BESIDE),
            Measure("optimizer state", _share(state.opt_state), share + MOMENTS_BESIDE),
            Measure("average", _share(state.ema), share),
        ]
        return Outcome(check, measures, "; ".join([f"fsdp {count}: 1/{count} = {1 / count:.3g}", *notes]), broken)
    return Outcome(check, note="; ".join(["not measured", *(notes or ["jax sees one device"])]))


def resumed(subject: Subject) -> Outcome:
    """Through a real checkpoint: what is saved, the rows that are read next, and all that follows."""
    check = "resumed = unbroken"
    broken = "a run that is started again is another run: a part of its state, or its place in the data, is not kept"
    run = subject.two
    with tempfile.TemporaryDirectory() as folder, run.layout.active():
        directory = Path(folder) / "checkpoints"
        with Checkpoints(directory, about={}) as checkpoints:
            state, _ = run.start(directory, fall_back=False)
            batches = run.batches(start=0)
            state, _, _ = _go_on(run, state, batches, SAVED_AT)
            params, rest = separate(state)
            host = {"examples_seen": SAVED_AT * subject.batch_size, "window": {}}
            checkpoints.save(SAVED_AT, params=params, state=rest, host=host, metrics={})
            checkpoints.wait()
            state, ids, losses = _go_on(run, state, batches, GOES_ON)
            again, _ = run.start(directory, fall_back=False)
            batches = run.batches(start=int(again.step) * subject.batch_size)
            again, ids_again, losses_again = _go_on(run, again, batches, GOES_ON)
    leaves = zip(jax.tree.leaves_with_path(state), jax.tree.leaves(again), strict=True)
    differing = [path for (path, a), b in leaves if _bytes(a) != _bytes(b)]
    named = [jax.tree_util.keystr(path, simple=True, separator="/") for path in differing]
    note = f"differ: {', '.join(named[:3])}" if named else ""
    measures = [
        Measure("batches that differ", _unequal(ids, ids_again), 0.0),
        Measure("losses", _unequal(losses, losses_again), 0.0),
        Measure("arrays of the state", float(len(named)), 0.0),
    ]
    return Outcome(check, measures, note, broken)


def ordered(subject: Subject) -> Outcome:
    """Rows that hosts read, one after the other, beside those of one host; from the start and from a later place."""
    check = "same order on 1, 2, 4 hosts"
    hosts = [count for count in HOSTS if subject.batch_size % count == 0]
    whole = [dict(subject.stream(0, 1).batch_at(step)) for step in range(4)]
    wrong = 0
    for count in hosts:
        parts = [subject.stream(index, count) for index in range(count)]
        read = [[part.batch_at(step) for part in parts] for step in (0, 1)]
        later = [part.batches(start=2 * subject.batch_size, prefetch=0) for part in parts]
        read += [[next(rows) for rows in later] for _ in (2, 3)]
        wrong += sum(_rows_that_differ(one, found) for one, found in zip(whole, read, strict=True))
    broken = "hosts together do not read the rows that one host reads: some are skipped or repeated"
    return Outcome(check, [Measure("rows that differ", float(wrong), 0.0)], sentence=broken)


def falls(subject: Subject) -> Outcome:
    """The page's optimizer on one batch under the same noise, again and again. Model state stays as it began: a queue
    would fill with the batch's own vectors, from which each example is then to be told apart."""
    run, losses = subject.two, []
    with tempfile.TemporaryDirectory() as folder, run.layout.active():
        state, _ = run.start(Path(folder), fall_back=False)
        places = jax.tree.map(lambda leaf: leaf.sharding, state)
        kept = jax.device_get({name: tree for name, tree in state.variables.items() if name != "params"})
        for _ in range(REPEATS):  # buffers are given up in every step, so they are made anew
            step = jax.device_put(np.zeros((), np.int32), places.step)
            again = {name: jax.device_put(tree, places.variables[name]) for name, tree in kept.items()}
            variables = {**again, "params": state.variables["params"]}
            state, metrics = run.train_step(dataclasses.replace(state, step=step, variables=variables), run.first_batch)
            losses.append(float(metrics["loss"].total / metrics["loss"].weight))
    note = f"{losses[0]:.4g} to {losses[-1]:.4g} in {REPEATS} steps"
    broken = "the loss of a repeated batch does not fall under the page's optimizer"
    return Outcome("loss falls", [Measure("last / first", losses[-1] / losses[0], FALL)], note, broken)


def _go_on(
    run: Run, state: TrainState, batches: Iterator[Batch], num_steps: int
) -> tuple[TrainState, list[bytes], list[bytes]]:
    """The state after more steps, and of each step the example ids and the metrics."""
    ids, losses = [], []
    for _ in range(num_steps):
        batch = next(batches)
        state, metrics = run.train_step(state, batch)
        ids.append(_bytes(batch["example_id"]))
        losses.append(b"".join(_bytes(leaf) for leaf in jax.tree.leaves(metrics)))
    return state, ids, losses


def _unequal(first: list[bytes], second: list[bytes]) -> float:
    return float(sum(a != b for a, b in zip(first, second, strict=True)))


def _bytes(leaf: Any) -> bytes:
    return np.asarray(leaf).tobytes()


def _share(tree: Any) -> float:
    """Of the bytes of a tree, counters left out: the part on one device."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.size > 1]
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    return held / max(sum(leaf.nbytes for leaf in leaves), 1)


def _rows_that_differ(whole: HostBatch, parts: Iterable[Mapping[str, Any]]) -> int:
    parts = list(parts)
    wrong = np.zeros(len(whole["example_id"]), bool)
    for key, value in whole.items():
        found = np.concatenate([part[key] for part in parts])
        if found.shape != value.shape:
            return len(wrong)
        wrong |= np.any((found != value).reshape(len(value), -1), axis=1)
    return int(wrong.sum())
