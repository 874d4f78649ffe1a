"""Calibration, abstention and mistakes against plain loops and by hand."""

import numpy as np
import pytest

from research.evaluation.calibration import abstention, expected_calibration_error, mistakes, reliability

NAMES = ("bird", "cat")


def draw(size=500):
    rng = np.random.default_rng(11)
    probabilities = rng.dirichlet([0.7, 0.7], size)
    return rng.integers(0, 2, size), probabilities


def test_the_error_is_that_of_a_plain_loop():
    labels, probabilities = draw()
    total = 0.0
    for low in range(15):
        rows = [row for row in range(500) if low / 15 <= probabilities[row].max() < (low + 1) / 15]
        if low == 14:
            rows += [row for row in range(500) if probabilities[row].max() >= 1.0]
        if rows:
            right = np.mean([probabilities[row].argmax() == labels[row] for row in rows])
            total += len(rows) / 500 * abs(right - np.mean([probabilities[row].max() for row in rows]))
    bins = reliability(labels, probabilities)
    assert expected_calibration_error(bins) == pytest.approx(total)
    assert sum(entry["examples"] for entry in bins) == 500


def test_probabilities_that_come_true_have_no_error():
    probabilities = np.repeat([[0.75, 0.25]], 8, axis=0)
    assert expected_calibration_error(reliability(np.array([0, 0, 0, 1] * 2), probabilities)) == pytest.approx(0.0)
    assert expected_calibration_error(reliability(np.zeros(8, int), probabilities)) == pytest.approx(0.25)
    assert reliability(np.zeros(2, int), np.array([[1.0, 0.0]] * 2))[0]["examples"] == 2


def test_abstention_answers_the_surest_first():
    sure = np.linspace(0.95, 0.5, 10)
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    found = abstention(labels, np.stack([sure, 1 - sure], axis=1))
    assert [entry["accuracy"] for entry in found][:5] == [1.0] * 5
    assert found[-1] == {"coverage": 1.0, "accuracy": 0.5, "probability": 0.5}


def test_mistakes_are_the_surest_ones():
    labels, probabilities = draw(40)
    texts = [f"text {row}" for row in range(40)]
    found = mistakes(texts, labels, probabilities, NAMES, most=3)
    wrong = [row for row in range(40) if probabilities[row].argmax() != labels[row]]
    wanted = sorted(wrong, key=lambda row: -probabilities[row].max())[:3]
    assert [entry["text"] for entry in found] == [texts[row] for row in wanted]
    assert all(entry["label"] != entry["predicted"] for entry in found)
