"""Answers without a network: the phrase beside which most of the question's words stand."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

NUM_COMMON = 200  # words that part phrases; the most frequent ones of the training texts

_WORD = re.compile(r"\w+(?:['’.,-]\w+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class _Word(NamedTuple):
    text: str  # lower case
    first: int
    last: int


class _Phrase(NamedTuple):
    """The words first … last - 1 of a sentence."""

    words: list[_Word]
    first: int
    last: int


def sliding_window(train_texts: Sequence[str], asked: Sequence[tuple[str, str]]) -> list[str]:
    """An answer to each question (question, context): the sliding window of Rajpurkar et al. 2016 (section 6.1).

    The candidates whose sentence shares most single words and pairs of words with the question, the candidate itself
    left out, are kept; of these the one is taken whose words and the question's weigh most in a window over its
    sentence (Richardson et al. 2013, algorithm 1, with their weight log(1 + 1 / count in the context)). The first of
    equals wins. There the candidates are a parser's constituents; here they are runs of words without a common one and
    without punctuation that are not all in the question.
    """
    common = _most_frequent(train_texts)
    read: dict[str, tuple[list[_Phrase], Counter[str]]] = {}
    answers = []
    for question, context in asked:
        if context not in read:
            read[context] = (_phrases(context, common), Counter(word.text for word in _words(context)))
        phrases, counts = read[context]
        chosen = _choose([word.text for word in _words(question)], phrases, counts)
        answers.append("" if chosen is None else context[chosen.words[chosen.first].first : _end(chosen)])
    return answers


def _choose(question: Sequence[str], phrases: Sequence[_Phrase], counts: Counter[str]) -> _Phrase | None:
    wanted = set(question)
    pairs = set(zip(question, question[1:], strict=False))
    new = [phrase for phrase in phrases if any(word.text not in wanted for word in _inside(phrase))]
    if not new:
        return None
    overlaps = [_overlap(phrase, wanted, pairs) for phrase in new]
    kept = [phrase for phrase, overlap in zip(new, overlaps, strict=True) if overlap == max(overlaps)]
    return max(kept, key=lambda phrase: _weight(phrase, wanted, counts))


def _overlap(phrase: _Phrase, wanted: set[str], pairs: set[tuple[str, str]]) -> int:
    """Distinct words and pairs of neighbours that the rest of the sentence shares with the question."""
    sides = (phrase.words[: phrase.first], phrase.words[phrase.last :])
    texts = [[word.text for word in side] for side in sides]
    singles = {text for side in texts for text in side} & wanted
    doubles = {pair for side in texts for pair in zip(side, side[1:], strict=False)} & pairs
    return len(singles) + len(doubles)


def _weight(phrase: _Phrase, wanted: set[str], counts: Counter[str]) -> float:
    """The most that the words of question and phrase weigh in a window of as many words."""
    told = wanted | {word.text for word in _inside(phrase)}
    weights = [math.log(1 + 1 / counts[word.text]) if word.text in told else 0.0 for word in phrase.words]
    width = len(told)
    total = best = sum(weights[:width])
    for entering, leaving in zip(weights[width:], weights, strict=False):
        total += entering - leaving
        best = max(best, total)
    return best


def _phrases(context: str, common: set[str]) -> list[_Phrase]:
    found = []
    for words in _sentences(context):
        runs: list[tuple[int, int]] = []
        for index, word in enumerate(words):
            if word.text in common:
                continue
            if runs and runs[-1][1] == index and _touch(context, words[index - 1], word):
                runs[-1] = (runs[-1][0], index + 1)
            else:
                runs.append((index, index + 1))
        found += [_Phrase(words, first, last) for first, last in runs]
    return found


def _sentences(context: str) -> list[list[_Word]]:
    sentences: list[list[_Word]] = [[]]
    ends = [match.end() for match in _SENTENCE_END.finditer(context)]
    for word in _words(context):
        while ends and word.first >= ends[0]:
            ends.pop(0)
            sentences.append([])
        sentences[-1].append(word)
    return [words for words in sentences if words]


def _words(text: str) -> list[_Word]:
    return [_Word(match.group().lower(), match.start(), match.end()) for match in _WORD.finditer(text)]


def _inside(phrase: _Phrase) -> list[_Word]:
    return phrase.words[phrase.first : phrase.last]


def _end(phrase: _Phrase) -> int:
    return phrase.words[phrase.last - 1].last


def _touch(context: str, word: _Word, after: _Word) -> bool:
    """Whether nothing but white space stands between two words."""
    return context[word.last : after.first].isspace()


def _most_frequent(texts: Sequence[str]) -> set[str]:
    counts = Counter(word.text for text in texts for word in _words(text))
    return set(sorted(counts, key=lambda word: (-counts[word], word))[:NUM_COMMON])
