"""The log of a run: step metrics become metrics.jsonl, TensorBoard files, log.txt and a live line."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import numpy as np

from research.metrics import Mean, add_on_host, divide
from research.training.display import Display, status_line

T = TypeVar("T")

# The only keys of metrics.jsonl that differ between equal runs.
TIMED_KEYS = ("train/examples_per_second", "train/tokens_per_second", "train/mfu", "train/data_wait")


class Log:
    """A hook: called after every step, it reads the device only every `every` steps and at the last one.

    Between logging steps the means of each step stay on the device. At a logging step they are fetched at once and
    added on the host in float64, always one step after the other: so neither checkpoints nor a resume change the sums.

    Speeds count neither the first step (its compilation: `first_step_seconds`) nor what runs under `paused()`.
    train/mfu = flops_per_example · examples_per_second / peak_flops, left out where either is unknown.
    train/data_wait is the share of the time in which the loop waited for the batches given to `watch`; the device may
    have been busy meanwhile.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        every: int,
        num_steps: int,
        batch_size: int,
        tokens_per_example: int = 0,
        rate: Callable[[int], Any],
        started: float,
        flops_per_example: float | None = None,
        peak_flops: float | None = None,
        tensorboard: bool = True,
        writes: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """
        Args:
          batch_size: examples of a step on all devices.
          tokens_per_example: positions of a row, padding included; 0 where examples are not text.
          rate: the learning rate by the number of updates done before (an optax schedule).
          started: the reading of `clock` from which the first step is timed, such as the start of the process.
          flops_per_example: forward and backward, of the model's matrices; None: unknown.
          writes: false in all processes but one, which then neither print nor write.
          peak_flops: of all devices of the run together (devices.peak_flops gives one device's); None: unknown.
        """
        if every < 1:
            raise ValueError(f"log.every={every} is not a number of steps; use 1 or more")
        self.first_step_seconds: float | None = None
        self._workdir = Path(workdir)
        self._writes = writes
        if writes:
            self._workdir.mkdir(parents=True, exist_ok=True)
        self._every, self._num_steps = every, num_steps
        self._batch_size, self._tokens_per_example = batch_size, tokens_per_example
        self._rate, self._started = rate, started
        self._flops_per_example, self._peak_flops = flops_per_example, peak_flops
        self._tensorboard = tensorboard and writes
        self._stopwatch = Stopwatch(clock)
        self._clock = clock
        self._display = Display(self._workdir / "log.txt" if writes else None, num_steps=num_steps)
        self._file: MetricsFile | None = None
        self._events: Any = None
        self._restored_step = 0
        self._pending: list[dict[str, Mean]] = []
        self._latest: Mapping[str, Mean] = {}
        self._sums: dict[str, np.ndarray] = {}
        self._timed_steps = 0  # of the window
        self._trained_steps = 0  # of this process, the first left out
        self._trained_since = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __call__(self, step: int, state: Any, metrics: Mapping[str, Mean]) -> None:
        """Takes the means of step `step`, counted from 1; a mean named "loss" is logged as "train/loss"."""
        self._pending.append(dict(metrics))
        self._latest = metrics
        if self.first_step_seconds is None:
            self._time_first_step()
        else:
            self._timed_steps += 1
            self._trained_steps += 1
        self._display.advance(step)
        if step % self._every == 0 or step == self._num_steps:
            self._log(step)

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, with the time that each lets the loop wait."""
        iterator = iter(batches)
        while True:
            try:
                with self._stopwatch.waiting():
                    batch = next(iterator)
            except StopIteration:
                return
            yield batch

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves evaluation, saving and the like out of the speeds."""
        jax.block_until_ready(self._latest)  # steps still under way belong to the time before the pause
        with self._stopwatch.paused():
            yield

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values ("val/loss") to the line of `step`, and prints them."""
        if self._writes:
            self._metrics_file().write(step, values)
        self._write_events(step, values)
        shown = [f"{name} {value:.4g}" for name, value in values.items()]
        self.say("  ".join([f"step {step}/{self._num_steps}", *shown]))

    def say(self, text: str) -> None:
        """Prints a line above the live one, and keeps it in log.txt."""
        self._display.say(text)

    def window(self) -> dict[str, list[str]]:
        """The sums since the last logging step, exact and ready for JSON, to be saved with a checkpoint."""
        self._fold()
        return {name: [float(value).hex() for value in pair] for name, pair in self._sums.items()}

    def resume(self, step: int, window: Mapping[str, Iterable[str]]) -> None:
        """Goes back to `step`: cuts later lines of metrics.jsonl, and reopens the window that was saved there.

        Raises:
          ValueError: a line of metrics.jsonl is not a step's JSON object (the last one may be cut short).
        """
        assert self._file is None and not self._pending, "resume comes before the first step"
        self._restored_step = step
        self._sums = {name: np.array([float.fromhex(value) for value in pair]) for name, pair in window.items()}
        if self._writes:
            self._metrics_file()

    def values(self, name: str) -> list[float]:
        """What metrics.jsonl says of one measure up to the step that the run stands at, in order; NaN for null."""
        path = self._workdir / "metrics.jsonl"
        if self._writes:
            self._metrics_file()  # cuts what comes later
            lines = map(json.loads, path.read_bytes().splitlines())
        else:
            lines = map(json.loads, _lines_up_to(path, self._restored_step) if path.exists() else [])
        return [math.nan if line[name] is None else line[name] for line in lines if name in line]

    def close(self) -> None:
        """Closes the files and gives the terminal back; the open window is left to `window`."""
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()
        self._display.close()

    def _time_first_step(self) -> None:
        jax.block_until_ready(self._latest)
        self.first_step_seconds = self._clock() - self._started
        self.say(f"first step after {self.first_step_seconds:.1f} s")
        self._stopwatch.restart()
        self._trained_since = self._clock()

    def _log(self, step: int) -> None:
        self._fold()
        values = {f"train/{name}": value for name, value in divide(self._sums).items()}
        values["train/rate"] = float(self._rate(step - 1))
        values |= self._speeds()
        self._sums, self._timed_steps = {}, 0
        self._stopwatch.restart()
        if self._writes:
            self._metrics_file().write(step, values)
        self._write_events(step, values)
        left = self._seconds_left(step)
        self._display.status(status_line(step, num_steps=self._num_steps, values=values, seconds_left=left))

    def _fold(self) -> None:
        for metrics in jax.device_get(self._pending):
            self._sums = add_on_host(self._sums, metrics)
        self._pending = []

    def _speeds(self) -> dict[str, float]:
        seconds = self._stopwatch.seconds()
        if not self._timed_steps or seconds <= 0:
            return {}
        examples_per_second = self._timed_steps * self._batch_size / seconds
        speeds = {"train/examples_per_second": examples_per_second}
        if self._tokens_per_example:
            speeds["train/tokens_per_second"] = examples_per_second * self._tokens_per_example
        if self._flops_per_example is not None and self._peak_flops is not None:
            speeds["train/mfu"] = self._flops_per_example * examples_per_second / self._peak_flops
        speeds["train/data_wait"] = self._stopwatch.waited / seconds
        return speeds

    def _seconds_left(self, step: int) -> float:
        """Pauses so far count: the steps to come will be evaluated and saved as well."""
        if not self._trained_steps:
            return math.nan
        return (self._clock() - self._trained_since) / self._trained_steps * (self._num_steps - step)

    def _metrics_file(self) -> MetricsFile:
        if self._file is None:
            self._file = MetricsFile(self._workdir / "metrics.jsonl", step=self._restored_step)
        return self._file

    def _write_events(self, step: int, values: Mapping[str, float]) -> None:
        if not self._tensorboard:
            return
        if self._events is None:
            from tensorboardX import SummaryWriter  # 0.4 s to import

            restored = self._restored_step
            self._events = SummaryWriter(
                str(self._workdir / "tensorboard"),
                purge_step=restored + 1 if restored else None,
                filename_suffix=f".{restored}",  # names hold only the second: a quick restart would overwrite the file
            )
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()


class MetricsFile:
    """metrics.jsonl: one object a line, steps ascend, each stands once; null is a value that is not finite."""

    def __init__(self, path: Path, *, step: int):
        """Opens the file with its lines up to `step`; later ones are cut."""
        lines = _lines_up_to(path, step) if path.exists() else []
        _replace(path, b"".join(lines))
        self._file = path.open("r+b")
        self._values: dict[str, Any] = json.loads(lines[-1]) if lines else {"step": -1}
        self._offset = sum(map(len, lines[:-1]))  # where the line of _values begins
        self._end = self._offset + (len(lines[-1]) if lines else 0)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the line of `step`, or adds to it where it is the last one."""
        assert step >= self._values["step"], f"step {step} comes after step {self._values['step']}"
        if step > self._values["step"]:
            self._values, self._offset = {"step": step}, self._end
        numbers = {name: float(value) for name, value in values.items()}
        self._values |= {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        line = (json.dumps(self._values, allow_nan=False) + "\n").encode()
        # The new line is written over the old one before the rest is cut, so that a kill in between loses neither.
        self._file.seek(self._offset)
        self._file.write(line)
        self._file.flush()
        self._file.truncate()
        self._end = self._offset + len(line)

    def close(self) -> None:
        self._file.close()


class Stopwatch:
    """Seconds since the last restart without the pauses, and those among them spent waiting for data."""

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._depth = 0
        self.restart()

    def restart(self) -> None:
        self._since = self._clock()
        self._out = 0.0
        self.waited = 0.0

    def seconds(self) -> float:
        return self._clock() - self._since - self._out

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        start = self._clock()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:  # a pause within a pause counts once
                self._out += self._clock() - start

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        finally:
            self.waited += self._clock() - start


def _lines_up_to(path: Path, step: int) -> list[bytes]:
    kept = []
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            line_step = json.loads(line)["step"]
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break  # the run was killed while it wrote this line
            fault = f"{path}:{number} is not a JSON object with a step; remove that line, or start in an empty workdir"
            raise ValueError(fault) from error
        if line_step > step:
            break
        kept.append(line + b"\n")
    return kept


def _replace(path: Path, content: bytes) -> None:
    """Atomic: a kill leaves the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
