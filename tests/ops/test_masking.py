"""Masking: what is chosen, what replaces it, and that a row knows nothing of its batch."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.masking import example_keys, gather_positions, mask_capacity, masked_lm_corruption

V, MASK, FIRST = 97, 4, 5
UNITS = ["tokens", "words", "spans"]
WORD_STARTS = np.arange(V) % 3 == 0  # ids 6, 9, … begin a word, the two after each continue it
WORD_ENDS = np.arange(V) == 90  # a word of its own: nothing continues it


@functools.cache
def jitted(**arguments):
    if arguments["unit"] == "words":
        arguments = dict(word_starts=WORD_STARTS, word_ends=WORD_ENDS) | arguments
    return jax.jit(functools.partial(masked_lm_corruption, **arguments))


def corrupt(ids, tokens, maskable, segment_ids=None, **arguments):
    keys = example_keys(jax.random.key(7), jnp.asarray(ids, jnp.uint32))
    segment_ids = jnp.ones(np.shape(tokens), jnp.int32) if segment_ids is None else jnp.asarray(segment_ids)
    arguments = dict(rate=0.15, unit="tokens", mask_id=MASK, vocab_size=V) | arguments
    corrupted, chosen = jitted(**arguments)(keys, jnp.asarray(tokens, jnp.int32), jnp.asarray(maskable), segment_ids)
    return np.asarray(corrupted), np.asarray(chosen)


def random_rows(num_rows, length, seed=0):
    random = np.random.default_rng(seed)
    tokens = random.integers(FIRST, V, (num_rows, length), np.int32)
    maskable = np.arange(length)[None] < random.integers(0, length + 1, num_rows)[:, None]
    maskable[:, 0] = False
    segment_ids = np.tile(np.where(np.arange(length) < length // 2, 1, 2), (num_rows, 1)).astype(np.int32)
    return tokens, maskable, segment_ids


def words_of(tokens, maskable, segment_ids):
    """The words of one row, each a list of positions, read off one token after the other."""
    words, word = [], []
    for position, token in enumerate(tokens):
        ended = position and (WORD_ENDS[tokens[position - 1]] or segment_ids[position] != segment_ids[position - 1])
        if word and (WORD_STARTS[token] or ended or not maskable[position]):
            words, word = [*words, word], []
        if maskable[position]:
            word.append(position)
    return [*words, word] if word else words


@pytest.mark.parametrize("rate", [0.15, 0.4, 1.0])
def test_tokens_are_chosen_exactly_as_often_as_wanted(rate):
    tokens, maskable, _ = random_rows(53, 31)
    _, chosen = corrupt(np.arange(53), tokens, maskable, rate=rate)
    for row in range(53):
        count = maskable[row].sum()
        wanted = min(max(round(rate * count), 1), math.ceil(rate * 31)) if count else 0
        assert chosen[row].sum() == wanted


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rate", [0.03, 0.15, 0.5])
def test_no_row_exceeds_the_capacity_and_only_maskable_positions_are_chosen(unit, rate):
    tokens, maskable, segment_ids = random_rows(211, 31)
    corrupted, chosen = corrupt(np.arange(211), tokens, maskable, segment_ids, rate=rate, unit=unit)
    assert not np.any(chosen & ~maskable)
    assert chosen.sum(axis=1).max() <= mask_capacity(rate=rate, length=31)
    np.testing.assert_array_equal(corrupted[~chosen], tokens[~chosen])


@pytest.mark.parametrize("unit", UNITS)
def test_about_the_rate_is_chosen(unit):
    tokens, _, segment_ids = random_rows(499, 127)
    _, chosen = corrupt(np.arange(499), tokens, np.ones_like(tokens, bool), segment_ids, unit=unit)
    per_row = chosen.sum(axis=1)
    assert per_row.max() <= round(0.15 * 127)
    assert per_row.mean() > 0.98 * round(0.15 * 127)


@pytest.mark.parametrize("unit", UNITS)
def test_every_position_is_chosen_equally_often(unit):
    num_rows, length = 6007, 26
    tokens = np.full((num_rows, length), 7)
    tokens[:, ::2] = 6  # words of two, of which 8 positions take four
    _, chosen = corrupt(np.arange(num_rows), tokens, np.ones_like(tokens, bool), unit=unit, rate=0.3)
    shares = chosen.mean(axis=0)
    if unit == "spans":  # the row's ends cut spans, and long ones are refused near the end of the budget
        shares = shares[5:-5]
    # Five standard deviations of a share near 0.3 over 6007 rows.
    assert np.ptp(shares) < 2 * 5 * np.sqrt(0.3 * 0.7 / num_rows)


def test_eighty_ten_ten():
    tokens = np.full((997, 127), 50)
    corrupted, chosen = corrupt(np.arange(997), tokens, np.ones_like(tokens, bool))
    seen = corrupted[chosen]
    masked, kept = np.mean(seen == MASK), np.mean(seen == 50)
    random = seen[(seen != MASK) & (seen != 50)]
    assert abs(masked - 0.8) < 0.01 and abs(kept - 0.1 - 0.1 / 92) < 0.01
    counts = np.bincount(random, minlength=V)
    assert counts[:FIRST].sum() == 0 and len(counts) == V
    ordinary = np.delete(counts[FIRST:], 50 - FIRST)
    expected = ordinary.mean()
    assert np.sum((ordinary - expected) ** 2 / expected) < 91 + 5 * np.sqrt(2 * 91)  # chi-square, 90 degrees of freedom


def test_replacement_shares_are_arguments():
    tokens = np.full((97, 127), 50)
    corrupted, chosen = corrupt(
        np.arange(97), tokens, np.ones_like(tokens, bool), mask_probability=1.0, random_probability=0.0
    )
    assert np.all(corrupted[chosen] == MASK)
    corrupted, chosen = corrupt(
        np.arange(97), tokens, np.ones_like(tokens, bool), mask_probability=0.0, random_probability=1.0
    )
    assert MASK not in corrupted and np.mean(corrupted[chosen] != 50) > 0.95
    corrupted, _ = corrupt(
        np.arange(97), tokens, np.ones_like(tokens, bool), mask_probability=0.0, random_probability=0.0
    )
    np.testing.assert_array_equal(corrupted, tokens)


def test_words_are_chosen_whole_and_end_at_segments():
    tokens, maskable, segment_ids = random_rows(301, 31)
    _, chosen = corrupt(np.arange(301), tokens, maskable, segment_ids, rate=0.3, unit="words")
    split_by_segment = 0
    for row in range(301):
        words = words_of(tokens[row], maskable[row], segment_ids[row])
        assert all(len(set(chosen[row][word])) == 1 for word in words)
        one_segment = words_of(tokens[row], maskable[row], np.ones(31))
        split_by_segment += any(len(set(chosen[row][word])) == 2 for word in one_segment)
    assert split_by_segment > 0  # else the test could not see a border


def test_words_are_taken_in_turn_while_they_fit():
    """Fewer positions than wanted stay free only where no word left over fits."""
    tokens, maskable, segment_ids = random_rows(301, 31)
    _, chosen = corrupt(np.arange(301), tokens, maskable, segment_ids, rate=0.3, unit="words")
    for row in range(301):
        free = max(round(0.3 * maskable[row].sum()), 1) - chosen[row].sum()
        words = words_of(tokens[row], maskable[row], segment_ids[row])
        assert all(len(word) > free for word in words if not chosen[row][word[0]])


def test_a_row_of_one_long_word_is_still_trained_on():
    tokens = np.array([[6, 7, 7, 7, *[0] * 36]])
    maskable = np.arange(40)[None] < 4
    _, chosen = corrupt([0], tokens, maskable, unit="words")
    np.testing.assert_array_equal(chosen, maskable)


def test_spans_are_contiguous_and_of_the_stated_length():
    tokens = np.full((499, 509), 50)
    _, chosen = corrupt(np.arange(499), tokens, np.ones_like(tokens, bool), unit="spans", rate=0.02)
    edges = np.diff(np.pad(chosen, [(0, 0), (1, 1)]).astype(int), axis=1)
    lengths = np.argwhere(edges == -1)[:, 1] - np.argwhere(edges == 1)[:, 1]
    # At 2 % of a long row few spans touch; those longer than what is left of 10 positions are refused.
    assert 2.0 < lengths.mean() < 3.3 and np.mean(lengths == 1) < 0.5


@pytest.mark.parametrize("unit", UNITS)
def test_a_row_depends_on_its_key_and_content_alone(unit):
    tokens, maskable, segment_ids = random_rows(5, 31)
    together = corrupt([3, 1, 4, 1, 5], tokens, maskable, segment_ids, unit=unit, rate=0.3)
    for row, example_id in enumerate([3, 1, 4, 1, 5]):
        one = slice(row, row + 1)
        alone = corrupt([example_id], tokens[one], maskable[one], segment_ids[one], unit=unit, rate=0.3)
        np.testing.assert_array_equal(alone[0], together[0][one])
        np.testing.assert_array_equal(alone[1], together[1][one])


@pytest.mark.parametrize("unit", UNITS)
def test_examples_differ(unit):
    tokens = np.full((3, 127), 6)
    _, chosen = corrupt([0, 1, 2**32 - 1], tokens, np.ones_like(tokens, bool), unit=unit)
    assert len({row.tobytes() for row in chosen}) == 3


def test_jit_agrees_and_compiles_once():
    arguments = dict(rate=0.3, unit="words", mask_id=MASK, vocab_size=V, word_starts=WORD_STARTS, word_ends=WORD_ENDS)
    num_traces = 0

    @jax.jit
    def traced(*arrays):
        nonlocal num_traces
        num_traces += 1
        return masked_lm_corruption(*arrays, **arguments)

    for step in range(3):
        keys = example_keys(jax.random.key(7), jnp.arange(5, dtype=jnp.uint32) + step)
        arrays = [keys, *map(jnp.asarray, random_rows(5, 31, seed=step))]
        result = traced(*arrays)
    assert num_traces == 1
    jax.tree.map(np.testing.assert_array_equal, result, masked_lm_corruption(*arrays, **arguments))


def test_capacity_is_exact_in_spite_of_binary_fractions():
    assert mask_capacity(rate=0.1, length=30) == 3
    assert mask_capacity(rate=0.15, length=128) == 20
    assert mask_capacity(rate=1.0, length=31) == 31


def test_gather_keeps_the_first_positions_in_order():
    chosen = jnp.array([[False, True, True, False, True], [False] * 5, [True] * 5])
    positions, where = gather_positions(chosen, capacity=3)
    np.testing.assert_array_equal(positions, [[1, 2, 4], [0, 0, 0], [0, 1, 2]])
    np.testing.assert_array_equal(where, [[True] * 3, [False] * 3, [True] * 3])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(rate=0.0), "rate=0.0"),
        (dict(rate=15.0), "rate=15.0"),
        (dict(mask_probability=0.9, random_probability=0.2), "add up to at most 1"),
        (dict(unit="words", word_starts=None), "word_starts"),
        (dict(mean_span_length=0.5), "mean_span_length=0.5"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        corrupt([0], np.full((1, 5), 6), np.ones((1, 5), bool), **arguments)
