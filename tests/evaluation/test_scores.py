"""Drops under perturbation and under shift, against figures by hand."""

import numpy as np
import pytest

from research.batch import Dataset, Spec, Split
from research.evaluation import scores
from research.evaluation.tasks import TASKS, Scored
from research.evaluation.vector_tasks import watch_vectors


def scored(*right):
    return Scored({}, "accuracy", [np.array(row, bool) for row in right])


def labelled(texts, labels):
    return Split([], texts=texts, labels=labels)


TRAIN = labelled(["sun day", "moon night"] * 6, [0, 1] * 6)


def test_a_drop_is_clean_minus_perturbed():
    found = {"clean": scored([1], [1], [1], [0]), "typos": scored([1], [0], [0], [0])}
    data = Dataset(splits={}, spec=Spec())
    result = scores.robustness(found, data, "val", objective="classification", floors=False)
    assert result == {"robustness/val/typos": {"accuracy": 0.25, "drop": 0.5}}


def test_a_drop_counts_words_where_examples_have_several():
    found = {"clean": scored([1, 1, 1], [0]), "dropped_words": scored([1, 1], [1])}
    data = Dataset(splits={}, spec=Spec())
    result = scores.robustness(found, data, "test", objective="tagging", floors=False)
    assert result["robustness/test/dropped_words"] == {"accuracy": 1.0, "drop": -0.25}


def test_the_floor_stands_under_the_same_perturbations():
    splits = {
        "train": TRAIN,
        "clean": labelled(["sun", "moon", "day", "night"], [0, 1, 0, 1]),
        "typos": labelled(["sn", "moon", "night", "night"], [0, 1, 0, 1]),
    }
    data = Dataset(splits=splits, spec=Spec(label_names=("light", "dark")))
    found = {"clean": scored([1], [1], [1], [1]), "typos": scored([1], [1], [1], [0])}
    floor, (clean, mistyped) = TASKS["classification"].floor_on(data, ["clean", "typos"])
    assert floor == "tfidf" and clean == 1.0 and mistyped <= 0.75
    assert [clean, mistyped] == [TASKS["classification"].floors(data, name)["tfidf_accuracy"] for name in found]
    result = scores.robustness(found, data, "test", objective="classification", floors=True)
    assert result == {
        "robustness/test/typos": {
            "accuracy": 0.75,
            "drop": 0.25,
            "tfidf_accuracy": mistyped,
            "tfidf_drop": 1.0 - mistyped,
        }
    }
    assert scores.summary(result) == ["drop under typos 0.25"]


def test_the_floor_of_tags_is_that_of_the_splits():
    train = Split([], words=[["a", "b"], ["a", "c"]], tags=[[0, 1], [0, 1]])
    clean = Split([], words=[["a", "b"]], tags=[[0, 1]])
    moved = Split([], words=[["x", "a"]], tags=[[0, 0]])
    data = Dataset(splits={"train": train, "clean": clean, "typos": moved}, spec=Spec(label_names=("A", "B")))
    assert TASKS["tagging"].floor_on(data, ["clean", "typos"]) == ("most_frequent_tag", [1.0, 0.5])


def test_shift_is_compared_with_test_or_else_with_val():
    found = {"val": scored([1], [1]), "test": scored([1], [1], [1], [0]), "shift": scored([1], [0])}
    assert scores.shift(found) == {"shift/drop": 0.25}
    assert scores.shift({name: each for name, each in found.items() if name != "test"}) == {"shift/drop": 0.5}
    assert scores.shift({"val": found["val"]}) == {} == scores.shift({})


def test_slices_stand_in_the_result():
    part = Split([{"segment_ids": np.ones(3)}] * 2, labels=[0, 1], fields={"source": ["x", "y"]}, hashes=["p", "q"])
    data = Dataset(splits={"train": Split([], hashes=["p"]), "val": part}, spec=Spec(label_names=("no", "yes")))
    result = scores.of_scored(scored([1], [0]), data, "val")
    assert result["val/slices"]["source"]["x"] == {"accuracy": 1.0, "rows": 1, "values": 1}
    assert result["val/accuracy_without_seen_rows"] == pytest.approx(0.0) and result["val/rows_seen_in_training"] == 1


@pytest.mark.parametrize(
    ("labels", "knows"), [([0, 1] * 6, True), ([[0, 1], [1, 0]] * 6, False), ([0.5, 1.5] * 6, False), ([], False)]
)
def test_neighbours_vote_where_rows_have_one_class_each(labels, knows):
    vectors = np.random.default_rng(0).normal(size=(12, 5)) + 3.0 * np.eye(12, 5)
    part = Split([{}] * 12, texts=["a b", "c"] * 6, labels=labels)
    dataset = Dataset({"train": part, "val": part}, Spec(label_names=("no", "yes")))
    outputs = {"vectors": vectors, "train_vectors": vectors, "val_vectors": vectors}
    found = TASKS["simcse"].score(outputs, dataset, "val")
    assert ("knn_accuracy" in found.figures) is knows
    assert found.headline == ("knn_accuracy" if knows else "cosine_to_mean")
    assert len(found.values) == 12
    assert (
        "val/knn_accuracy" in watch_vectors({"train": {"vectors": vectors}, "val": {"vectors": vectors}}, dataset)
    ) is knows
    assert bool(TASKS["simcse"].floors(dataset, "val")) is knows
