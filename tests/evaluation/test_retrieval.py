"""Ranks, recall and the TF-IDF floor, by hand."""

import numpy as np
import pytest

from research.evaluation.retrieval import ranks, retrieval_metrics, tfidf_ranks, vector_ranks


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
