"""An audit of the data order: which examples every step has read, a file for each process."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np


class Audit:
    """Appends {"step", "example_ids"} to WORKDIR/audit/PROCESS-of-PROCESSES.jsonl, when a batch is handed out.

    Of a step that stands twice (the run was killed before it was saved) the later line counts.
    """

    def __init__(self, workdir: Path) -> None:
        folder = workdir / "audit"
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{jax.process_index()}-of-{jax.process_count()}.jsonl"

    def write(self, step: int, example_ids: np.ndarray) -> None:
        """The rows of step `step`, counted from 1, that this process has read, in their order."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "example_ids": example_ids.tolist()}) + "\n")
