"""Texts made harder: typos, other case, truncation and words left out, each by (seed, index of the text) alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.random import Generator

from research.batch import Dataset, Split
from research.data.labelled import LabelledRows, labelled_split
from research.data.tagging import tagged_split
from research.data.tokenizers import SPECIAL_TOKENS, from_json

TYPO_RATE = 0.05  # of letters and digits
DROP_RATE = 0.2  # of words

_KEYBOARD = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = {key: row[max(0, at - 1) : at] + row[at + 1 : at + 2] for row in _KEYBOARD for at, key in enumerate(row)}
# A text that asks for a hidden word asks for nothing without its mask.
_SPECIAL = re.compile("(" + "|".join(map(re.escape, (*SPECIAL_TOKENS, "[MASK]"))) + ")")
_WORD = re.compile(r"\S+\s*")


def typos(text: str, rng: Generator, *, rate: float = TYPO_RATE) -> str:
    """Each letter or digit is mistyped with the probability `rate`, in one of four ways, equally likely.

    It is swapped with the one behind it, left out, doubled, or replaced by its neighbour in its row of a QWERTY
    keyboard; doubled too where there is no such neighbour, or no letter behind. A text is never typed away.
    """
    hits = np.flatnonzero(rng.random(len(text)) < rate)
    ways = rng.integers(0, 4, len(hits))
    sides = rng.integers(0, 2, len(hits))
    found, done = [], 0
    for at, way, side in zip(hits.tolist(), ways, sides, strict=True):
        letter, behind = text[at], text[at + 1 : at + 2]
        if at < done or not letter.isalnum():  # behind a swap it is part of that
            continue
        found.append(text[done:at])
        done = at + 1
        beside = _BESIDE.get(letter.lower(), "")
        if way == 0 and behind.isalnum():
            found.append(behind + letter)
            done += 1
        elif way == 2 and beside:
            other = beside[side % len(beside)]
            found.append(other.upper() if letter.isupper() else other)
        elif way != 1:
            found.append(letter * 2)
    mistyped = "".join(found) + text[done:]
    return mistyped if mistyped.strip() else text


def first_half(num_words: int, rng: Generator) -> list[int]:
    """The places of the first half of the words, the larger one of an odd number."""
    return list(range((num_words + 1) // 2))


def most_words(num_words: int, rng: Generator, *, rate: float = DROP_RATE) -> list[int]:
    """The places of the words that are left where each is dropped with the probability `rate`; the first if none is."""
    return np.flatnonzero(rng.random(num_words) >= rate).tolist() or list(range(num_words))[:1]


# What changes the characters of a text, and what chooses its words.
CHARACTERS: dict[str, Callable[[str, Generator], str]] = {
    "typos": typos,
    "lower_case": lambda text, rng: text.lower(),
    "upper_case": lambda text, rng: text.upper(),
}
WORDS: dict[str, Callable[[int, Generator], list[int]]] = {"first_half": first_half, "dropped_words": most_words}
KINDS = (*CHARACTERS, *WORDS)


def perturb(text: str, kind: str, *, seed: int, index: int, piece: int = 0) -> str:
    """A text under one of KINDS; special tokens written in it stay. `index` is that of the example, `piece` tells its
    texts apart.
    """
    rng = np.random.default_rng((seed, index, piece))
    if kind in CHARACTERS:
        parts = _SPECIAL.split(text)  # special tokens at the odd places
        parts[::2] = [CHARACTERS[kind](part, rng) for part in parts[::2]]
        return "".join(parts)
    words = _WORD.findall(text)
    chosen = set(WORDS[kind](len(words), rng))
    return "".join(word for at, word in enumerate(words) if at in chosen or _hidden(word, kind)).rstrip()


def perturb_words(
    words: Sequence[str], tags: Sequence[int], kind: str, *, seed: int, index: int
) -> tuple[list[str], list[int]]:
    """Words under one of KINDS, one by one, with their tags; a word that is left out takes its tag with it."""
    if kind in CHARACTERS:
        return [perturb(word, kind, seed=seed, index=index, piece=at) for at, word in enumerate(words)], list(tags)
    chosen = WORDS[kind](len(words), np.random.default_rng((seed, index, 0)))
    return [words[at] for at in chosen], [tags[at] for at in chosen]


def perturbed(dataset: Dataset, split: str, *, seed: int) -> Dataset:
    """The training split, "clean": the split itself, and a perturbed copy of it for each of KINDS; tokenizer, length
    and the order of the examples are the same.

    Raises:
      ValueError: the texts are neither labelled nor tagged.
    """
    part = dataset.splits[split]
    check_perturbable(part)
    copies = {kind: _copy(part, kind, dataset, seed) for kind in KINDS}
    return replace(dataset, splits={"train": dataset.splits["train"], "clean": part, **copies})


def check_perturbable(part: Split) -> None:
    if not part.pieces and not part.words:
        raise ValueError("evaluation.robustness perturbs labelled or tagged texts, and these are neither; leave it out")


def _copy(part: Split, kind: str, dataset: Dataset, seed: int) -> Split:
    tokenizer, length = from_json(dataset.tokenizer), dataset.spec.length
    if part.words:
        pairs = zip(part.words, part.tags, strict=True)
        made = [perturb_words(words, tags, kind, seed=seed, index=index) for index, (words, tags) in enumerate(pairs)]
        words, tags = [words for words, _ in made], [tags for _, tags in made]
        return tagged_split(words, tags, tokenizer, length=length, fields=part.fields)
    texts = [
        tuple(perturb(text, kind, seed=seed, index=index, piece=piece) for piece, text in enumerate(pieces))
        for index, pieces in enumerate(part.pieces)
    ]
    rows = cast(LabelledRows, part.examples)
    copy, _ = labelled_split(texts, rows.labels, tokenizer, length=length, fields=part.fields, key=rows.key)
    return replace(copy, labels=part.labels)


def _hidden(word: str, kind: str) -> bool:
    """Whether a word that is to be dropped holds a special token; the end of a text is cut off with what is in it."""
    return kind == "dropped_words" and _SPECIAL.search(word) is not None
