"""Step folders on a disk: complete or absent, sealed with checksums, and verified before they are read.

`checksums.json` is written last. A step without it was being written, or removed, when its process died: it is ignored
by readers and removed at the writer's next start. So nothing here depends on an atomic rename.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils

_CHECKSUMS, _CHOSEN = "checksums.json", "chosen.json"
_UNFINISHED = re.compile(r"\d+(\.orbax-checkpoint-tmp.*)?")  # a step, or what Orbax calls it before its rename


# Orbax reports every phase of every save and load through absl; what a user must know reaches them as exceptions.
logging.getLogger("absl").addFilter(lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname)

Mode = Literal["min", "max"]


class CheckpointDamaged(ValueError):
    """A complete checkpoint's files are no longer those that were written."""


def complete_steps(directory: Path) -> list[int]:
    """The complete steps in a checkpoint directory, ascending; none where there is no such directory."""
    if not directory.is_dir():
        return []
    folders = [child for child in directory.iterdir() if child.name.isdecimal() and (child / _CHECKSUMS).exists()]
    return sorted(int(folder.name) for folder in folders)


def seal(folder: Path) -> None:
    """Writes the checksums of all files in the folder: from here on the step is complete."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write(
        folder / _CHECKSUMS, as_json({path.relative_to(folder).as_posix(): _sha256(path) for path in files}, _CHECKSUMS)
    )


def verify(directory: Path, step: int, prefixes: tuple[str, ...]) -> Path:
    """The step's folder, after its files whose names start so were compared with their checksums.

    With several processes each reads its share of the files, and all agree on the verdict.
    """
    directory = Path(directory).absolute()
    steps = complete_steps(directory)
    if step not in steps:
        listed = ", ".join(map(str, steps)) or "none"
        raise ValueError(f"no complete checkpoint of step {step} in {directory}; there are: {listed}")
    damage = find_damage(directory / str(step), prefixes, jax.process_index(), jax.process_count())
    earlier = max((known for known in steps if known < step), default=None)
    advice = "there is no earlier one: start again in a new --workdir"
    if earlier is not None:
        advice = f"use --config.checkpoint.fall_back=true to go back to step {earlier}"

    def damaged(found: str) -> CheckpointDamaged:
        return CheckpointDamaged(f"checkpoint {step} in {directory} is damaged: {found}; {advice}")

    agree(damaged(damage) if damage else None, damaged("see the log of another process"))
    return directory / str(step)


def find_damage(folder: Path, prefixes: tuple[str, ...] = ("",), share: int = 0, num_shares: int = 1) -> str:
    """Names the first file that differs from its checksum; "" where none does. Files not listed do not matter."""
    try:
        text = (folder / _CHECKSUMS).read_text(encoding="utf-8")
        listed = json.loads(text)
    except ValueError:
        return f"{_CHECKSUMS} is not JSON"
    if not isinstance(listed, dict) or as_json(listed, _CHECKSUMS) != text:
        return f"{_CHECKSUMS} is not as it was written"
    names = [name for name in sorted(listed) if name.startswith(prefixes)]
    for name in names[share::num_shares]:
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _sha256(folder / name) != listed[name]:
            return f"{name} differs from its checksum"
    return ""


def remove_incomplete(directory: Path) -> None:
    """For the writer alone: to anyone else a step under way looks the same."""
    for child in directory.iterdir():
        if child.is_dir() and _UNFINISHED.fullmatch(child.name) and not (child / _CHECKSUMS).exists():
            shutil.rmtree(child)


def remove(folder: Path) -> None:
    (folder / _CHECKSUMS).unlink()  # first: killed from here on, the step is incomplete and not damaged
    shutil.rmtree(folder)


def write(path: Path, text: str) -> None:
    """Writes beside, flushes to the disk, and renames: the file is whole or absent where a rename is atomic."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def as_json(value: Any, what: str) -> str:
    """JSON that keeps the order of keys. Raises ValueError where `value` is not JSON."""
    try:
        return json.dumps(value, indent=1)
    except TypeError as error:
        raise ValueError(f"{what} is not JSON: {error}; use dicts, lists, strings and numbers of Python") from error


def is_writer() -> bool:
    """Process 0 writes what is ours (Orbax writes the arrays from all of them)."""
    return jax.process_index() == 0


def agree(problem: BaseException | None, elsewhere: Exception) -> None:
    """Raises in every process when one has a problem, so that none goes on alone and waits for ever."""
    anywhere = problem is not None
    if jax.process_count() > 1:
        anywhere = bool(np.any(multihost_utils.process_allgather(np.array(anywhere))))
    if problem is not None:
        raise problem
    if anywhere:
        raise elsewhere


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def best_step(directory: Path, *, metric: str, mode: Mode) -> int | None:
    """The complete step with the best `metric`; of equals the later; None where no step has it."""
    return next(iter(rank(directory, complete_steps(directory), metric, mode)), None)


def choose(directory: Path, step: int) -> None:
    """Notes that this step, and not the newest, is what the run ended with."""
    write(directory / _CHOSEN, as_json({"step": step}, _CHOSEN))


def chosen_step(directory: Path) -> int | None:
    """The complete step that the run ended with: the one noted, else the newest; None where there is none."""
    steps = complete_steps(directory)
    noted = json.loads((directory / _CHOSEN).read_text())["step"] if (directory / _CHOSEN).is_file() else None
    return noted if noted in steps else max(steps, default=None)


def rank(directory: Path, steps: list[int], metric: str, mode: str) -> list[int]:
    """The steps that have the metric, best first, of equals the later first."""
    values = {}
    for step in steps:
        folder = directory / str(step)
        if find_damage(folder, ("host.json",)):  # restoring it is what reports that
            continue
        value = json.loads((folder / "host.json").read_text())["metrics"].get(metric, math.nan)
        if not math.isnan(value):
            values[step] = value if mode == "min" else -value
    return sorted(values, key=lambda step: (values[step], -step))
