"""Where a run comes from: its config.json and run.json, and whether a workdir may be continued."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from research.batch import Dataset
from research.config import differences, flatten
from research.training.step_folder import is_writer

_VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tokenizers", "numpy")


def check_workdir(workdir: Path, page: Mapping[str, Any]) -> None:
    """Raises ValueError where the workdir holds another run (what differs is listed), or is no folder."""
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"--workdir={workdir} is a file; give a folder")
    path = workdir / "config.json"
    if not path.exists():
        return
    before = json.loads(path.read_text())
    grown = page["num_steps"] >= before.get("num_steps", 0)
    found = [line for line in differences(before, page) if not (grown and line.startswith("num_steps:"))]
    if found:
        listed = "\n  ".join(found)
        raise ValueError(f"--workdir={workdir} holds another run; use another folder, or the same config:\n  {listed}")


def check_schedule(
    page: Mapping[str, Any], before: Mapping[str, Any], *, rates: Any, rates_before: Any, step: int
) -> None:
    """Raises ValueError where a grown `num_steps` would have given the steps already taken other learning rates."""
    if page["num_steps"] == before["num_steps"]:
        return
    for done in range(0, step, max(1, step // 200)):
        if float(rates(done)) != float(rates_before(done)):
            raise ValueError(
                f"num_steps={page['num_steps']} (before: {before['num_steps']}) changes the learning rate of "
                f"step {done}, which is done; start a new workdir with init_from, or use a constant or wsd schedule"
            )


def shared_facts(page: Mapping[str, Any]) -> dict[str, Any]:
    """What all processes of a run must have alike: every key of the page, the code, the versions."""
    facts = {f"config.{key}": value for key, value in flatten(page).items()}
    versions = {f"version of {name}": importlib.metadata.version(name) for name in _VERSIONS}
    return facts | versions | {"commit": _commit()}


def read_config(workdir: Path) -> dict[str, Any] | None:
    """The page of the run that the workdir holds."""
    path = workdir / "config.json"
    return json.loads(path.read_text()) if path.exists() else None


def begin(workdir: Path, page: Mapping[str, Any], *, command: Sequence[str], dataset: Dataset) -> None:
    """Writes config.json, run.json and tokenizer.json, in one process; a continued run keeps a list of its starts.

    Raises:
      ValueError: the data are not those that the run began with.
    """
    fingerprint = dataset.facts.get("fingerprint", "")
    path = workdir / "run.json"
    starts: list[Any] = []
    if path.exists():
        before = json.loads(path.read_text())
        if before["data"].get("fingerprint", "") != fingerprint:
            raise ValueError(f"the data of {workdir} have changed since the run began; use another --workdir")
        starts = [*before.get("starts", []), before["date"]]
    if not is_writer():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    device = jax.devices()[0]
    about = {
        "command": "python -m " + " ".join(command),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "starts": starts,
        "machine": {
            "devices": f"{jax.device_count()} x {device.device_kind}",
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
        "data": dict(dataset.facts),
    }
    write_json(path, about)
    write_json(workdir / "config.json", page)
    if dataset.tokenizer:
        _replace(workdir / "tokenizer.json", dataset.tokenizer)


def describe_data(dataset: Dataset) -> list[str]:
    """A line for each split, and one for what the splits share."""
    lines = []
    for name in dataset.splits:
        counts = dataset.facts.get(name)
        if isinstance(counts, Mapping):
            lines.append(f"{name}: " + ", ".join(f"{_number(value)} {key}" for key, value in counts.items()))
    for key in ("shared_rows", "duplicates"):
        if dataset.facts.get(key):
            lines.append(f"{key.replace('_', ' ')}: {json.dumps(dataset.facts[key])}")
    return lines


def peak_memory_mb() -> float:
    """The most resident memory that this process has had, in 10^6 bytes."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1.024e-3 if sys.platform.startswith("linux") else 1e-6)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it."""
    _replace(path, json.dumps(value, indent=1, default=_plain) + "\n")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)


def _commit() -> str:
    here = Path(__file__).parent
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    if asked.returncode:
        return "unknown"
    return asked.stdout.strip() + (" with changes" if changed.stdout.strip() else "")
