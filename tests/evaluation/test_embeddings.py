"""Alignment, uniformity, ranks and collapse, by hand and against plain loops in float64."""

import itertools
import math
import re

import numpy as np
import pytest

from research.evaluation import embeddings
from research.evaluation.embeddings import (
    alignment,
    collapse,
    effective_rank,
    mean_cosine,
    rankme,
    uniformity,
    unit,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def clusters(size, width, num_classes, spread, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_classes, width))[np.arange(size) % num_classes] + spread * rng.normal(
        size=(size, width)
    )


def test_unit_vectors_have_length_one_at_any_scale_and_zeros_stay():
    rows = np.array([[3.0, 4.0], [3e-200, -4e-200], [3e200, 4e200], [0.0, 0.0]])
    np.testing.assert_allclose(unit(rows), [[0.6, 0.8], [0.6, -0.8], [0.6, 0.8], [0, 0]], rtol=1e-15)


def test_alignment_and_uniformity_are_those_of_plain_loops(monkeypatch):
    monkeypatch.setattr(embeddings, "_CHUNK", 3)
    first, second = normal(11, 5, seed=1), normal(11, 5, seed=2)
    pairs = [(x / np.sqrt(x @ x), y / np.sqrt(y @ y)) for x, y in zip(first, second, strict=True)]
    assert alignment(first, second) == pytest.approx(np.mean([np.sum((x - y) ** 2) for x, y in pairs]), rel=1e-12)
    lengths = [math.sqrt(np.sum((x - y) ** 2)) for x, y in pairs]
    assert alignment(first, second, power=1.0) == pytest.approx(np.mean(lengths), rel=1e-12)
    rows = [x for x, _ in pairs]
    for scale in (2.0, 5.0):
        terms = [math.exp(-scale * np.sum((x - y) ** 2)) for x, y in itertools.combinations(rows, 2)]
        assert uniformity(first, scale=scale) == pytest.approx(math.log(np.mean(terms)), rel=1e-12)


def test_the_ends_of_alignment_and_uniformity():
    rows = normal(7, 5)
    assert alignment(rows, 3.0 * rows) == pytest.approx(0.0, abs=1e-15)
    assert alignment(rows, -rows) == pytest.approx(4.0, rel=1e-12)
    assert uniformity(np.ones((7, 5))) == pytest.approx(0.0, abs=1e-12)
    assert uniformity(np.eye(5)) == pytest.approx(-4.0, rel=1e-12)  # all pairs at a squared distance of 2


def test_mean_cosine_is_the_mean_over_pairs():
    rows = unit(normal(11, 5) + 1.0)
    wanted = np.mean([x @ y for x, y in itertools.combinations(rows, 2)])
    assert mean_cosine(5.0 * rows) == pytest.approx(wanted, rel=1e-12)


def test_rankme_by_hand():
    # Singular values 3, 2, 1: shares 1/2, 1/3, 1/6.
    rows = np.linalg.qr(normal(7, 3, seed=3))[0] @ np.diag([3.0, 2.0, 1.0]) @ np.linalg.qr(normal(3, 3, seed=4))[0]
    shares = np.array([1 / 2, 1 / 3, 1 / 6]) + 1e-7
    assert rankme(rows) == pytest.approx(math.exp(-np.sum(shares * np.log(shares))), rel=1e-10)
    assert rankme(np.eye(5)) == pytest.approx(5.0, rel=1e-4)
    assert rankme(np.ones((5, 3))) == pytest.approx(1.0, abs=1e-4)


def test_effective_rank_is_that_of_the_covariance():
    rows = normal(13, 5) * np.arange(1, 6) + 100.0
    values = np.linalg.eigvalsh(np.cov(rows.T))
    shares = values / values.sum()
    assert effective_rank(rows) == pytest.approx(math.exp(-np.sum(shares * np.log(shares))), rel=1e-9)
    assert effective_rank(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]) + 7.0) == pytest.approx(2.0, rel=1e-12)
    assert effective_rank(np.full((5, 3), 0.1)) == 0.0


def test_noise_in_many_directions_lifts_rankme_and_not_the_effective_rank():
    rows = normal(500, 128, seed=5) * np.where(np.arange(128) < 2, 1.0, 0.01)
    assert effective_rank(rows) == pytest.approx(2.1, abs=0.05)
    assert rankme(rows) == pytest.approx(18, abs=0.5)


@pytest.mark.parametrize(
    "vectors",
    [
        normal(200, 64),
        normal(20, 512),
        normal(500, 2),
        normal(300, 64) + 5.0,  # a common offset: mean cosine 0.96
        normal(300, 64) * np.arange(1, 65) ** -1.0,  # a spectrum that falls as features' do
        clusters(500, 128, 10, 0.3),
        clusters(500, 768, 10, 0.01),  # as tight as after training with labels
        unit(clusters(300, 2048, 10, 0.01)),
        normal(2, 5),
        normal(100, 1),
    ],
    ids=lambda vectors: str(vectors.shape),
)
def test_healthy_vectors_are_left_alone(vectors):
    assert collapse(vectors) == "" and collapse(vectors.astype(np.float32)) == ""


def broken():
    vectors = normal(10, 5)
    vectors[3, 1] = np.nan
    vectors[7, 0] = np.inf
    return vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((50, 16)), "nearly equal: their mean cosine similarity is 1.00000"),
        (normal(16) + 1e-3 * normal(50, 16, seed=1), "nearly equal"),
        (np.zeros((50, 16)), "50 of 50 vectors are all zeros"),
        (broken(), "2 of 10 vectors hold a NaN or an infinity"),
        (normal(200, 1) * normal(64, seed=1), r"vary in 1\.0 of 64 directions .*, fewer than 3\.0; RankMe is 1\.0"),
        (normal(200, 2) @ normal(2, 64, seed=1) + 1e-2 * normal(200, 64, seed=2), r"vary in [12]\.\d of 64 directions"),
        (np.abs(normal(200, 1)) * normal(64, seed=1) + 0.02 * normal(200, 64), r"vary in 1\.0 of 64 directions"),
        (clusters(400, 768, 3, 1e-3), r"vary in [12]\.\d of 399 directions"),
        (normal(50, 1) * normal(6, seed=1), r"vary in 1\.0 of 6 directions .*, fewer than 1\.5"),
    ],
    ids=["constant", "almost", "zeros", "nan", "line", "plane", "ray", "three points", "narrow"],
)
def test_collapsed_vectors_are_named(vectors, message):
    assert re.search(message, collapse(vectors))
    assert re.search(message, collapse(vectors.astype(np.float32)))


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 5\); collapse is seen in two rows"):
        collapse(np.ones((1, 5)))
    with pytest.raises(ValueError, match="2 of 10 vectors hold a NaN"):
        uniformity(broken())
    with pytest.raises(ValueError, match=r"shape \(3,\); give some, as rows"):
        rankme(np.ones(3))
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2, 2\)"):
        alignment(np.ones((3, 2)), np.ones((2, 2)))
    for figure in (uniformity, mean_cosine):
        with pytest.raises(ValueError, match="two vectors or more"):
            figure(np.ones((1, 2)))
