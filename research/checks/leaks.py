"""What must not reach a loss (later tokens, other documents, other examples), and what must reach every parameter."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from research.checks.measures import Measure, Outcome
from research.checks.subject import HostBatch, Subject, loss_of, relative

LEAK = 1e-6  # relative; what is masked has a weight of 0, so that nothing but a reordered sum may differ


def reached(subject: Subject) -> Outcome:
    """The largest gradient of every parameter over all steps: a residual branch may begin as the identity."""
    silent = []
    leaves = zip(jax.tree.leaves_with_path(subject.alone.reached), jax.tree.leaves(subject.multipliers), strict=True)
    for (path, largest), multiplier in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        largest = np.broadcast_to(np.asarray(largest), np.broadcast_shapes(np.shape(largest), np.shape(multiplier)))
        trained = np.broadcast_to(np.asarray(multiplier) != 0, largest.shape)
        if "layers" not in name.split("/"):
            largest, trained = largest[None], trained[None]
        silent += [
            f"{name} of layer {layer}" if len(largest) > 1 else name
            for layer in range(len(largest))
            if trained[layer].any() and not np.any(largest[layer] > 0.0)
        ]
    note = f"without one: {', '.join(silent)}" if silent else ""
    broken = "a parameter that is trained gets no gradient: it is not part of the loss, or the gradient is stopped"
    return Outcome("every parameter learns", [Measure("without a gradient", float(len(silent)), 0.0)], note, broken)


def later_tokens(subject: Subject) -> Outcome:
    """Vectors and losses of the first half of each row, with the second half changed."""
    check = "no later token leaks"
    if not subject.causal:
        return Outcome(check, note="the objective reads both ways")
    batch = subject.batches[0]
    length = batch["tokens"].shape[1]
    late = np.broadcast_to(np.arange(length) >= length // 2, batch["tokens"].shape)
    sentence = "a token changes what is predicted before it: attention, a shift or the state looks ahead"
    return _unmoved(subject, check, batch, late, sentence)


def other_documents(subject: Subject) -> Outcome:
    """Vectors and, of causal objectives, losses of all documents of a row but the last, with the last changed."""
    check = "no other document leaks"
    if subject.packed is None:
        return Outcome(check, note="no row holds two documents")
    segments = subject.packed["segment_ids"]
    last = segments == segments.max(axis=1, keepdims=True)
    sentence = "a document changes what is read in another one of its row: a mask or the state ignores segment_ids"
    return _unmoved(subject, check, subject.packed, last, sentence)


def other_examples(subject: Subject) -> Outcome:
    """Vectors and losses of all rows but the first, with the first replaced by another and out of the loss."""
    batch = subject.batches[0]
    real = np.arange(subject.batch_size) > 0
    other = {key: np.concatenate([value[1:2], value[1:]]) for key, value in batch.items() if key != "example_id"}
    marks = np.ones(batch["tokens"].shape, bool) if "tokens" in batch else None
    first, second = (_probe(subject)(each, real, marks) for each in (batch, {**batch, **other}))
    vectors = max(relative(a[1:], b[1:]) for a, b in zip(first[0], second[0], strict=True))
    return Outcome(
        "no other example leaks",
        [Measure("vectors", vectors, LEAK), Measure("loss", relative(first[1], second[1]), LEAK)],
        sentence="an example changes another one's vectors or loss in evaluation: something is reduced over the batch",
    )


def _unmoved(subject: Subject, check: str, batch: HostBatch, changed: np.ndarray, sentence: str) -> Outcome:
    """With other tokens where `changed`: the vectors elsewhere and, of causal objectives, the losses there."""
    tokens = batch["tokens"]
    other = {**batch, "tokens": np.where(changed, (tokens + 1) % (tokens.max() + 1), tokens)}
    everyone = np.ones(subject.batch_size, bool)
    first, second = (_probe(subject)(each, everyone, ~changed) for each in (batch, other))
    here = ~changed & (batch["segment_ids"] > 0)
    measures = [Measure("vectors", relative(first[0][0][here], second[0][0][here]), LEAK)]
    if subject.causal:
        measures.append(Measure("loss", relative(first[1], second[1]), LEAK))
    return Outcome(check, measures, sentence=sentence)


@functools.cache
def _probe(subject: Subject) -> Callable[[HostBatch, np.ndarray, np.ndarray | None], Any]:
    """Vectors of positions and of examples, and the means of the loss in evaluation; compiled once.

    Rows that are not real, and tokens of a causal objective that are not marked, are out of the loss.
    """

    @jax.jit
    def compute(variables: Any, batch: Any) -> Any:
        found = subject.objective.features(variables, batch)
        loss = loss_of(subject.objective, variables, batch, train=False)
        return (found.sequence, found.pooled), [mean.total / mean.weight for _, mean in loss.terms.values()]

    def probe(batch: HostBatch, real: np.ndarray, marks: np.ndarray | None) -> Any:
        given = {**batch, "example_mask": real}
        if subject.causal and marks is not None:
            given["loss_mask"] = marks & batch.get("loss_mask", True)
        return jax.device_get(compute(subject.variables, given))

    return probe
