"""Hooks of the loop: stop at a bad number, evaluate, save, leave when asked to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from research.training.checkpoint import Checkpoints
from research.training.distributed import Notice
from research.training.log import Log
from research.training.loop import Preempted, RunFailed
from research.training.state import TrainState, separate
from research.types import Metrics


class StopAtBadStep:
    """Raises RunFailed once a loss or gradient was not finite; reads the device every `every` steps and at the end."""

    def __init__(self, explain: Callable[[TrainState, int], str], *, every: int, num_steps: int) -> None:
        self._explain, self._every, self._num_steps = explain, every, num_steps

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        if step % self._every == 0 or step == self._num_steps:
            self.check(state)

    def check(self, state: TrainState) -> None:
        bad = int(state.first_bad_step)
        if bad >= 0:
            raise RunFailed(self._explain(state, bad))


class Evaluate:
    """Evaluates every `every` steps (0: never) and at the end; `latest` keeps the last values with their step."""

    def __init__(
        self, evaluate: Callable[[TrainState], Mapping[str, float]], log: Log, *, every: int, num_steps: int
    ) -> None:
        self._evaluate, self._log, self._every, self._num_steps = evaluate, log, every, num_steps
        self.latest: tuple[int, dict[str, float]] = (-1, {})

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        if (self._every and step % self._every == 0) or step == self._num_steps:
            with self._log.paused():
                self.latest = (step, dict(self._evaluate(state)))
            self._log.write(step, self.latest[1])


class Save:
    """Saves every `every` steps (0: only at the end), at the end, and when the process is asked to stop.

    Comes after Evaluate, whose values of the same step are kept with the checkpoint to rank it.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        log: Log,
        evaluate: Evaluate,
        health: StopAtBadStep,
        *,
        every: int,
        num_steps: int,
        batch_size: int,
    ) -> None:
        self._checkpoints, self._log, self._evaluate, self._health = checkpoints, log, evaluate, health
        self._every, self._num_steps, self._batch_size = every, num_steps, batch_size
        self._notice, self._saved = Notice(), -1

    def __enter__(self) -> Save:
        self._notice.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._notice.__exit__(*exception)

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        due = (self._every and step % self._every == 0) or step == self._num_steps
        asked = self._notice.reached(step)
        if due or asked:
            self.save(step, state)
        if asked and step < self._num_steps:
            self._checkpoints.wait()
            raise Preempted(f"asked to stop (SIGTERM); saved step {step}; the same command continues")

    def save(self, step: int, state: TrainState) -> None:
        """Does nothing where this step is saved already."""
        if step == self._saved:
            return
        self._health.check(state)
        evaluated, values = self._evaluate.latest
        with self._log.paused():
            params, rest = separate(state)
            host = {"examples_seen": step * self._batch_size, "window": self._log.window()}
            self._checkpoints.save(
                step, params=params, state=rest, host=host, metrics=values if evaluated == step else {}
            )
        self._saved = step
