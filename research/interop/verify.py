"""The same inputs through transformers and through our model: how far apart they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-5  # float32, relative to the largest value

# tokens, mask (1 where real) and token types, each int [B L], to the vectors [B L D] and what the head gives.
Outputs = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def differences(folder: Path, ours: Outputs, *, vocab_size: int, seed: int = 0) -> dict[str, float]:
    """Largest differences, each relative to the largest value: of the vectors, and of the head's result.

    Raises:
      ValueError: torch or transformers are not installed.
    """
    model = _open(folder)
    tokens, mask, types = draw_inputs(vocab_size, pad_id=model.config.pad_token_id or 0, seed=seed)
    hidden, scores = ours(tokens, mask, types)
    their_hidden, their_scores = run(model, tokens, mask, types)
    real = mask > 0
    found = {"vectors": difference(hidden[real], their_hidden[real])}
    if their_scores is not None and their_scores.shape == scores.shape:
        by_position = scores.ndim == 3
        first, second = (scores[real], their_scores[real]) if by_position else (scores, their_scores)
        found["head"] = difference(first, second)
    return found


def draw_inputs(
    vocab_size: int, *, pad_id: int, seed: int = 0, length: int = 19
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two rows of random tokens, the second cut short: ids, mask and token types, int64 [2, length]."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(min(5, vocab_size - 1), vocab_size, (2, length))
    tokens = np.where(tokens == pad_id, vocab_size - 1, tokens)
    mask = np.ones((2, length), np.int64)
    mask[1, length // 2 :] = 0
    types = (np.arange(length) >= length // 3) * mask
    return np.where(mask > 0, tokens, pad_id), mask, types


def run(model: Any, tokens: np.ndarray, mask: np.ndarray, types: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The last vectors of a transformers model, and its logits, or the pooler's output where it has no head."""
    import torch  # pyright: ignore[reportMissingImports]

    given = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask)}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        given["token_type_ids"] = torch.tensor(types)
    with torch.no_grad():
        found = model(**given, output_hidden_states=True)
    scores = getattr(found, "logits", getattr(found, "pooler_output", None))
    return found.hidden_states[-1].float().numpy(), None if scores is None else scores.float().numpy()


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).max() / np.abs(second).max())


def _open(folder: Path) -> Any:
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("--verify needs torch and transformers: pip install -e '.[hf]'") from error
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = getattr(transformers, settings["architectures"][0]).from_pretrained(folder)
    return model.float().eval()
