"""The same inputs through transformers and through our model: how far apart they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-5  # float32, relative to the largest value

# Vectors [B L D], and what the head gives: [B L C] or [B C].
Found = tuple[np.ndarray, np.ndarray]
# tokens, mask (1 where real) and token types, each int [B L], to these.
Outputs = Callable[[np.ndarray, np.ndarray, np.ndarray], Found]


def differences(
    folder: Path, ours: Outputs, *, vocab_size: int, length: int, head: bool, seed: int = 0
) -> dict[str, float]:
    """Largest differences, as `compare` gives them, on texts of at most `length` tokens.

    Raises:
      ValueError: torch or transformers are not installed.
      RuntimeError: as `compare`.
    """
    model = _open(folder)
    pad_id = model.config.pad_token_id or 0
    tokens, mask, types = draw_inputs(vocab_size, pad_id=pad_id, seed=seed, length=min(19, length))
    return compare(ours(tokens, mask, types), run(model, tokens, mask, types), mask > 0, head=head)


def compare(
    ours: Found, theirs: tuple[np.ndarray, np.ndarray | None], real: np.ndarray, *, head: bool
) -> dict[str, float]:
    """Largest differences, each relative to the largest value: of the vectors and, where `head`, of the scores.

    Raises:
      RuntimeError: the two sides differ in shape, or transformers has no scores.
    """
    found, names = {}, ["vectors", "head"] if head else ["vectors"]
    for name, first, second in zip(names, ours, theirs, strict=False):
        if second is None or first.shape != second.shape:
            shape = "nothing" if second is None else list(second.shape)
            raise RuntimeError(f"{name}: {list(first.shape)} here and {shape} in transformers cannot be compared")
        where = real if first.ndim == 3 else slice(None)
        found[name] = difference(first[where], second[where])
    return found


def draw_inputs(
    vocab_size: int, *, pad_id: int, seed: int = 0, length: int = 19
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random tokens, row i of length // (i + 1) but at least one: ids, mask and token types, int64 [5, length].

    The largest of a few numbers, one a row, is not near 0 by chance as the only one may be.
    """
    rng = np.random.default_rng(seed)
    lengths = np.maximum(length // np.arange(1, 6), 1)[:, None]
    tokens = rng.integers(min(5, vocab_size - 1), vocab_size, (5, length))
    tokens = np.where(tokens == pad_id, vocab_size - 1, tokens)
    mask = (np.arange(length) < lengths).astype(np.int64)
    types = (np.arange(length) >= length // 3) * mask
    return np.where(mask > 0, tokens, pad_id), mask, types


def run(model: Any, tokens: np.ndarray, mask: np.ndarray, types: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The last vectors of a transformers model, and its logits, or the pooler's output where it has no head.

    Those of where an answer begins and of where it ends are one array [B L 2].
    """
    import torch  # pyright: ignore[reportMissingImports]

    given = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask)}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        given["token_type_ids"] = torch.tensor(types)
    with torch.no_grad():
        found = model(**given, output_hidden_states=True)
    if hasattr(found, "start_logits"):
        scores = torch.stack([found.start_logits, found.end_logits], dim=-1)
    else:
        scores = getattr(found, "logits", getattr(found, "pooler_output", None))
    return found.hidden_states[-1].float().numpy(), None if scores is None else scores.float().numpy()


def image_outputs(folder: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last vectors [B L D] of a transformers model of images, given normalised pixels [B Y X C], and its logits, or
    the vectors of the first position where it has no head.

    Raises:
      ValueError: torch or transformers are not installed.
    """
    model = _open(folder)
    import torch  # pyright: ignore[reportMissingImports]

    found: dict[str, Any] = {}
    inner = getattr(model, "vit", getattr(model, "resnet", model))
    hook = inner.register_forward_hook(lambda module, given, out: found.update(hidden=out.last_hidden_state))
    with torch.no_grad():
        outputs = model(torch.tensor(np.moveaxis(images, 3, 1).copy()))
    hook.remove()
    hidden = found["hidden"].numpy()
    if hidden.ndim == 4:  # a feature map [B D Y X]
        hidden = np.moveaxis(hidden, 1, 3).reshape(len(images), -1, hidden.shape[1])
    return hidden, outputs.logits.numpy() if hasattr(outputs, "logits") else hidden[:, 0]


def pair_outputs(folder: Path, images: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    """Unit vectors of images and of texts [B E], and the logits of all pairs [B B], of a CLIPModel of transformers,
    given normalised pixels [B Y X C], tokens and their mask [B L].

    Raises:
      ValueError: torch or transformers are not installed.
    """
    model = _open(folder)
    import torch  # pyright: ignore[reportMissingImports]

    pixels = torch.tensor(np.moveaxis(images, 3, 1).copy())
    with torch.no_grad():
        found = model(pixel_values=pixels, input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask))
    return [array.numpy() for array in (found.image_embeds, found.text_embeds, found.logits_per_image)]


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
