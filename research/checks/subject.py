"""What is verified: an objective with its data, at reduced size, and steps of plain gradient descent with it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.training.sharding import Layout, MeshShape, batch_shardings, make_layout, put_batch
from research.training.state import TrainState, abstract_state, init_state, shardings_of
from research.training.step import make_train_step
from research.types import Batch, Keys, Loss, Objective, Variables

HostBatch = Mapping[str, np.ndarray]
NUM_STEPS = 10
RATE = 0.02
_ROUND_OFF = 1e-6  # of the largest value of a tree: a leaf below it is 0 but for round-off, which has no scale


class Stream(Protocol):
    """The part of the training stream that one process reads."""

    def batch_at(self, step: int) -> HostBatch: ...

    def batches(self, *, start: int, prefetch: int) -> Iterator[HostBatch]: ...


class Run(Protocol):
    """A run as the training door has it: its state, its batches and its compiled step."""

    @property
    def layout(self) -> Layout: ...

    @property
    def train_step(self) -> Callable[[TrainState, Batch], Any]: ...

    @property
    def first_batch(self) -> Batch: ...

    def start(self, directory: Path, *, fall_back: bool) -> tuple[TrainState, Mapping[str, Any] | None]: ...

    def batches(self, *, start: int) -> Iterator[Batch]: ...


@dataclass(frozen=True, eq=False)
class Subject:
    """`objective` computes in float32 without dropout; the others are the same in another way, or None where there is
    no such way. `packed` are rows of several documents, and `fixed` the objective with a batch that brings its noise,
    so that rows may be cut."""

    objective: Objective
    remat: Objective | None
    bfloat16: Objective
    packed: HostBatch | None
    fixed: Callable[[HostBatch], tuple[Objective, HostBatch]]
    batches: Sequence[HostBatch]  # the first NUM_STEPS of the page's stream
    stream: Callable[[int, int], Stream]  # by process index and process count
    axes: Mapping[str, tuple[str | None, ...]]  # logical axes of the keys of a batch
    rules: tuple[str, ...]  # the page's changes to the table of logical axes
    transform: optax.GradientTransformation  # the page's optimizer
    multipliers: Any  # a tree like the parameters, 0 where they are not trained
    run: Callable[[Mapping[str, int]], Run]  # by the mesh
    causal: bool
    seed: int

    @property
    def batch_size(self) -> int:
        return len(next(iter(self.batches[0].values())))

    def layout(self, **shape: int) -> Layout:
        return make_layout(MeshShape(**shape, rules=self.rules))

    @functools.cached_property
    def two(self) -> Run:
        """The page's run, its state divided over two devices where there are as many."""
        return self.run(dict(devices=2, fsdp=2, data=1) if len(jax.devices()) > 1 else dict(devices=1))

    @functools.cached_property
    def variables(self) -> Variables:
        """As the seed gives them, on one device."""
        return start(self, self.layout(devices=1), optax.identity(), ema=False).variables

    @functools.cached_property
    def alone(self) -> Taken:
        """NUM_STEPS steps on one device, which all others are compared with."""
        return take_steps(self, self.layout(devices=1), num_steps=NUM_STEPS)


@dataclass(frozen=True)
class Taken:
    """What steps gave: losses [steps terms], the first gradient, the largest gradients seen, the last parameters."""

    losses: np.ndarray
    gradient: Any
    reached: Any
    params: Any


def start(subject: Subject, layout: Layout, transform: optax.GradientTransformation, *, ema: bool) -> TrainState:
    """A state drawn where it will lie, as a run begins."""
    batch = subject.batches[0]
    with layout.active():
        placed = put_batch(batch, batch_shardings(batch, subject.axes, layout))
        shardings = shardings_of(abstract_state(subject.objective, transform, placed, layout, ema=ema))
        return init_state(subject.objective, transform, placed, seed=subject.seed, shardings=shardings)


def take_steps(
    subject: Subject,
    layout: Layout,
    *,
    num_steps: int,
    objective: Objective | None = None,
    batches: Sequence[HostBatch] = (),
    variables: Variables | None = None,
    accumulate: int = 1,
) -> Taken:
    """Clipped gradient descent from the subject's variables, or from those given; without momentum, which would turn
    round-off into steps.

    Raises:
      ValueError: a mesh that does not divide the batch or a parameter.
    """
    objective = objective or subject.objective
    batches = batches or subject.batches
    transform = optax.chain(_remember(), optax.clip_by_global_norm(1.0), optax.sgd(RATE))
    places = batch_shardings(batches[0], subject.axes, layout)
    variables = variables or subject.variables  # made before anything is traced
    traced = jax.eval_shape(functools.partial(loss_of, objective, train=True), variables, dict(batches[0]))
    terms = sorted(traced.terms)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=transform.init(variables["params"]),
        ema=None,
        first_bad_step=jnp.full((), -1, jnp.int32),
    )
    with layout.active():
        first = put_batch(batches[0], places)
        shardings = shardings_of(abstract_state(objective, transform, first, layout, ema=False))
        state = jax.device_put(state, shardings)
        step = jax.jit(
            make_train_step(objective, transform, seed=subject.seed, accumulate=accumulate),
            in_shardings=(shardings, places),
            out_shardings=(shardings, None),
        )
        losses = []
        for batch in batches[:num_steps]:
            state, metrics = step(state, put_batch(batch, places))
            losses.append([float(metrics[name].total / metrics[name].weight) for name in terms])
    gradient, reached, _ = state.opt_state[0]
    found = jax.device_get((gradient, reached, state.variables["params"]))
    return Taken(np.array(losses), *found)


def loss_of(objective: Objective, variables: Variables, batch: Any, *, train: bool) -> Loss:
    """The loss of a batch under fixed keys."""
    keys = Keys(noise=jax.random.key(0), dropout=jax.random.key(1))
    return objective.loss(variables, batch, rng=keys, step=jnp.zeros((), jnp.int32), train=train)


def relative(first: Any, second: Any) -> float:
    """The largest difference relative to the first's largest absolute value; infinite where a number is none."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    apart = np.max(np.abs(first - second), initial=0.0) / max(np.max(np.abs(first), initial=0.0), 1e-12)
    return float(apart) if math.isfinite(apart) else math.inf


def difference(first: Any, second: Any) -> tuple[float, str]:
    """The largest `relative` difference of two trees, and the leaf that has it."""
    pairs = zip(jax.tree.leaves_with_path(first), jax.tree.leaves(second), strict=True)
    leaves = [(jax.tree_util.keystr(path, simple=True, separator="/"), a, b) for (path, a), b in pairs]
    largest = max((float(np.max(np.abs(a), initial=0.0)) for _, a, _ in leaves), default=0.0)
    worst = (0.0, "")
    for name, a, b in leaves:
        if max(np.max(np.abs(a), initial=0.0), np.max(np.abs(b), initial=0.0)) < _ROUND_OFF * largest:
            continue
        worst = max(worst, (relative(a, b), name))
    return worst


def cosine(first: Any, second: Any) -> float:
    """Of two trees, each as one long vector."""
    a, b = (
        np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(tree)])
        for tree in (first, second)
    )
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300))


def _remember() -> optax.GradientTransformation:
    """Keeps the first gradient and the largest absolute ones; its state lies as the parameters do."""

    def init(params: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        first, largest, count = state
        first = jax.tree.map(lambda old, new: jnp.where(count == 0, new, old), first, updates)
        largest = jax.tree.map(lambda old, new: jnp.maximum(old, jnp.abs(new)), largest, updates)
        return updates, (first, largest, count + 1)

    return optax.GradientTransformation(init, update)
