"""What answers to prompts are worth: the tokens of them that rows hold, and which of them can be right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from research.batch import Split


@dataclass(frozen=True)
class Answers:
    """The answers of a split: in full, as rows hold them, and whether a model could write them.

    It could not where the row had no room for all of an answer, or where <unk> is in it, which is never written.
    """

    full: Sequence[tuple[int, ...]]
    kept: Sequence[np.ndarray]
    possible: np.ndarray  # bool [N]


def read_answers(split: Split, *, unk_id: int) -> Answers:
    """The answers of a split of prompts."""
    full = [tuple(answer) for answer in split.answers]
    rows = (split.examples[index] for index in range(len(split.examples)))
    kept = [np.asarray(row["tokens"])[np.asarray(row["loss_mask"])] for row in rows]
    pairs = zip(full, kept, strict=True)
    possible = [len(first) == len(second) and unk_id not in first for first, second in pairs]
    return Answers(full, kept, np.array(possible, bool))


def commonest_answer(train: Answers, evaluated: Answers) -> float:
    """The share of rows that the commonest answer of training, first seen of equals, answers; see `Answers`."""
    commonest, _ = Counter(train.full).most_common(1)[0]
    same = np.array([answer == commonest for answer in evaluated.full], bool)
    return float((same & evaluated.possible).mean())
