"""Filling masks: the likeliest tokens for each mask of a text, and the text with all of them filled."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from research.inference.text_model import LinenModel, TextModel, batched, bucket, rows_of, vocabulary_logits, without
from research.types import Params

MASK = re.compile(r"<mask>|\[MASK\]")


def fill_mask(
    text_model: TextModel,
    texts: Sequence[str],
    *,
    num_candidates: int = 5,
    batch_size: int = 32,
    first_index: int = 0,
) -> Iterator[dict[str, Any]]:
    """For each text, in order: {"input", "output", "masks": for each mask its candidates {"token", "probability"}}.

    `<mask>` and `[MASK]` stand for one token each. Candidates come from one pass in which all masks are hidden;
    special tokens are none. The output is filled one mask at a time, the most certain first, each seen by the next.
    Where tokens bring the space before them, one in front of a mask belongs to the mask.

    Raises:
      ValueError: a text without a mask, or with more tokens than the model has positions; a tokenizer without a mask
        token; before any text is filled.
    """
    facts = text_model.facts
    if facts.mask_id < 0:
        raise ValueError("this model's tokenizer has no mask token; fill_mask needs a run of objective masked_lm")
    if num_candidates < 1:
        raise ValueError(f"{num_candidates} candidates for each mask; wanted 1 or more")
    banned = tuple(sorted({facts.pad_id, facts.unk_id, facts.bos_id, facts.eos_id, facts.mask_id} - {-1}))
    program = _Program(text_model.model, facts.vocab_size, banned, min(num_candidates, facts.vocab_size - len(banned)))
    masked = [_read(text_model, text, f"text {index + 1}") for index, text in enumerate(texts, start=first_index)]
    for batch in batched(masked, batch_size):
        yield from _fill(text_model, batch, program)


@dataclass(frozen=True)
class _Masked:
    """A text cut at its masks."""

    text: str
    pieces: list[str]  # what stands before, between and behind the masks
    tokens: list[int]
    slots: list[int]  # where in `tokens` the masks are


@dataclass(frozen=True)
class _Program:
    """What is compiled in."""

    model: LinenModel
    vocab_size: int
    banned: tuple[int, ...]
    num_candidates: int


def _read(text_model: TextModel, text: str, where: str) -> _Masked:
    pieces = MASK.split(text)
    if len(pieces) == 1:
        raise ValueError(f"{where} has no mask: {_short(text)!r}; write <mask> or [MASK] where a token is missing")
    if _brings_space(text_model):
        pieces = [piece.removesuffix(" ") for piece in pieces[:-1]] + pieces[-1:]
    tokens, slots = text_model.start(), []
    for number, piece in enumerate(pieces):
        if number:
            slots.append(len(tokens))
            tokens.append(text_model.facts.mask_id)
        tokens += text_model.encode(piece)
    if text_model.num_positions and len(tokens) > text_model.num_positions:
        raise ValueError(
            f"{where} has {len(tokens)} tokens, the model {text_model.num_positions} positions; give a shorter text"
        )
    return _Masked(text, pieces, tokens, slots)


def _fill(text_model: TextModel, batch: Sequence[_Masked], program: _Program) -> Iterator[dict[str, Any]]:
    num_rows, num_slots = bucket(len(batch), least=1), bucket(max(len(text.slots) for text in batch), least=1)
    tokens = np.zeros((num_rows, bucket(max(len(text.tokens) for text in batch))), np.int32)
    lengths = np.zeros(num_rows, np.int32)
    slots = np.zeros((num_rows, num_slots), np.int32)
    hidden = np.zeros((num_rows, num_slots), bool)
    for row, text in enumerate(batch):
        tokens[row, : len(text.tokens)] = text.tokens
        lengths[row] = len(text.tokens)
        slots[row, : len(text.slots)] = text.slots
        hidden[row, : len(text.slots)] = True

    probabilities, ids = map(np.asarray, _candidates(program, text_model.params, tokens, lengths, slots))
    best, best_ids = probabilities[:, :, 0], ids[:, :, 0]
    while True:
        surest = np.argmax(np.where(hidden, best, -1.0), axis=1)
        rows = np.flatnonzero(hidden.any(axis=1))
        tokens[rows, slots[rows, surest[rows]]] = best_ids[rows, surest[rows]]
        hidden[rows, surest[rows]] = False
        if not hidden.any():
            break
        again, ids_again = map(np.asarray, _candidates(program, text_model.params, tokens, lengths, slots))
        best, best_ids = again[:, :, 0], ids_again[:, :, 0]

    for row, text in enumerate(batch):
        masks = []
        for slot in range(len(text.slots)):
            likeliest = zip(ids[row, slot], probabilities[row, slot], strict=True)
            masks.append([{"token": _spell(text_model, int(i)), "probability": float(p)} for i, p in likeliest])
        filled = [int(tokens[row, slot]) for slot in text.slots]
        yield {"input": text.text, "output": _join(text_model, text.pieces, filled), "masks": masks}


@functools.partial(jax.jit, static_argnums=0)
def _candidates(
    program: _Program, params: Params, tokens: Int[Array, "B L"], lengths: Int[Array, " B"], slots: Int[Array, "B N"]
) -> tuple[Float[Array, "B N C"], Int[Array, "B N C"]]:
    """Probabilities (shares of the whole vocabulary) and ids of the C likeliest tokens at each slot."""
    hidden, _ = program.model.apply({"params": params}, tokens, **rows_of(tokens, lengths))
    at_slots = jnp.take_along_axis(hidden, slots[:, :, None], axis=1)
    logits = vocabulary_logits(program.model, params, at_slots)[..., : program.vocab_size]
    probabilities = jax.nn.softmax(logits, axis=-1)
    _, ids = jax.lax.top_k(without(logits, program.banned), program.num_candidates)
    return jnp.take_along_axis(probabilities, ids, axis=-1), ids


def _join(text_model: TextModel, pieces: Sequence[str], filled: Sequence[int]) -> str:
    """The user's own text with each run of adjacent masks replaced by what was found."""
    output, run = pieces[0], []
    for piece, token in zip(pieces[1:], filled, strict=True):
        run.append(token)
        if piece:
            output = _attach(text_model, output, run) + piece
            run = []
    return _attach(text_model, output, run) if run else output


def _attach(text_model: TextModel, before: str, run: list[int]) -> str:
    text = text_model.tokenizer.decode(run, skip_special_tokens=False)
    prefix = getattr(text_model.tokenizer.model, "continuing_subword_prefix", "")  # "##" of WordPiece
    if not prefix:
        return before + text
    if text.startswith(prefix):  # it continues the word
        return before.removesuffix(" ") + text.removeprefix(prefix)
    return before + (" " if before[-1:].isalnum() and text[:1].isalnum() else "") + text


def _spell(text_model: TextModel, token: int) -> str:
    return text_model.tokenizer.decode([token], skip_special_tokens=False)


def _brings_space(text_model: TextModel) -> bool:
    """Whether a word's token holds the space before it, as in byte-level BPE and SentencePiece."""
    return any(len(token) > 1 and token[0] in "\u0120\u2581" for token in text_model.tokenizer.get_vocab())


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
