"""Which positions a masked language model must predict, and what it sees there: on the device, keyed by example."""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, UInt32

_ROUNDS = 4  # of filling up with units that still fit; after three, 1 row of 100 had a token or so left to fill


def example_keys(key: Key[Array, ""], example_id: UInt32[Array, " B"] | Int[Array, " B"]) -> Key[Array, " B"]:
    """One key per example, whatever the batch that it comes in."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, example_id)


def mask_capacity(*, rate: float, length: int) -> int:
    """K, the most positions of a row that are ever masked: ceil(rate · length)."""
    return math.ceil(rate * length - 1e-9)  # 0.1 · 30 is above 3 in floating point


def masked_lm_corruption(
    keys: Key[Array, " B"],
    tokens: Int[Array, "B L"],
    maskable: Bool[Array, "B L"],
    segment_ids: Int[Array, "B L"],
    *,
    rate: float,
    unit: Literal["tokens", "words", "spans"],
    mask_id: int,
    vocab_size: int,
    first_ordinary_id: int = 5,
    mask_probability: float = 0.8,
    random_probability: float = 0.1,
    word_starts: np.ndarray | None = None,
    word_ends: np.ndarray | None = None,
    mean_span_length: float = 3.0,
) -> tuple[Int[Array, "B L"], Bool[Array, "B L"]]:
    """The corrupted tokens and the positions chosen for prediction, as in BERT (Devlin et al. 2019, section 3.1).

    A row wants round(rate · maskable tokens) positions, at least 1 if any is maskable and never more than
    K = ceil(rate · L). Units (tokens, whole words, or spans) come in random order, and each that fits in what is
    still wanted is taken whole (in four passes; the rare row that would need a fifth stays a little below). The first
    alone may exceed what is wanted, never K: a row of one long word is still trained on. A unit longer than K is never
    taken. Of the chosen positions a share `mask_probability` becomes
    `mask_id`, `random_probability` an ordinary id below `vocab_size`, the rest stays. A row depends on its key and its
    own contents alone.

    Words are told apart by the tables [V] `word_starts` (this token begins a word) and `word_ends` (no token
    continues its word). Spans cut the row at random into pieces of geometric length with mean `mean_span_length`.
    No unit crosses a segment's border or a position that is not maskable.

    Raises:
      ValueError: a rate outside (0, 1], probabilities that exceed 1, spans shorter than 1, or words without tables.
    """
    if mean_span_length < 1.0:
        raise ValueError(f"mean_span_length={mean_span_length}; wanted at least 1 token, such as 3")
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"masking rate={rate}; wanted a share above 0 and at most 1, such as 0.15")
    if min(mask_probability, random_probability) < 0.0 or mask_probability + random_probability > 1.0:
        raise ValueError(
            f"mask_probability={mask_probability} and random_probability={random_probability} must not be negative "
            "and must add up to at most 1; lower one of them"
        )
    length = tokens.shape[1]
    bits = jax.vmap(lambda key: jax.random.bits(key, (3 if unit == "spans" else 2, length)))(keys)
    capacity = mask_capacity(rate=rate, length=length)
    num_maskable = jnp.sum(maskable, axis=1)
    wanted = jnp.round(rate * num_maskable).astype(jnp.int32)
    wanted = jnp.where(num_maskable > 0, jnp.clip(wanted, 1, capacity), 0)
    if unit == "tokens":
        chosen = _choose_tokens(bits[:, 0], maskable, wanted)
    else:
        if unit == "words":
            starts = _word_starts(tokens, word_starts, word_ends)
        else:
            starts = _below(bits[:, 2], 1.0 / mean_span_length)
        starts |= segment_ids != jnp.roll(segment_ids, 1, axis=1)
        chosen = _choose_units(bits[:, 0], starts, maskable, wanted, capacity)
    corrupted = _replace(
        bits[:, 1], tokens, mask_id, vocab_size, first_ordinary_id, mask_probability, random_probability
    )
    return jnp.where(chosen, corrupted, tokens), chosen


def gather_positions(chosen: Bool[Array, "B L"], *, capacity: int) -> tuple[Int[Array, "B K"], Bool[Array, "B K"]]:
    """The first `capacity` chosen positions of each row in order, and which slots are real; position 0 elsewhere."""
    length = chosen.shape[1]
    positions = jax.lax.broadcasted_iota(jnp.int32, chosen.shape, 1)
    slots = jnp.sort(jnp.where(chosen, positions, length), axis=1)[:, :capacity]
    where = slots < length
    return jnp.where(where, slots, 0), where


def _word_starts(tokens: Array, word_starts: np.ndarray | None, word_ends: np.ndarray | None) -> Bool[Array, "B L"]:
    if word_starts is None or word_ends is None:
        raise ValueError("masking unit 'words' needs the tokenizer's word_starts and word_ends; or use unit 'tokens'")
    ended = jnp.roll(jnp.asarray(word_ends)[tokens], 1, axis=1)
    return jnp.asarray(word_starts)[tokens] | ended


def _choose_tokens(bits: Array, maskable: Array, wanted: Array) -> Bool[Array, "B L"]:
    keys = _sort_keys(bits, maskable)
    last = jnp.take_along_axis(jnp.sort(keys, axis=1), jnp.maximum(wanted, 1)[:, None] - 1, axis=1)
    return maskable & (keys <= last)


def _choose_units(bits: Array, starts: Array, maskable: Array, wanted: Array, capacity: int) -> Bool[Array, "B L"]:
    length = maskable.shape[1]
    positions = jax.lax.broadcasted_iota(jnp.int32, maskable.shape, 1)
    border = starts | ~maskable | ~jnp.roll(maskable, 1, axis=1) | (positions == 0)
    ahead = jnp.where(jnp.roll(border, -1, axis=1), positions + 1, length).at[:, -1].set(length)
    sizes = jax.lax.cummin(ahead, axis=1, reverse=True) - positions  # of the unit that starts here
    eligible = border & maskable & (sizes <= capacity)

    keys = jnp.sort(_sort_keys(bits, eligible), axis=1)
    order = (keys & _position_bits(length)).astype(jnp.int32)
    sizes = jnp.take_along_axis(jnp.where(eligible, sizes, 0), order, axis=1)
    left = jnp.maximum(wanted, sizes[:, 0])
    taken = jnp.zeros_like(eligible)
    for _ in range(_ROUNDS):
        # What does not fit now never will, so each round goes on from where the one before was stopped.
        fits = ~taken & (sizes > 0) & (sizes <= left[:, None])
        new = fits & (jnp.cumsum(jnp.where(fits, sizes, 0), axis=1) <= left[:, None])
        taken |= new
        left -= jnp.sum(jnp.where(new, sizes, 0), axis=1)

    taken_at = jax.vmap(lambda order, taken: jnp.zeros_like(taken).at[order].set(taken))(order, taken)
    start = jax.lax.cummax(jnp.where(border, positions, 0), axis=1)
    return maskable & jnp.take_along_axis(taken_at, start, axis=1)


def _replace(
    bits: Array,
    tokens: Array,
    mask_id: int,
    vocab_size: int,
    first_ordinary_id: int,
    mask_probability: float,
    random_probability: float,
) -> Int[Array, "B L"]:
    """Every token as it looks when chosen: one uniform number decides what happens and, by its remainder, which id."""
    masked = _below(bits, mask_probability)
    random = ~masked & _below(bits, mask_probability + random_probability)
    offset = bits - jnp.uint32(round(mask_probability * 2**32) & 0xFFFFFFFF)
    num_ordinary = vocab_size - first_ordinary_id
    # The remainder favours low ids by a share below num_ordinary / (random_probability · 2^32).
    ordinary = first_ordinary_id + (offset % jnp.uint32(num_ordinary)).astype(tokens.dtype)
    return jnp.where(masked, mask_id, jnp.where(random, ordinary, tokens))


def _below(bits: UInt32[Array, "B L"], probability: float) -> Bool[Array, "B L"]:
    """True with this probability."""
    threshold = round(probability * 2**32)
    return bits < jnp.uint32(threshold) if threshold < 2**32 else jnp.ones_like(bits, bool)


def _sort_keys(bits: UInt32[Array, "B L"], eligible: Bool[Array, "B L"]) -> UInt32[Array, "B L"]:
    """Random sort keys: eligible positions first, the low bits hold the position, so that no two are equal."""
    low = _position_bits(bits.shape[1])
    positions = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, 1)
    return ((bits >> 1) & ~low) | positions | jnp.where(eligible, jnp.uint32(0), jnp.uint32(1 << 31))


def _position_bits(length: int) -> Array:
    return jnp.uint32((1 << (length - 1).bit_length()) - 1)
