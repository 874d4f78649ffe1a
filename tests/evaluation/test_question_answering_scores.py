"""Exact match and F1 are those of SQuAD's scripts, the span is the best of all, the threshold the official one."""

import collections
import itertools
import math
import random
import re
import string

import numpy as np
import pytest

from research.batch import Dataset, Question, Spec, Split, Window
from research.evaluation import question_answering
from research.evaluation.question_answering import (
    Found,
    answer_metrics,
    choose_threshold,
    exact_match,
    f1,
    find_answers,
    normalize,
    surest_mistakes,
)
from research.evaluation.scores import of_scored, score, tuned
from research.evaluation.sliding_window import sliding_window
from research.evaluation.tasks import answer_floors


def figures(given, data, split, *, objective):
    return of_scored(score(given, data, split, objective=objective), data, split)


class Official:
    """The rules of evaluate-v2.0.py (and, where `first`, evaluate-v1.1.py), written after the published scripts."""

    @staticmethod
    def words(text):
        text = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())

    @classmethod
    def f1(cls, gold, said, first=False):
        gold, said = cls.words(gold).split(), cls.words(said).split()
        same = sum((collections.Counter(gold) & collections.Counter(said)).values())
        if not first and (len(gold) == 0 or len(said) == 0):
            return float(gold == said)
        if same == 0:
            return 0.0
        precision, recall = same / len(said), same / len(gold)
        return 2 * precision * recall / (precision + recall)

    @classmethod
    def scores(cls, said, answers):
        answers = [answer for answer in answers if cls.words(answer)] or [""]
        exact = max(float(cls.words(answer) == cls.words(said)) for answer in answers)
        return exact, max(cls.f1(answer, said) for answer in answers)


PIECES = [
    "the",
    "A",
    "an",
    "Eiffel",
    "eiffel",
    "Tower",
    "1,889",
    "caf\u00e9",
    "cafe\u0301",
    "日本",
    "\u2019s",
    "U.S.",
    "--",
    "",
    "tower",
]


def random_texts(number, seed):
    draw = random.Random(seed)
    return [" ".join(draw.choice(PIECES) for _ in range(draw.randint(0, 4))) for _ in range(number)]


@pytest.mark.parametrize("seed", range(7))
def test_exact_match_and_f1_are_the_official_ones(seed):
    said = random_texts(101, seed)
    answers = [random_texts(random.Random(i).randint(0, 3), 1000 * seed + i) for i in range(101)]
    for text, accepted in zip(said, answers, strict=True):
        assert (exact_match(text, accepted), f1(text, accepted)) == pytest.approx(Official.scores(text, accepted))
    for text, other in zip(said, said[1:], strict=False):
        assert normalize(text) == Official.words(text)
        if normalize(text) and normalize(other):  # where neither is blank the script of 1.1 says the same
            assert f1(text, [other]) == pytest.approx(Official.f1(other, text, first=True))


@pytest.mark.parametrize(
    ("said", "accepted", "wanted"),
    [
        ("", [], (1, 1)),
        ("x", [], (0, 0)),
        ("", ["x"], (0, 0)),
        ("the", ["a"], (1, 1)),  # nothing is left of either
        ("The Tower!", ["tower"], (1, 1)),
        ("b b c", ["b c c"], (0, 2 / 3)),  # repeated words count as often as both have them
        ("b b b", ["b"], (0, 0.5)),
        ("theater", ["the ater"], (0, 0)),  # articles are whole words
        ("CAFÉ", ["café"], (1, 1)),
        ("big red bus", ["bus", "red bus"], (0, 0.8)),  # the best of the accepted
    ],
)
def test_edge_cases_by_hand(said, accepted, wanted):
    assert (exact_match(said, accepted), f1(said, accepted)) == pytest.approx(wanted)


def test_figures_part_questions_with_and_without_an_answer():
    questions = [Question(str(i), "", "", answers) for i, answers in enumerate([("b c",), ("d",), (), ()])]
    found = answer_metrics(["b", "d", "", "e"], questions)
    assert found == pytest.approx(
        {"em": 0.5, "f1": (2 / 3 + 2) / 4, "has_answer_em": 0.5, "has_answer_f1": (2 / 3 + 1) / 2}
        | {"no_answer_em": 0.5, "no_answer_f1": 0.5}
    )
    assert set(answer_metrics(["b"], questions[:1])) == {"em", "f1"}


def windows_of(sizes, *, border, rng):
    """Windows of two questions; the characters of each token are random and in order."""
    found = []
    for question, size in sizes:
        edges = np.sort(rng.choice(60, 2 * size, replace=False)).reshape(-1, 2)
        found.append(Window(question, border, edges.astype(np.int32)))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_is_the_best_of_all_spans_of_all_windows(seed):
    rng = np.random.default_rng(seed)
    windows = windows_of([(0, 7), (0, 5), (1, 1), (1, 6), (1, 3)], border=3, rng=rng)
    start, end = rng.normal(size=(2, 5, 11)).astype(np.float32) * 3
    contexts = ["".join(rng.choice(list("abcdefgh"), 60)) for _ in range(2)]
    found = find_answers(start, end, windows, contexts, max_answer=4)
    for question in (0, 1):
        best = (-math.inf, "", 0.0, 0.0)
        for row, window in enumerate(windows):
            if window.question != question:
                continue
            columns = [0, *range(3, 3 + len(window.characters))]
            shares = [
                {c: math.exp(side[row, c]) / sum(math.exp(side[row, k]) for k in columns) for c in columns}
                for side in (start, end)
            ]
            for first, last in itertools.product(columns[1:], columns[1:]):
                if first <= last < first + 4:
                    place = window.characters[first - 3, 0], window.characters[last - 3, 1]
                    score = float(start[row, first] + end[row, last] - start[row, 0] - end[row, 0])
                    chances = shares[0][first] * shares[1][last], shares[0][0] * shares[1][0]
                    best = max(best, (score, contexts[question][slice(*place)], *chances))
        each = found[question]
        assert each.text == best[1] == contexts[question][each.first : each.last]
        assert (each.score, each.probability, each.silence) == pytest.approx((best[0], *best[2:]), rel=1e-5)


def test_rows_decoded_in_parts_are_those_decoded_together(monkeypatch):
    rng = np.random.default_rng(3)
    windows = windows_of([(0, 7), (0, 5), (1, 2), (1, 6), (1, 3)], border=3, rng=rng)
    start, end = rng.normal(size=(2, 5, 11)).astype(np.float32)
    contexts = ["".join(rng.choice(list("abcdefgh"), 60)) for _ in range(2)]
    together = find_answers(start, end, windows, contexts, max_answer=4)
    monkeypatch.setattr(question_answering, "_CHUNK", 2)
    assert find_answers(start, end, windows, contexts, max_answer=4) == together


def test_a_span_is_no_longer_than_allowed_and_never_backwards():
    start, end = np.zeros((2, 1, 8), np.float32)
    start[0, 5], end[0, 3] = 9.0, 8.0  # the two likeliest are the wrong way round
    end[0, 7] = 5.0
    windows = [Window(0, 2, np.array([[i, i + 1] for i in range(6)], np.int32))]
    said = [find_answers(start, end, windows, ["abcdef"], max_answer=most)[0].text for most in (1, 2, 3)]
    assert said == ["d", "d", "def"]


def test_a_window_that_knows_that_the_answer_is_elsewhere_gives_way():
    start, end = np.zeros((2, 2, 4), np.float32)
    start[0, 2] = end[0, 2] = 4.0  # higher logits than those of the other window,
    start[0, 0] = end[0, 0] = 9.0  # but the column for "not here" is far higher still
    start[1, 3] = end[1, 3] = 3.0
    windows = [Window(0, 2, np.array([[2 * i, 2 * i + 1], [2 * i + 1, 2 * i + 2]], np.int32)) for i in range(2)]
    (found,) = find_answers(start, end, windows, ["abcd"], max_answer=2)
    assert found.text == "d" and found.score == pytest.approx(6.0)
    assert not found.is_missing(-5.9) and found.is_missing(-6.1)


def test_columns_outside_the_context_are_no_part_of_the_answer():
    start, end = np.full((2, 1, 9), 50.0, np.float32)
    start[0, 3:5], end[0, 3:5] = 1.0, 1.0
    start[0, 0] = end[0, 0] = 0.0
    windows = [Window(0, 3, np.array([[0, 1], [1, 2]], np.int32))]
    (found,) = find_answers(start, end, windows, ["ab"], max_answer=5)
    assert found.text == "a" and found.probability == pytest.approx((math.e / (1 + 2 * math.e)) ** 2)
    assert found.silence == pytest.approx((1 / (1 + 2 * math.e)) ** 2)


def test_a_context_without_tokens_has_no_answer():
    windows = [Window(0, 3, np.zeros((0, 2), np.int32))]
    (found,) = find_answers(*np.zeros((2, 1, 5), np.float32), windows, ["\u200b"], max_answer=5)
    assert found.text == "" and found.is_missing(math.inf) and found.silence == 1.0


def official_threshold(leads, spoken, answered):
    """find_best_thresh of evaluate-v2.0.py: the score, and the lead past which nothing is said."""
    current = best = sum(not has for has in answered)
    threshold = None
    for index in sorted(range(len(leads)), key=lambda i: leads[i]):
        current += spoken[index] if answered[index] else -1
        if current > best:
            best, threshold = current, leads[index]
    return best / len(leads), threshold


@pytest.mark.parametrize("seed", range(9))
def test_the_threshold_lies_where_the_official_search_ends(seed):
    rng = np.random.default_rng(seed)
    leads = rng.normal(size=23).tolist()
    right = rng.random(23) < 0.6
    questions = [Question(str(i), "", "", ("b c",) if rng.random() < 0.5 else ()) for i in range(23)]
    found = [Found("b" if good else "d", 0, 1, -lead, 0.5, 0.5) for lead, good in zip(leads, right, strict=True)]
    spoken = [f1(each.text, question.answers) for each, question in zip(found, questions, strict=True)]
    best, threshold = official_threshold(leads, spoken, [bool(question.answers) for question in questions])
    chosen = choose_threshold(found, questions)
    said = ["" if each.is_missing(chosen) else each.text for each in found]
    assert answer_metrics(said, questions)["f1"] == pytest.approx(best)
    above = [lead for lead in leads if lead > (-math.inf if threshold is None else threshold)]
    assert (threshold is None or threshold < chosen) and (not above or chosen < min(above))


def test_equal_leads_are_answered_together_and_silence_is_possible():
    questions = [Question("0", "", "", ("b",)), Question("1", "", "", ()), Question("2", "", "", ())]
    found = [Found("b", 0, 1, -1.0, 0.5, 0.5)] * 3
    assert all(each.is_missing(choose_threshold(found, questions)) for each in found)
    assert not any(each.is_missing(choose_threshold(found[:1], questions[:1])) for each in found[:1])


def test_the_mistakes_are_the_surest_of_those_without_a_right_word():
    questions = [Question(str(i), f"q{i}", "", answers) for i, answers in enumerate([("b", "b", "c"), ("b c",), ()])]
    found = [Found(text, 0, 1, 3.0, sure, 0.1) for text, sure in (("x", 0.4), ("b", 0.9), ("y", 0.6))]
    wrong = surest_mistakes(found, questions, math.inf)
    assert [entry["text"] for entry in wrong] == ["q2", "q0"]
    assert wrong[1] == {"text": "q0", "label": "b / c", "predicted": "x", "probability": pytest.approx(0.4)}
    assert wrong[0]["label"] == "no answer"
    assert [entry["predicted"] for entry in surest_mistakes(found, questions, -20.0)] == ["no answer", "no answer"]


def dataset_of(answers):
    """One window a question; the context is "ab"."""

    def split(answers):
        questions = [Question(str(i), f"q{i}", "ab", given) for i, given in enumerate(answers)]
        characters = np.array([[0, 1], [1, 2]], np.int32)
        windows = [Window(i, 2, characters) for i in range(len(answers))]
        hashes = [f"{i} {given}" for i, given in enumerate(answers)]
        return Split([], questions=questions, windows=windows, max_answer=2, hashes=hashes)  # type: ignore[arg-type]

    return Dataset({name: split(given) for name, given in answers.items()}, Spec())


def logits_of(nones):
    """The answer is always "b"; "no answer" leads by twice each of `nones`."""
    start = np.zeros((len(nones), 4), np.float32)
    start[:, 2], start[:, 0] = -5.0, nones
    return {"start": start, "end": start}


def test_what_the_validation_split_chooses_is_kept_for_the_test_split():
    data = dataset_of({"train": [("a",)], "val": [("b",), (), ()], "test": [(), ("b",)]})
    outputs = {"val": logits_of([1.0, 2.0, 3.0]), "test": logits_of([0.5, 2.5])}  # on test alone another would be best
    chosen = tuned(outputs["val"], data, objective="question_answering")
    assert set(chosen) == {"no_answer_threshold"}
    val, test = (
        figures({**outputs[name], **chosen}, data, name, objective="question_answering") for name in ("val", "test")
    )
    assert val["val/f1"] == 1.0 and test["test/f1"] == 0.0
    assert val["val/no_answer_threshold"] == test["test/no_answer_threshold"] == pytest.approx(3.0, abs=1e-5)
    assert (test["test/has_answer_f1"], test["test/no_answer_em"]) == (0.0, 0.0)


def test_where_every_validation_question_has_an_answer_something_is_always_said():
    data = dataset_of({"train": [("a",)], "val": [("b",)], "test": [(), ("b",)]})
    assert tuned(logits_of([5.0]), data, objective="question_answering") == {}
    found = figures(logits_of([50.0, 50.0]), data, "test", objective="question_answering")
    assert found["test/em"] == 0.5 and "test/no_answer_threshold" not in found


def test_questions_that_training_has_too_are_left_out_of_a_second_figure():
    data = dataset_of({"train": [("b",)], "val": [("b",), ("a",)]})
    found = figures(logits_of([0.0, 0.0]), data, "val", objective="question_answering")
    assert found["val/f1"] == 0.5 and found["val/rows_seen_in_training"] == 1
    assert found["val/f1_without_seen_rows"] == 0.0


CONTEXT = (
    "The old mill of Anna Berg stands beside the river. In 1850 the miller Otto Stern built a bridge over the river. "
    "The town was small."
)


def test_the_sliding_window_takes_the_phrase_beside_the_question_s_words():
    common = ["the of a was in over beside built stands"] * 9
    asked = [("Who built the bridge over the river?", CONTEXT), ("Whose old mill stands beside the river?", CONTEXT)]
    assert sliding_window(common, asked) == ["miller Otto Stern", "Anna Berg"]
    assert sliding_window(common, [("the river", "river"), ("what", "...")]) == ["", ""]


def test_a_phrase_is_not_counted_as_its_own_evidence():
    text = "Big red fox farm. Bello saw a fox."  # the first sentence has more of the question, all of it in its phrase
    assert sliding_window(["saw a"], [("Who saw the red fox?", text)]) == ["Bello"]


def test_floors_say_nothing_where_that_may_be_right():
    data = dataset_of({"train": [("a",)], "val": [("ab",), (), ()]})
    found = answer_floors(data, "val")
    assert found["silence_em"] == found["silence_f1"] == pytest.approx(2 / 3)
    assert found["sliding_window_em"] == pytest.approx(2 / 3)  # "ab" is all that could be said, and common in training
    assert not any(name.startswith("silence") for name in answer_floors(data, "train"))
