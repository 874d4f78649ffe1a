"""Small models and batches that several tests share."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from research.build import build
from research.models import HEADS, MODELS, Model
from research.objectives import OBJECTIVES

VOCAB, LENGTH = 37, 13


def small_model(name: str = "modern", *, head: str = "language", causal: bool = False, **changes: Any) -> Model:
    """A two-layer model of width 8."""
    block: dict[str, Any] = dict(name=name, width=8, depth=2)
    if name not in ("lstm", "gru"):
        block |= dict(num_heads=2)
        if name == "llama":
            block |= dict(num_kv_heads=1)
    config = build(block | changes, MODELS, kind="model", vocab_size=VOCAB, length=LENGTH, causal=causal)
    made = build(dict(name=head), HEADS, kind="head", vocab_size=VOCAB, width=8, num_classes=3)
    return Model(config.module(), made)


def small_objective(name: str, *, model: str = "modern", model_changes: Any = None, **changes: Any) -> Any:
    kind = OBJECTIVES[name]
    made = small_model(model, head=kind.head, causal=kind.causal, **(model_changes or {}))
    return build(
        dict(name=name, **changes), OBJECTIVES, kind="objective", model=made, vocab_size=VOCAB, mask_id=4, num_classes=3
    )


def packed_batch(seed: int = 0, *, rows: int = 8) -> dict[str, np.ndarray]:
    """Rows of one to three documents of different lengths, most with padding at the end."""
    rng = np.random.default_rng(seed)
    tokens = np.zeros((rows, LENGTH), np.int32)
    segments, positions = np.zeros_like(tokens), np.zeros_like(tokens)
    for row in range(rows):
        start = 0
        for segment in range(1, 1 + rng.integers(1, 4)):
            size = int(rng.integers(2, 7))
            stop = min(start + size, LENGTH)
            tokens[row, start:stop] = rng.integers(5, VOCAB, stop - start)
            tokens[row, start : start + 1] = 2
            segments[row, start:stop] = segment
            positions[row, start:stop] = np.arange(stop - start)
            start = stop
    return {
        "tokens": tokens,
        "segment_ids": segments,
        "positions": positions,
        "example_id": np.arange(rows, dtype=np.uint32),
        "label": rng.integers(0, 3, rows).astype(np.int32),
    }


def separate_documents(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each document of a packed batch in a row of its own."""
    found = []
    for row in range(len(batch["tokens"])):
        for segment in range(1, batch["segment_ids"][row].max() + 1):
            where = batch["segment_ids"][row] == segment
            tokens = np.zeros(LENGTH, np.int32)
            tokens[: where.sum()] = batch["tokens"][row][where]
            found.append(tokens)
    tokens = np.stack(found)
    real = tokens > 0
    return {
        "tokens": tokens,
        "segment_ids": real.astype(np.int32),
        "positions": np.where(real, np.arange(LENGTH), 0).astype(np.int32),
        "example_id": np.arange(len(tokens), dtype=np.uint32),
    }


def difference(first: Any, second: Any) -> float:
    """The largest difference of two trees, relative to each tensor's largest absolute value."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        worst = max(worst, float(np.max(np.abs(a - b)) / max(np.max(np.abs(a)), 1e-12)))
    return worst
