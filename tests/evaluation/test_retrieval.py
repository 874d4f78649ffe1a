"""Ranks, recall and the TF-IDF floor, by hand."""

import numpy as np
import pytest

from research.evaluation import retrieval
from research.evaluation.retrieval import (
    chance_recall,
    group_ranks,
    ranks,
    retrieval_both_ways,
    retrieval_metrics,
    tfidf_ranks,
    vector_ranks,
)


def test_ranks_count_what_is_at_least_as_near():
    similarities = np.array([[0.9, 0.1, 0.5], [0.2, 0.2, 0.1], [0.3, 0.8, 0.8]])
    assert ranks(similarities, np.array([0, 0, 0])).tolist() == [1, 2, 3]


def test_metrics_by_hand():
    found = retrieval_metrics(np.array([1, 2, 5, 20]), 40)
    assert [found[f"recall_at_{cutoff}"] for cutoff in (1, 5, 10)] == [0.25, 0.75, 0.75]
    assert found["mean_reciprocal_rank"] == pytest.approx((1 + 1 / 2 + 1 / 5 + 1 / 20) / 4)
    assert found["median_rank"] == 3.5 and found["candidates"] == 40


def test_equal_second_texts_are_one_candidate():
    vectors = np.eye(3)
    found, size = vector_ranks(vectors[[0, 1, 2, 2]], vectors[[0, 1, 2, 2]], ["a", "b", "c", "c"])
    assert found.tolist() == [1, 1, 1, 1] and size == 3
    found, size = vector_ranks(vectors[[1, 1, 2]], vectors, ["a", "b", "c"])
    assert found.tolist() == [3, 1, 1]


def test_a_model_that_gives_one_vector_to_all_finds_nothing():
    same = np.ones((4, 2))
    assert vector_ranks(same, same, ["a", "b", "c", "d"])[0].tolist() == [4, 4, 4, 4]


def test_tfidf_finds_shared_words():
    passages = ["the cat sat on the mat", "stars are far away", "bread needs yeast and time"]
    questions = ["where did the cat sit", "how far are stars", "what does bread need"]
    found, size = tfidf_ranks([*passages, *questions], questions, passages)
    assert found.tolist() == [1, 1, 1] and size == 3


def test_any_candidate_of_the_group_is_a_hit_and_ties_earn_nothing():
    similarities = np.array([[0.9, 0.8, 0.1, 0.95], [0.5, 0.5, 0.5, 0.2], [0.1, 0.4, 0.3, 0.2]])
    found = group_ranks(similarities, np.array([7, 7, 3]), np.array([7, 7, 5, 3]))
    # 0.95 is before 0.9; the other group's 0.5 before its own; 0.4, 0.3 before 0.2.
    assert found.tolist() == [2, 2, 3]


def plain_group_rank(query, among, own, groups) -> int:
    """The best place of a hit when every tie is broken against it."""
    order = sorted(range(len(among)), key=lambda index: (-float(query @ among[index]), groups[index] == own))
    first = next(place for place, index in enumerate(order) if groups[index] == own)
    return 1 + sum(groups[index] != own for index in order[:first])


def test_retrieval_both_ways_is_that_of_sorted_lists(monkeypatch):
    monkeypatch.setattr(retrieval, "_CHUNK", 3)
    rng = np.random.default_rng(1)
    image_groups, text_groups = rng.integers(0, 7, 11), np.concatenate([np.arange(7), rng.integers(0, 7, 6)])
    image_groups[:7] = np.arange(7)
    centres = rng.normal(size=(7, 5))
    images = np.round(centres[image_groups] + rng.normal(size=(11, 5)))
    texts = np.round(centres[text_groups] + rng.normal(size=(13, 5)))
    found = retrieval_both_ways(images, texts, image_groups=image_groups, text_groups=text_groups)
    for way, queries, groups, among, others in (
        ("image_to_text", images, image_groups, texts, text_groups),
        ("text_to_image", texts, text_groups, images, image_groups),
    ):
        wanted = [plain_group_rank(query, among, own, others) for query, own in zip(queries, groups, strict=True)]
        assert len(set(wanted)) > 3
        for cutoff in (1, 5, 10):
            assert found[f"{way}_recall_at_{cutoff}"] == np.mean(np.array(wanted) <= cutoff)
        assert found[f"{way}_mean_rank"] == pytest.approx(np.mean(wanted), rel=1e-12)
        assert found[f"{way}_median_rank"] == np.median(wanted) and found[f"{way}_candidates"] == len(among)


def test_pairs_that_are_all_different_are_those_of_vector_ranks():
    rng = np.random.default_rng(2)
    images, texts = rng.normal(size=(17, 5)), rng.normal(size=(17, 5))
    own = np.arange(17)
    found = retrieval_both_ways(images, texts, image_groups=own, text_groups=own)
    ordered, _ = vector_ranks(images, texts, [f"text {number:02}" for number in range(17)])
    assert found["image_to_text_mean_rank"] == ordered.mean()


def test_broken_similarities_and_queries_without_a_hit_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        group_ranks(np.array([[np.nan, 0.0]]), np.array([0]), np.array([0, 1]))
    with pytest.raises(ValueError, match="1 of 2 queries have no candidate"):
        group_ranks(np.zeros((2, 2)), np.array([0, 2]), np.array([0, 1]))
    with pytest.raises(ValueError, match="2 texts came with 3 groups"):
        retrieval_both_ways(np.ones((1, 2)), np.ones((2, 2)), image_groups=np.zeros(1), text_groups=np.zeros(3))


def test_chance_is_k_in_n_for_one_hit_and_counts_draws_without_return_for_more():
    assert chance_recall(np.array([1, 1, 1]), 20, 5) == pytest.approx(0.25, rel=1e-12)
    # Of 7 candidates 3 are hits: two draws miss with 4/7 · 3/6; five draws cannot miss.
    assert chance_recall(np.array([3]), 7, 2) == pytest.approx(1 - 4 / 7 * 3 / 6, rel=1e-12)
    assert chance_recall(np.array([3]), 7, 5) == 1.0 and chance_recall(np.array([1]), 4, 10) == 1.0
