"""What answers are worth: the likeliest span over all windows, exact match and F1 as SQuAD counts them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research.batch import Question, Window

_CHUNK = 2048  # rows decoded at a time


@dataclass(frozen=True)
class Found:
    """The likeliest answer to a question, at the characters [first, last) of its context.

    `score` is how far it is ahead of "no answer" in its window, in nats; `probability` is that of its first token times
    that of its last there, `silence` that of "no answer".
    """

    text: str
    first: int
    last: int
    score: float
    probability: float
    silence: float

    def is_missing(self, threshold: float) -> bool:
        """Whether "no answer" is ahead by more than `threshold`, or there is nothing else to say."""
        return self.score == -np.inf or -self.score > threshold


def find_answers(
    start: np.ndarray, end: np.ndarray, windows: Sequence[Window], contexts: Sequence[str], *, max_answer: int
) -> list[Found]:
    """The likeliest span for each context, over all of its windows: at most `max_answer` tokens that end where they
    begin or later; of equals the shortest, then the first.

    `start` and `end` [N L] are logits of a row's columns, `windows` [N] what it shows; columns that show neither "no
    answer" (0) nor the context do not count. Windows compare by the two logits of their span without those of their
    "no answer" (Alberti et al. 2019, "A BERT baseline for the Natural Questions", section 3). Every span is looked at,
    where the scripts of Devlin et al. 2019 take the 20 likeliest columns of either side.
    """
    found = [Found("", 0, 0, -np.inf, 0.0, 1.0) for _ in contexts]
    for begin in range(0, len(windows), _CHUNK):
        part = windows[begin : begin + _CHUNK]
        columns = _best_spans(start[begin:][: len(part)], end[begin:][: len(part)], part, max_answer)
        for window, (score, first, last, probability, silence) in zip(part, zip(*columns, strict=True), strict=True):
            if score > found[window.question].score:
                place = int(window.characters[first, 0]), int(window.characters[last, 1])
                text = contexts[window.question][slice(*place)]
                found[window.question] = Found(text, *place, float(score), float(probability), float(silence))
    return found


def choose_threshold(found: Sequence[Found], questions: Sequence[Question]) -> float:
    """The lead of "no answer" past which none is given, so that the mean F1 of these questions is highest.

    The search is that of the official script of SQuAD 2.0; within the gap that it finds between two questions' leads
    the middle is taken, for other questions' sake, and 1 nat beyond the last of them where the gap is open.
    """
    leads = np.array([-each.score for each in found])
    order = np.argsort(leads, kind="stable")
    spoken = np.array([f1(each.text, question.answers) for each, question in zip(found, questions, strict=True)])
    silent = np.array([f1("", question.answers) for question in questions])
    gains = np.concatenate([[0.0], np.cumsum((spoken - silent)[order])])
    ordered = leads[order]
    possible = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])  # equal leads are answered together
    best = int(np.argmax(np.where(possible, gains, -np.inf)))
    borders = np.concatenate([[ordered[0] - 2.0], ordered, [ordered[-1] + 2.0]])
    return float(borders[best : best + 2].mean())


def answer_metrics(said: Sequence[str], questions: Sequence[Question]) -> dict[str, Any]:
    """`em` and `f1`, shares of 1, over all questions, and of those with and without an answer where there are both."""
    scores = {
        name: np.array([score(text, question.answers) for text, question in zip(said, questions, strict=True)])
        for name, score in (("em", exact_match), ("f1", f1))
    }
    found = {name: float(values.mean()) for name, values in scores.items()}
    answered = np.array([bool(question.answers) for question in questions])
    if not answered.all():
        for kind, where in (("has_answer", answered), ("no_answer", ~answered)):
            if where.any():
                found |= {f"{kind}_{name}": float(values[where].mean()) for name, values in scores.items()}
    return found


def exact_match(said: str, accepted: Sequence[str]) -> float:
    """1 where the normalised answer is an accepted one; with none accepted, where nothing is said."""
    return _best(said, accepted, lambda one, other: float(normalize(one) == normalize(other)))


def f1(said: str, accepted: Sequence[str]) -> float:
    """F1 of the words that the normalised answer shares with the accepted one that it is nearest to.

    The rules are those of SQuAD 2.0 (Rajpurkar et al. 2018): where either is without words, 1 if both are. (1.1 differs
    in one thing: an answer of nothing but an article or punctuation scores 0 there.)
    """
    return _best(said, accepted, _word_f1)


def normalize(text: str) -> str:
    """Lower case without punctuation (ASCII), the articles a, an, the, and more than one space."""
    kept = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def surest_mistakes(
    found: Sequence[Found], questions: Sequence[Question], threshold: float, *, most: int = 10
) -> list[dict[str, Any]]:
    """The questions that were answered with the highest probability and without a word of an accepted answer."""
    wrong = []
    for each, question in zip(found, questions, strict=True):
        said, sure = ("", each.silence) if each.is_missing(threshold) else (each.text, each.probability)
        if not f1(said, question.answers):
            answers = " / ".join(dict.fromkeys(question.answers)) or "no answer"
            texts = {"text": question.text, "label": answers, "predicted": said or "no answer"}
            wrong.append(texts | {"probability": sure})
    return sorted(wrong, key=lambda entry: -entry["probability"])[:most]


_PUNCTUATION = frozenset(string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def _best(said: str, accepted: Sequence[str], score: Callable[[str, str], float]) -> float:
    """The highest score; accepted answers without words are left out, and count as none where no other is there."""
    return max(score(said, other) for other in [text for text in accepted if normalize(text)] or [""])


def _word_f1(said: str, accepted: str) -> float:
    ours, theirs = normalize(said).split(), normalize(accepted).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (Counter(ours) & Counter(theirs)).total()
    return 2 * shared / (len(ours) + len(theirs))


def _best_spans(
    start: np.ndarray, end: np.ndarray, windows: Sequence[Window], max_answer: int
) -> tuple[np.ndarray, ...]:
    """Of each row: the highest score, its first and last token within the window, its probability, and silence's."""
    borders = np.array([window.border for window in windows])
    sizes = np.array([len(window.characters) for window in windows])
    rows, column = np.arange(len(windows)), np.arange(start.shape[1])
    inside = (column >= borders[:, None]) & (column < (borders + sizes)[:, None])
    sides = [_log_shares(logits, inside | (column == 0)) for logits in (start, end)]
    silence = sides[0][:, 0] + sides[1][:, 0]
    firsts, lasts = (np.where(inside, side, -np.inf) for side in sides)
    best, place, size = np.full(len(rows), -np.inf), borders, np.zeros(len(rows), int)
    for extra in range(min(max_answer, len(column))):
        total = firsts[:, : len(column) - extra] + lasts[:, extra:]
        at = total.argmax(axis=1)
        better = total[rows, at] > best
        best = np.where(better, total[rows, at], best)
        place, size = np.where(better, at, place), np.where(better, extra, size)
    first = place - borders
    return best - silence, first, first + size, np.exp(best), np.exp(silence)


def _log_shares(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Log of the softmax over the allowed columns; -inf in the others."""
    logits = np.where(allowed, logits.astype(np.float64), -np.inf)
    highest = logits.max(axis=1, keepdims=True)
    return logits - highest - np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
