"""Flat maps: the principal axes, seeds, and purity by a plain loop."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from research.evaluation import embedding_map as maps
from research.evaluation.embedding_map import embedding_map, map_purity
from research.evaluation.exhibits import chance_purity, nearest_rows


def clusters(size, num_classes=3, spread=0.2, width=7):
    rng = np.random.default_rng(4)
    labels = np.arange(size) % num_classes
    return rng.normal(size=(num_classes, width))[labels] + spread * rng.normal(size=(size, width)), labels


def test_pca_is_the_two_greatest_axes_of_the_covariance():
    vectors, _ = clusters(23, spread=1.0)
    drawn, found = embedding_map(vectors, method="pca")
    assert drawn.tolist() == list(range(23))
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    values, axes = np.linalg.eigh(np.cov(rows.T))
    wanted = (rows - rows.mean(axis=0)) @ axes[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=1e-12)
    np.testing.assert_allclose(found.var(axis=0, ddof=1), values[::-1][:2], rtol=1e-10)


@pytest.mark.parametrize("method", maps.METHODS)
def test_groups_lie_apart_on_the_map_and_a_seed_gives_the_same_map_again(method):
    vectors, labels = clusters(61)
    with threadpool_limits(1):  # so few points are not worth waiting for threads, which on a busy machine takes long
        drawn, found = embedding_map(vectors, method=method, seed=1)
        again = embedding_map(vectors, method=method, seed=1)[1]
    np.testing.assert_array_equal(found, again)
    assert found.shape == (61, 2) and np.isfinite(found).all()
    purity = map_purity(found, labels[drawn], neighbours=5)
    assert purity["purity"] > 0.9 and purity["majority_share"] == pytest.approx(21 / 61)


def test_no_more_than_the_most_points_are_drawn(monkeypatch):
    monkeypatch.setattr(maps, "MOST_POINTS", 11)
    vectors, _ = clusters(29)
    drawn, found = embedding_map(vectors, method="pca", seed=2)
    assert len(drawn) == len(found) == 11 == len(set(drawn.tolist())) and (np.diff(drawn) > 0).all()
    assert drawn.tolist() != embedding_map(vectors, method="pca", seed=3)[0].tolist()


def test_purity_is_that_of_a_plain_loop():
    rng = np.random.default_rng(5)
    points, labels = rng.normal(size=(17, 2)), rng.integers(0, 3, 17)
    shares = []
    for index in range(17):
        others = [other for other in range(17) if other != index]
        others.sort(key=lambda other, own=index: np.sum((points[own] - points[other]) ** 2))
        shares.append(np.mean([labels[other] == labels[index] for other in others[:4]]))
    found = map_purity(points, labels, neighbours=4)
    assert found["purity"] == pytest.approx(np.mean(shares), rel=1e-12)
    assert found["majority_share"] == np.bincount(labels).max() / 17


def test_a_map_of_chance_is_not_above_the_majority():
    rng = np.random.default_rng(6)
    found = map_purity(rng.normal(size=(400, 2)), rng.permutation(np.arange(400) % 10 == 0))
    assert found["majority_share"] == 0.9 and found["purity"] < 0.9


@pytest.mark.parametrize(
    ("vectors", "method", "message"),
    [
        (np.eye(7), "umap", "method='umap'; the maps are: pca, tsne"),
        (np.eye(4), "pca", r"shape \(4, 4\); a map needs five rows"),
        (np.ones((9, 1)), "pca", "two columns"),
        (np.ones((9, 3)), "tsne", "all vectors point the same way"),
        (np.full((9, 3), np.nan), "pca", "9 of 9 vectors hold a NaN"),
    ],
)
def test_vectors_without_a_map_are_refused(vectors, method, message):
    with pytest.raises(ValueError, match=message):
        embedding_map(vectors, method=method)


def test_purity_of_too_little_is_refused():
    with pytest.raises(ValueError, match="3 points came with 2 labels"):
        map_purity(np.zeros((3, 2)), np.zeros(2))


def test_chance_purity_is_that_of_a_plain_loop():
    groups = np.array(["a", "a", "b", "a", "c", "c"])
    pairs = [(first, second) for first in range(6) for second in range(6) if first != second]
    assert chance_purity(groups) == pytest.approx(np.mean([groups[first] == groups[second] for first, second in pairs]))


def test_the_nearest_come_first_by_cosine_whatever_their_length():
    vectors = np.array([[0.0, 9.0], [5.0, 5.0], [0.1, 0.0], [-3.0, 0.0]])
    places, cosines = nearest_rows(np.array([[2.0, 0.0]]), vectors, most=3)
    assert places.tolist() == [[2, 1, 0]]
    np.testing.assert_allclose(cosines, [[1.0, np.sqrt(0.5), 0.0]], atol=1e-12)
