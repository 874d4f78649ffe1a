"""The ridge probe against scikit-learn and a plain solve, the logistic one against what its minimum must fulfil."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from research.evaluation.probes import PENALTIES, SCALES, logistic_probe, ridge_probe


def draw(size, seed, noise=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, size)
    centres = np.random.default_rng(9).normal(size=(3, 7))
    vectors = (centres[labels] + noise * rng.normal(size=(size, 7))) * np.arange(1, 8) + 5.0
    return vectors, labels


def test_the_scores_are_those_of_ridge_regression_on_standardised_vectors():
    (vectors, labels), (valid, valid_labels) = draw(61, 1), draw(29, 2)
    found = ridge_probe(vectors, labels, valid, valid_labels, num_classes=3)
    mean, spread = vectors.mean(axis=0), vectors.std(axis=0)
    model = Ridge(alpha=found.penalty * 61).fit((vectors - mean) / spread, np.eye(3)[labels])
    np.testing.assert_allclose(
        found.logits(valid) / found.scale, model.predict((valid - mean) / spread), rtol=1e-7, atol=1e-9
    )
    assert found.accuracy == np.mean(found.logits(valid).argmax(axis=1) == valid_labels)


def test_penalty_and_scale_are_the_best_on_the_validation_rows():
    train, valid = draw(23, 3, noise=3.0), draw(41, 4, noise=3.0)
    found = ridge_probe(*train, *valid, num_classes=3)
    mean, spread = train[0].mean(axis=0), train[0].std(axis=0)
    accuracies = {}
    for penalty in PENALTIES:
        model = Ridge(alpha=penalty * 23).fit((train[0] - mean) / spread, np.eye(3)[train[1]])
        scores = model.predict((valid[0] - mean) / spread)
        accuracies[penalty] = np.mean(scores.argmax(axis=1) == valid[1])
    best = max(accuracies.values())
    assert found.accuracy == best and found.penalty == max(key for key in accuracies if accuracies[key] == best)
    assert len(set(accuracies.values())) > 1  # there was something to choose

    def log_loss(factor):
        logits = found.logits(valid[0]) / found.scale * factor
        return -np.mean(logits[np.arange(41), valid[1]] - np.log(np.exp(logits).sum(axis=1)))

    assert found.scale == min(SCALES, key=log_loss)


def test_a_feature_that_never_varies_does_no_harm():
    vectors, labels = draw(30, 5)
    still = np.concatenate([vectors, np.full((30, 1), 2.0)], axis=1)
    with_it = ridge_probe(still, labels, still, labels, num_classes=3)
    without = ridge_probe(vectors, labels, vectors, labels, num_classes=3)
    np.testing.assert_allclose(with_it.logits(still), without.logits(vectors), atol=1e-6)


def test_rows_without_labels_are_refused():
    vectors, labels = draw(5, 6)
    with pytest.raises(ValueError, match="5 training vectors came with 4 labels"):
        ridge_probe(vectors, labels[:4], vectors, labels, num_classes=3)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_logistic_probe_is_at_the_minimum_of_its_loss(num_classes):
    train, valid = draw(67, 7, noise=3.0), draw(41, 8, noise=3.0)
    labels, valid_labels = train[1] % num_classes, valid[1] % num_classes
    found = logistic_probe(train[0], labels, valid[0], valid_labels, num_classes=num_classes)
    mean, spread = train[0].mean(axis=0), train[0].std(axis=0)
    inputs = (train[0] - mean) / spread
    logits = found.logits(train[0])
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    excess = (probabilities - np.eye(num_classes)[labels]) / 67
    kernel = found.kernel * spread[:, None]
    if num_classes == 2:  # of the log-odds, by the probability of the second class
        gradient = inputs.T @ excess[:, 1] + found.penalty * (kernel[:, 1] - kernel[:, 0])
    else:
        gradient = inputs.T @ excess + found.penalty * kernel
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
    np.testing.assert_allclose(excess.sum(axis=0), 0.0, atol=1e-5)  # the bias is free
    assert np.abs(kernel).max() > 1e-2  # and that minimum is not 0


def test_the_logistic_penalty_is_the_best_on_the_validation_rows():
    from sklearn.linear_model import LogisticRegression

    train, valid = draw(31, 9, noise=4.0), draw(43, 10, noise=4.0)
    found = logistic_probe(*train, *valid, num_classes=3)
    mean, spread = train[0].mean(axis=0), train[0].std(axis=0)
    accuracies = {}
    for penalty in PENALTIES:
        model = LogisticRegression(C=1 / (penalty * 31), max_iter=10_000, tol=1e-6)
        model.fit((train[0] - mean) / spread, train[1])
        accuracies[penalty] = model.score((valid[0] - mean) / spread, valid[1])
    best = max(accuracies.values())
    assert found.accuracy == best and found.penalty == max(key for key in accuracies if accuracies[key] == best)
    assert len(set(accuracies.values())) > 1  # there was something to choose
    assert found.accuracy == np.mean(found.logits(valid[0]).argmax(axis=1) == valid[1])


def test_a_class_without_training_rows_is_refused_by_the_logistic_probe():
    vectors, labels = draw(30, 11)
    with pytest.raises(ValueError, match=r"classes \[3\] have no training rows"):
        logistic_probe(vectors, labels, vectors, labels, num_classes=4)
