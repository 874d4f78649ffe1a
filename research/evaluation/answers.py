"""What answers to prompts are worth: the tokens of them that a row has room for, and which are whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from research.batch import Split


@dataclass(frozen=True)
class Answers:
    """The answers of a split: in full, as rows hold them, and whether the two are the same."""

    full: Sequence[tuple[int, ...]]
    kept: Sequence[np.ndarray]
    whole: np.ndarray  # bool [N]


def read_answers(split: Split) -> Answers:
    """The answers of a split of prompts."""
    full = [tuple(answer) for answer in split.answers]
    rows = (split.examples[index] for index in range(len(split.examples)))
    kept = [np.asarray(row["tokens"])[np.asarray(row["loss_mask"])] for row in rows]
    whole = np.array([len(first) == len(second) for first, second in zip(full, kept, strict=True)], bool)
    return Answers(full, kept, whole)


def commonest_answer(train: Answers, evaluated: Answers) -> float:
    """The share of rows that the commonest answer of training, first seen of equals, answers; a cut one is wrong."""
    commonest, _ = Counter(train.full).most_common(1)[0]
    right = [whole and answer == commonest for answer, whole in zip(evaluated.full, evaluated.whole, strict=True)]
    return float(np.mean(right))
