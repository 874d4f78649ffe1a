"""The ridge probe against scikit-learn and a plain solve."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from research.evaluation.probes import PENALTIES, SCALES, ridge_probe


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
