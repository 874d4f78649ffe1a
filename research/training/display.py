"""What a person sees of a run: a live line on a terminal, plain lines elsewhere, and log.txt, which keeps the lines."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class Display:
    """Prints a run's lines and appends them to `path`; a terminal shows the latest status in one line that moves.

    Without a path (another process has it) nothing is printed either.
    """

    def __init__(self, path: Path | None, *, num_steps: int):
        self._file = (path or Path(os.devnull)).open("a", encoding="utf-8")
        self._num_steps = num_steps
        self._progress: Progress | None = None
        self._silent = path is None
        self._live = sys.stdout.isatty() and not self._silent

    def advance(self, step: int) -> None:
        """Moves the bar of the live line."""
        if self._live:
            self._bar().update(self._bar().task_ids[0], completed=step)

    def status(self, text: str) -> None:
        """The line of a logging step: takes the place of the one before on a terminal."""
        self._record(text)
        if self._live:
            self._bar().update(self._bar().task_ids[0], status=text)
        elif not self._silent:
            print(text, flush=True)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._record(text)
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif not self._silent:
            print(text, flush=True)

    def close(self) -> None:
        """Leaves the last status on the terminal and gives the cursor back."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._live = False
        self._file.close()

    def _bar(self) -> Progress:
        if self._progress is None:
            console = Console(file=sys.stdout)
            bar = (BarColumn(bar_width=16),) if console.width >= 100 else ()
            text = TextColumn("{task.fields[status]}", markup=False)
            self._progress = Progress(*bar, text, console=console, refresh_per_second=4)
            self._progress.add_task("", total=self._num_steps, status="")
            self._progress.start()
        return self._progress

    def _record(self, text: str) -> None:
        self._file.write(text + "\n")
        self._file.flush()


def status_line(step: int, *, num_steps: int, values: Mapping[str, float], seconds_left: float) -> str:
    """`step 100/2000  loss 3.214  12.3k tokens/s  MFU n/a  data 1%  2:31 left`, of one line of metrics.jsonl."""
    parts = [f"step {step}/{num_steps}"]
    if "train/loss" in values:
        parts.append(f"loss {values['train/loss']:.4g}")
    for unit in ("tokens", "examples"):
        if f"train/{unit}_per_second" in values:
            parts.append(f"{shorten(values[f'train/{unit}_per_second'])} {unit}/s")
            break
    parts.append(f"MFU {values['train/mfu']:.1%}" if "train/mfu" in values else "MFU n/a")
    if "train/data_wait" in values:
        parts.append(f"data {values['train/data_wait']:.0%}")
    if step < num_steps and math.isfinite(seconds_left):
        parts.append(f"{clock_time(seconds_left)} left")
    return "  ".join(parts)


def shorten(value: float) -> str:
    """12345.6 as "12.3k"."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def clock_time(seconds: float) -> str:
    """151 as "2:31", 5460 as "1:31:00"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
