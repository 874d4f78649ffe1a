"""Classification metrics by hand and against probabilities of known worth."""

import math

import numpy as np
import pytest

from research.evaluation.classification import classification_metrics

NAMES = ("bird", "cat", "dog")
LABELS = [0, 0, 1, 1, 1]
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1]], np.float32
)


def test_figures_equal_those_worked_out_by_hand():
    found = classification_metrics(LABELS, PROBABILITIES, NAMES)
    # predicted: bird, cat, cat, cat, bird
    assert found["confusion"] == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["per_class"]["cat"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3})
    assert found["per_class"]["dog"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert found["precision"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert found["f1"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.7, 0.2, 0.8, 0.6, 0.3])), rel=1e-6)
    # bird against the rest: 5 of 6 pairs are in order (0.2 stands over 0.1 but under 0.3 and 0.6); cat: 5 of 6
    bird, cat = (3 + 1) / 6, (2 + 2 + 1) / 6
    assert found["roc_auc"] == pytest.approx((bird + cat) / 2)


def test_two_classes_use_the_area_of_the_second():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.2, 0.8], [0.8, 0.2]])
    found = classification_metrics([0, 0, 1, 1, 0], probabilities, ("no", "yes"))
    assert found["roc_auc"] == pytest.approx(5 / 6)  # of 2 · 3 pairs only (0.4, 0.6) is out of order


def test_area_is_nan_where_one_class_is_present_alone():
    found = classification_metrics([1, 1], np.array([[0.1, 0.9], [0.6, 0.4]]), ("no", "yes"))
    assert math.isnan(found["roc_auc"])
    assert found["accuracy"] == 0.5


def test_probabilities_in_float32_and_bfloat16_precision_are_taken():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(17, 211)).astype(np.float32)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1)[:, None]
    labels = rng.integers(0, 211, 17)
    names = [str(index) for index in range(211)]
    wanted = -np.mean(np.log(softmax[np.arange(17), labels]))
    assert classification_metrics(labels, softmax, names)["log_loss"] == pytest.approx(wanted, rel=1e-5)
    rounded = (softmax.view(np.uint32) & 0xFFFF0000).view(np.float32)  # bfloat16 keeps the upper half
    assert classification_metrics(labels, rounded, names)["log_loss"] == pytest.approx(wanted, rel=1e-2)


@pytest.mark.parametrize(
    ("labels", "probabilities", "names", "message"),
    [
        ([0, 3], np.full((2, 3), 1 / 3), NAMES, "label 3 has no name among 3"),
        ([0, -1], np.full((2, 3), 1 / 3), NAMES, "label -1 has no name"),
        ([0, 1], np.full((2, 2), 1 / 2), NAMES, r"shape \(2, 2\); wanted \(2, 3\)"),
        ([0, 1], np.array([[2.0, -1, 0], [0, 1, 0]]), NAMES, "not logits"),
        ([0, 1], np.array([[0.5, 0.2, 0.1], [0, 1, 0]]), NAMES, "not logits"),
        ([0, 1], np.array([[np.nan, 0.5, 0.5], [0, 1, 0]]), NAMES, "non-finite"),
        ([], np.zeros((0, 3)), NAMES, "at least one example"),
        (["cat"], np.full((1, 3), 1 / 3), NAMES, "by its index"),
        ([0], np.ones((1, 1)), ("cat",), "at least two classes"),
        ([0], np.full((1, 2), 1 / 2), ("cat", "cat"), "names a class twice"),
    ],
)
def test_what_is_not_a_classification_is_refused(labels, probabilities, names, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(labels, probabilities, names)
