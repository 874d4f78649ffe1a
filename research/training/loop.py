"""The training loop: it knows a step, batches and hooks, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from research.training.state import TrainState
from research.training.step import TrainStep
from research.types import Batch, Metrics


class Hook(Protocol):
    """Called after every step with its number (from 1), the new state and the step's means, all still on the device.

    True ends the training here, once every hook has seen the step.
    """

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> bool | None: ...


class Preempted(Exception):
    """The run was asked to stop and has saved; starting it again continues it."""


class RunFailed(RuntimeError):
    """The run cannot go on, through no mistake in its config."""


def fit(
    train_step: TrainStep, state: TrainState, batches: Iterable[Batch], *, num_steps: int, hooks: Iterable[Hook]
) -> TrainState:
    """Steps from `state.step` to `num_steps`; hooks run in their order. After the start nothing reads the device."""
    hooks = tuple(hooks)
    step = int(state.step)
    iterator: Any = iter(batches)
    while step < num_steps:
        state, metrics = train_step(state, next(iterator))
        step += 1
        if any([hook(step, state, metrics) for hook in hooks]):
            break
    return state
