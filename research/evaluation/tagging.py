"""What predicted tags are worth: accuracy of words, F1 of spans (or of tags); and the most frequent tag, the floor."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

Tags = Sequence[str]
Span = tuple[str, int, int]  # type, first word, last word

OUTSIDE = "O"
MISSING = ""  # the prediction of a word that is not in its row: never right


def spans(tags: Tags) -> list[Span]:
    """The spans of a sentence, as conlleval and seqeval (its default mode) read them.

    A span goes on where the tag says I or E of the same type and the one before neither O nor an end (E, S); any other
    tag but O begins one.
    """
    found: list[Span] = []
    before, kind_before = OUTSIDE, ""
    for index, tag in enumerate(tags):
        prefix, kind = _parts(tag)
        goes_on = prefix in ("I", "E") and before in ("B", "I") and kind == kind_before
        if goes_on:
            found[-1] = (kind, found[-1][1], index)
        elif prefix != OUTSIDE:
            found.append((kind, index, index))
        before, kind_before = prefix, kind
    return found


def has_spans(names: Sequence[str]) -> bool:
    """Whether tags mark spans: `O` and `B-TYPE`, `I-TYPE` …, and nothing else."""
    return OUTSIDE in names and all(name == OUTSIDE or name[:2] in ("B-", "I-", "E-", "S-") for name in names)


def tagging_metrics(true: Sequence[Tags], predicted: Sequence[Tags], names: Sequence[str]) -> dict[str, Any]:
    """`accuracy` of words, and `precision`, `recall` and `f1`: of spans, over all of them, where the tags mark spans,
    otherwise the mean of each tag's. `per_class` has those of each type, or tag, with its `support`.

    Raises:
      ValueError: sentences of different number or length.
    """
    if [len(tags) for tags in true] != [len(tags) for tags in predicted]:
        raise ValueError("true and predicted tags differ in number; give every word one of each")
    pairs = [pair for first, second in zip(true, predicted, strict=True) for pair in zip(first, second, strict=True)]
    if not pairs:
        raise ValueError("there are no words to score")
    accuracy = sum(first == second for first, second in pairs) / len(pairs)
    right, wanted, given = Counter(), Counter(), Counter()
    if has_spans(names):
        for first, second in zip(true, predicted, strict=True):
            ours = spans([tag or OUTSIDE for tag in second])
            wanted.update(kind for kind, _, _ in spans(first))
            given.update(kind for kind, _, _ in ours)
            right.update(kind for kind, _, _ in set(spans(first)) & set(ours))
        precision, recall, f1 = _scores(right.total(), wanted.total(), given.total())
        kinds = sorted(wanted.keys() | given.keys())
    else:
        wanted.update(first for first, _ in pairs)
        given.update(second for _, second in pairs)
        right.update(first for first, second in pairs if first == second)
        kinds = sorted(names)
        singles = [_scores(right[kind], wanted[kind], given[kind]) for kind in kinds]
        precision, recall, f1 = (sum(values) / len(kinds) for values in zip(*singles, strict=True))
    per_class = {}
    for kind in kinds:
        values = _scores(right[kind], wanted[kind], given[kind])
        per_class[kind] = dict(zip(("precision", "recall", "f1"), values, strict=True)) | {"support": wanted[kind]}
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1, "per_class": per_class}


def most_frequent_tag(
    words: Sequence[Sequence[str]], tags: Sequence[Tags], unseen: Sequence[Sequence[str]]
) -> list[list[str]]:
    """The tag that each word had most often in training; a new word has that of the words that were there once.

    Ties go to the tag that is first in the alphabet.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence, its_tags in zip(words, tags, strict=True):
        for word, tag in zip(sentence, its_tags, strict=True):
            counts[word][tag] += 1
    rare: Counter[str] = Counter()
    for found in counts.values():
        if found.total() == 1:
            rare.update(found)
    usual = {word: _commonest(found) for word, found in counts.items()}
    other = _commonest(rare or sum(counts.values(), Counter()))
    return [[usual.get(word, other) for word in sentence] for sentence in unseen]


def _commonest(counts: Counter[str]) -> str:
    return min(counts, key=lambda tag: (-counts[tag], tag))


def _parts(tag: str) -> tuple[str, str]:
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def _scores(right: int, wanted: int, given: int) -> tuple[float, float, float]:
    """Precision, recall and F1; 0 over 0 is 0."""
    return right / (given or 1), right / (wanted or 1), 2 * right / (wanted + given or 1)
