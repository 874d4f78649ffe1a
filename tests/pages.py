"""A page small enough to train in a test, and the doors as a user calls them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# One page for every test of the doors: one device, which compiles fastest; a constant rate, so that runs may grow.
SMALL = {
    "data.tokenizer.name": "character",
    "data.length": 16,
    "data.valid_fraction": 0.2,
    "model.dropout": 0.1,
    "optimizer.name": "adamw",
    "optimizer.peak_rate": 0.003,
    "optimizer.schedule.name": "constant",
    "optimizer.schedule.warmup_steps": 0,
    "model.unroll": 1,
    "mesh.devices": 1,
    "batch_size": 8,
    "log.tensorboard": "false",
    "evaluation.floors": "false",
}


def small_page(corpus: Path, objective: str, **changes: object) -> list[str]:
    """The arguments after --workdir that train a small model on `corpus`; dots in keys are written as __."""
    page = "configs/pretrain/text_lm.py:tiny" if objective == "causal_lm" else "configs/quickstart.py:tiny"
    changes.setdefault("evaluation__samples", "a <mask>," if objective == "masked_lm" else "a cat,")
    keys = SMALL | {"data.path": corpus, "data.valid_path": "", "data.packing": "documents"}
    keys |= {key.replace("__", "."): value for key, value in changes.items()}
    return [f"--config={ROOT / page}", *(f"--config.{key}={value}" for key, value in keys.items())]


def call(
    door: str, arguments: list[str], *, check: int | None = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a door in a process of its own, as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", f"research.{door}", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if check is not None:
        assert done.returncode == check, done.stdout[-2000:] + done.stderr[-2000:]
    return done
