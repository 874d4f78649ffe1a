"""The hall of `plan --minutes`: measures the step here, and says what time and data are enough for."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.build import parameters
from research.expected import Rows
from research.experiment import complete, compute_dtype, load_page
from research.models import ALL_MODELS
from research.planned import Subject, prepare_on, read_subject
from research.planning.budget import spend
from research.prepared import Prepared
from research.training.sharding import put_batch
from research.training.state import init_state

SECONDS = 8.0  # of measured steps, after the first
_BYTES_A_TOKEN = 4.0  # of English text, by a trained tokenizer


def afford(config: str, overrides: Sequence[tuple[str, str]], *, minutes: float, tokens: float, as_json: bool) -> None:
    """Prints what `minutes` on this machine are enough for. `tokens` are those of the data, 0 where not known."""
    page = complete(load_page(config, overrides))
    page["dtype"] = compute_dtype(page["dtype"])
    subject = read_subject(page)
    tokens = tokens or _tokens_on_disk(page["data"])
    prepared = prepare_on(subject, jax.devices())
    compile_seconds, step_seconds = measure(prepared, subject)
    budget = spend(
        minutes=minutes,
        compile_seconds=compile_seconds,
        step_seconds=step_seconds,
        batch_size=subject.page.batch_size,
        tokens_per_example=subject.spec.length if _is_transformer_of_text(subject) else 0,
        flops_per_example=subject.flops_per_example,
        tokens_there=tokens,
    )
    print(json.dumps(budget.as_json(), indent=1) if as_json else budget.describe())


def measure(prepared: Prepared, subject: Subject) -> tuple[float, float]:
    """Seconds of the first step, which compiles, and of one after it, the median; the rows are noise."""
    with prepared.layout.active():
        rows = _noise(subject.rows, subject.page.batch_size, subject.spec.vocab_size)
        batch = put_batch(rows, prepared.batch_shardings)
        state = init_state(
            subject.objective, prepared.transform, batch, seed=subject.page.seed, shardings=prepared.shardings
        )
        jax.block_until_ready(state)
        started = time.perf_counter()
        state, _ = jax.block_until_ready(prepared.train_step(state, batch))
        first = time.perf_counter() - started
        times: list[float] = []
        while len(times) < 3 or sum(times) < SECONDS:
            started = time.perf_counter()
            state, _ = jax.block_until_ready(prepared.train_step(state, batch))
            times.append(time.perf_counter() - started)
    return first, float(np.median(times))


def _is_transformer_of_text(subject: Subject) -> bool:
    sizes = parameters(ALL_MODELS[subject.page.model["name"]]) if subject.page.model else {}
    return not subject.spec.image_size and "num_heads" in sizes


def _noise(rows: Rows, batch_size: int, vocab_size: int) -> dict[str, np.ndarray]:
    """A batch of random tokens in one document a row; all else is zeros, which cost the same."""
    rng = np.random.default_rng(0)
    batch = {key: np.zeros((batch_size, *value.shape[1:]), value.dtype) for key, value in rows.items()}
    for key, value in batch.items():
        if key.endswith("tokens"):
            batch[key] = rng.integers(5, max(vocab_size, 6), value.shape).astype(np.int32)
        elif key.endswith("segment_ids"):
            batch[key] = np.ones_like(value)
        elif key.endswith("positions"):
            batch[key] = np.broadcast_to(np.arange(value.shape[-1], dtype=np.int32), value.shape).copy()
    batch["example_id"] = np.arange(batch_size, dtype=np.uint32)
    return batch


def _tokens_on_disk(data: dict[str, Any]) -> float:
    """A guess from the size of an uncompressed text file that the page names; 0 where there is none."""
    path = data.get("path", "")
    paths = [path] if isinstance(path, str) else list(path)
    files = [Path(each) for each in paths]
    plain = all(each.is_file() and each.suffix in (".txt", ".jsonl") for each in files)
    return sum(each.stat().st_size for each in files) / _BYTES_A_TOKEN if files and plain else 0.0
