"""Figures of several labels, of numbers and of answers equal scikit-learn's, scipy's or those worked out by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from research.batch import Dataset, Spec, Split
from research.evaluation import scores
from research.evaluation.multi_label import commonest_set, multi_label_metrics
from research.evaluation.regression import regression_metrics

NAMES = ("a", "b", "c", "d", "e")


def drawn(rows=31):
    rng = np.random.default_rng(3)
    labels = (rng.random((rows, 5)) < [0.5, 0.2, 0.05, 0.8, 0.3]).astype(int)
    labels[:, 2] = 0  # a class that this split lacks
    probabilities = np.clip(0.6 * labels + 0.5 * rng.random((rows, 5)) - 0.1, 0, 1)
    return labels, probabilities


def figures(given, data, split, *, objective):
    return scores.of_scored(scores.score(given, data, split, objective=objective), data, split)


def test_several_labels_are_scored_as_scikit_learn_does():
    labels, probabilities = drawn()
    found, said = multi_label_metrics(labels, probabilities, NAMES), probabilities > 0.5
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, said))
    for average in ("micro", "macro"):
        wanted = metrics.precision_recall_fscore_support(labels, said, average=average, zero_division=0)
        names = (f"{average}_precision", f"{average}_recall", f"{average}_f1")
        assert [found[name] for name in names] == pytest.approx(wanted[:3])
    both = [0, 1, 3, 4]
    areas = metrics.roc_auc_score(labels[:, both], probabilities[:, both], average="macro")
    assert found["roc_auc"] == pytest.approx(areas)
    precisions = metrics.average_precision_score(labels[:, both], probabilities[:, both], average="macro")
    assert found["average_precision"] == pytest.approx(precisions)
    alone = metrics.precision_recall_fscore_support(labels[:, 3], said[:, 3], average="binary")
    assert [found["per_class"]["d"][name] for name in ("precision", "recall", "f1")] == pytest.approx(alone[:3])
    assert found["per_class"]["d"]["support"] == labels[:, 3].sum() and "roc_auc" not in found["per_class"]["c"]


def test_one_label_has_plain_names():
    labels, probabilities = drawn()
    found = multi_label_metrics(labels[:, :1], probabilities[:, :1], ("toxic",))
    assert found["f1"] == pytest.approx(metrics.f1_score(labels[:, 0], probabilities[:, 0] > 0.5))
    assert not any(name.startswith(("micro", "macro")) for name in found)
    none = multi_label_metrics(labels[:, 2:3], probabilities[:, 2:3], ("absent",))
    assert np.isnan(none["roc_auc"]) and none["recall"] == 0.0


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        ([[0, 2]], [[0.5, 0.5]], "labels hold 2; wanted 0 and 1"),
        ([[0, 1]], [[0.5, 1.5]], "no probabilities"),
        ([[0, 1]], [[0.5, np.nan]], "no probabilities"),
        ([[0, 1]], [[0.5]], r"scores has shape \(1, 1\), labels \(1, 2\)"),
        ([[0]], [[0.5]], "wanted examples by the 2 label_names"),
    ],
)
def test_labels_and_scores_that_do_not_fit_are_named(labels, given, message):
    with pytest.raises(ValueError, match=message):
        multi_label_metrics(np.array(labels), np.array(given), ("a", "b"))


def test_the_commonest_set_is_that_of_most_rows():
    found = commonest_set([[1, 0], [1, 1], [1, 1], [0, 0], [0, 0]], 3)
    assert found.tolist() == [[1, 1]] * 3


def test_numbers_are_scored_as_scipy_and_scikit_learn_do():
    rng = np.random.default_rng(5)
    values = np.round(100 + 10 * rng.normal(size=37))  # some are equal
    predicted = values + 4 * rng.normal(size=37)
    found = regression_metrics(values, predicted)
    assert found["mse"] == pytest.approx(metrics.mean_squared_error(values, predicted))
    assert found["rmse"] == pytest.approx(metrics.mean_squared_error(values, predicted) ** 0.5)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(values, predicted))
    assert found["r2"] == pytest.approx(metrics.r2_score(values, predicted))
    assert found["pearson"] == pytest.approx(stats.pearsonr(values, predicted).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(values, predicted).statistic)


def test_equal_numbers_have_no_correlation():
    found = regression_metrics([1.0, 2.0, 3.0], np.full(3, 2.0))
    assert np.isnan(found["pearson"]) and np.isnan(found["spearman"]) and found["r2"] == 0.0
    assert np.isnan(regression_metrics([2.0, 2.0], np.array([1.0, 2.0]))["r2"])
    with pytest.raises(ValueError, match="not finite"):
        regression_metrics([1.0], np.array([np.nan]))
    with pytest.raises(ValueError, match="one number each a row"):
        regression_metrics([1.0], np.array([1.0, 2.0]))


def dataset(**splits):
    spec = Spec(vocab_size=11, label_names=("a", "b"), target_mean=2.0)
    return Dataset(splits={name: Split(**fields) for name, fields in splits.items()}, spec=spec)


def test_several_labels_stand_beside_tfidf_and_the_commonest_set():
    words = [f"{first} {second}" for first in ("sun", "rain") for second in ("hot", "cold", "mild")] * 5
    labels = [[int("sun" in text), int("hot" in text)] for text in words]
    part = dict(examples=[], texts=words, labels=labels, hashes=[str(n) for n in range(30)])
    data = dataset(train=part, test=part | dict(hashes=["0", "x", *["0"] * 28]))
    floors = scores.floors(data, "test", objective="multi_label")
    assert floors["floor/test/tfidf_accuracy"] == 1.0 == floors["floor/test/tfidf_micro_f1"]
    assert floors["floor/test/commonest_set_accuracy"] == pytest.approx(1 / 3)
    given = {"scores": np.array([[0.9, 0.1]] * 30)}
    found = figures(given, data, "test", objective="multi_label")
    assert found["test/accuracy"] == pytest.approx(1 / 3)
    assert found["test/accuracy_without_seen_rows"] == 1.0 == float(labels[1] == [1, 0])


def test_a_class_that_is_constant_in_training_is_given_to_all_or_none_by_the_floor():
    train = dict(examples=[], texts=["a b", "c d", "e f"], labels=[[0, 1], [1, 1], [0, 1]])
    floors = scores.floors(dataset(train=train, test=train), "test", objective="multi_label")
    assert floors["floor/test/tfidf_accuracy"] > 0


def test_numbers_stand_beside_the_training_mean_and_ridge_regression():
    texts = [f"{word} thing" for word in ("good", "bad")] * 20
    train = dict(examples=[], texts=texts, labels=[3.0, 1.0] * 20)
    data = dataset(train=train, test=dict(examples=[], texts=["good day", "bad day"], labels=[3.0, 1.0]))
    floors = scores.floors(data, "test", objective="regression")
    assert floors["floor/test/training_mean_mse"] == pytest.approx(1.0)
    assert floors["floor/test/training_mean_r2"] == pytest.approx(0.0)
    assert floors["floor/test/tfidf_ridge_mse"] < 0.3 and floors["floor/test/tfidf_ridge_pearson"] == pytest.approx(1.0)
    found = figures({"values": np.array([2.0, 1.0], np.float32)}, data, "test", objective="regression")
    assert found["test/mse"] == pytest.approx(0.5) and found["test/mae"] == pytest.approx(0.5)


def answers(*rows):
    """A split of answers, each [tokens in full] or ([tokens in full], how many its row has room for)."""
    rows = [row if isinstance(row, tuple) else (row, len(row)) for row in rows]
    examples = [
        {"tokens": np.array([9, *full[:room], 0]), "loss_mask": np.array([False, *[True] * room, False])}
        for full, room in rows
    ]
    return dict(examples=examples, answers=[full for full, _ in rows], num_bytes=100, hashes=["x"] * len(rows))


def test_answers_stand_beside_the_commonest_one_and_the_unigram():
    data = dataset(train=answers([5, 3], [5, 3], [6, 3]), test=answers([5, 3], [1, 3], ([5, 3], 1), [5, 3]))
    floors = scores.floors(data, "test", objective="causal_lm")
    assert floors["floor/test/commonest_answer_accuracy"] == 0.5  # what is cut, or unknown, is never right
    counts = np.ones(11)
    np.add.at(counts, [5, 3, 5, 3, 6, 3], 1)
    nats = -np.log(counts / counts.sum())[[5, 3, 1, 3, 5, 5, 3]].mean()
    assert floors["floor/test/unigram"] == pytest.approx(nats)
    found = figures({"answered": np.array([True, True, True, True])}, data, "test", objective="causal_lm")
    assert found["test/answer_accuracy"] == 0.5
    sums = {"loss": np.array([4.0, 2.0])}
    assert "test/bits_per_byte" not in scores.of_split(sums, data, "test", objective="causal_lm")


def test_plain_text_has_bits_per_byte_and_no_scores_of_answers():
    data = dataset(train=dict(examples=[]), val=dict(examples=[], num_bytes=100))
    assert "val/bits_per_byte" in scores.of_split({"loss": np.array([4.0, 2.0])}, data, "val", objective="causal_lm")
    assert scores.score({}, data, "val", objective="causal_lm") is None
