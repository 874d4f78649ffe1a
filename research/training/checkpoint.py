"""Checkpoints: written in the background, complete or absent, and verified byte by byte before they are read.

DIRECTORY/STEP/ holds what Orbax writes (`params`, the weights to evaluate, publish and finetune; `state`, all the rest
of the run on the device), then `about.json` (what the weights are), `host.json` (the run on the host) and, last, the
seal of `step_folder.py`, without which the step does not exist.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1

from research.training.named_leaves import flatten, nest
from research.training.step_folder import (
    Mode,
    agree,
    as_json,
    best_step,
    choose,
    complete_steps,
    find_damage,
    is_writer,
    rank,
    remove,
    remove_incomplete,
    seal,
    write,
)

_HEADROOM = 1.1  # metadata and indices on top of the arrays
_WRITE_ERRORS = (OSError, RuntimeError, ValueError, LookupError)  # tensorstore reports a failed write as any of these


class SaveFailed(RuntimeError):
    """A checkpoint could not be written; those before it are intact."""


class Checkpoints:
    """The writer of a run's checkpoints. Keeps the `keep_latest` newest and the `keep_best` best by `metric`.

    `about` is any JSON that makes the weights usable alone (model config, tokenizer, preprocessing). With several
    processes all of them make the same calls; process 0 writes the JSON files and removes old steps. One writer per
    directory: opening it removes what an earlier writer left incomplete.

    Raises:
      ValueError: `keep_latest` below 1, an unknown `mode`, `about` is not JSON, or the directory cannot be made.
    """

    def __init__(
        self,
        directory: Path,
        *,
        about: Mapping[str, Any],
        keep_latest: int = 2,
        keep_best: int = 1,
        metric: str = "",
        mode: Mode = "min",
    ):
        if keep_latest < 1 or keep_best < 0:
            raise ValueError(f"keep_latest={keep_latest}, keep_best={keep_best}; wanted at least 1 and at least 0")
        if mode not in ("min", "max"):
            raise ValueError(f"mode={mode!r}; use 'min' or 'max'")
        self.directory = Path(directory).absolute()
        self._about = as_json(about, "about")
        self._keep_latest, self._keep_best = keep_latest, keep_best
        self._metric = metric
        self._mode: Mode = mode
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        problem = None
        if is_writer():
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                remove_incomplete(self.directory)
            except OSError as error:
                problem = ValueError(f"cannot keep checkpoints in {self.directory}: {error}; choose another --workdir")
        agree(problem, ValueError(f"process 0 cannot keep checkpoints in {self.directory}; see its log"))

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def save(
        self, step: int, *, params: Any, state: Any, host: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Returns once the arrays are on the host (their buffers may be donated); the rest happens in the background.

        `params` and `state` are pytrees of jax arrays, random keys as raw key data; `host` is any JSON.

        Raises:
          SaveFailed: this save does not fit on the disk, or the one before it failed.
          ValueError: the step is saved already, a leaf cannot be stored, or `metrics` are given without `metric`.
        """
        self.wait()
        items = {name: _nested(tree, name) for name, tree in (("params", params), ("state", state))}
        items = {name: tree for name, tree in items.items() if tree}  # Orbax refuses an empty tree
        if metrics and self._metric and self._metric not in metrics:
            raise ValueError(f"metric={self._metric!r} is not measured; use one of {', '.join(sorted(metrics))}")
        numbers = {name: float(value) for name, value in metrics.items()}
        host_text = as_json({"host": dict(host), "metrics": numbers}, "host")
        agree(self._obstacle(step, items) if is_writer() else None, SaveFailed(f"process 0 cannot save step {step}"))
        try:
            response = _start_writing(self.directory / str(step), items)
        except _WRITE_ERRORS as error:
            raise self._give_up(step, error) from error
        self._pending = self._worker.submit(self._finish, step, response, host_text)

    def wait(self) -> None:
        """Returns when no save is under way. Raises SaveFailed if the last one failed, once."""
        if self._pending is None:
            return
        error = self._pending.exception()
        self._pending = None
        agree(error, SaveFailed("another process could not write its part of the checkpoint; see its log"))

    def close(self) -> None:
        """Waits, and ends the background thread."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()

    def steps(self) -> list[int]:
        """The complete steps, ascending."""
        return complete_steps(self.directory)

    def latest(self) -> int | None:
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step with the best metric; of equals the later; None where no step has it."""
        return best_step(self.directory, metric=self._metric, mode=self._mode)

    def choose_best(self) -> int:
        """Notes the best step as the one that the run ended with, and returns it."""
        best = self.best()
        assert best is not None, "no step was saved with its metric"
        if is_writer():
            choose(self.directory, best)
        return best

    def _obstacle(self, step: int, items: Mapping[str, Any]) -> Exception | None:
        """What stands in the way of a save; clears what an earlier save left there."""
        try:
            remove_incomplete(self.directory)
            for later in [known for known in self.steps() if known >= step]:
                if not find_damage(self.directory / str(later)):
                    return ValueError(f"checkpoint {later} is in {self.directory} already; save a later step")
                remove(self.directory / str(later))  # the run was told to go back to the one before it
            needed = int(_HEADROOM * sum(leaf.nbytes for leaf in jax.tree.leaves(items)))
            free = shutil.disk_usage(self.directory).free
        except OSError as error:
            return self._failure(step, str(error))
        if free < needed:
            return self._failure(step, f"it needs {needed / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free")
        return None

    def _finish(self, step: int, response: v1.AsyncResponse[None], host_text: str) -> None:
        """The background part. Orbax's result means that the arrays of all processes are on the disk."""
        folder = self.directory / str(step)
        try:
            response.result()
            if is_writer():
                write(folder / "about.json", self._about)
                write(folder / "host.json", host_text)
                seal(folder)
        except _WRITE_ERRORS as error:
            raise self._give_up(step, error) from error
        if is_writer():
            self._remove_old(step)

    def _remove_old(self, saved: int) -> None:
        steps = self.steps()
        ranked = rank(self.directory, steps, self._metric, self._mode)
        kept = {*steps[-self._keep_latest :], *ranked[: self._keep_best]}
        try:
            for step in set(steps) - kept:
                remove(self.directory / str(step))
        except OSError as error:
            raise SaveFailed(f"checkpoint {saved} is saved, but an older one cannot be removed: {error}") from error

    def _give_up(self, step: int, error: Exception) -> SaveFailed:
        if is_writer():
            with contextlib.suppress(OSError):  # Orbax's other threads may still write there; the next save clears it
                remove_incomplete(self.directory)
        full = "No space left on device" in str(error)
        return self._failure(step, "the disk is full" if full else str(error).strip().split("\n")[0][:300])

    def _failure(self, step: int, cause: str) -> SaveFailed:
        newest = self.latest()
        intact = "there is no earlier one" if newest is None else f"checkpoint {newest} is intact"
        return SaveFailed(
            f"checkpoint {step} was not saved in {self.directory}: {cause}; {intact}; "
            "free space there (or mend what is named) and start the same command again"
        )


def _start_writing(folder: Path, items: Mapping[str, Any]) -> v1.AsyncResponse[None]:
    context = v1.Context()
    context.asynchronous.create_directories_asynchronously = False  # a full disk is then an error here, not a timeout
    with context:
        return v1.save_checkpointables_async(str(folder), dict(items))


def _nested(tree: Any, what: str) -> dict[str, Any]:
    """The tree as nested dicts of names, whatever its containers: what Orbax stores does not depend on our classes.

    Raises:
      ValueError: a leaf that is not a jax array, is empty, or is a typed random key; or two leaves of one name.
    """
    flat = flatten(tree)
    for name, leaf in flat.items():
        if not isinstance(leaf, jax.Array) or leaf.size == 0 or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            found = f"{what} {'/'.join(name)} is {type(leaf).__name__} of shape {getattr(leaf, 'shape', None)}"
            raise ValueError(f"{found}; save jax arrays that are not empty, random keys as their key data")
    joined = {".".join(name) for name in flat}  # Orbax's own names of the leaves
    if len(joined) != len(jax.tree.leaves(tree)) or "" in joined:
        raise ValueError(f"{what}: leaves must have names, and different ones: {sorted(joined)}")
    return nest(flatten(tree, keep_empty=True))
