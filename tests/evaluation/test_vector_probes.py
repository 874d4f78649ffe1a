"""Neighbours, few shots, verification and zero-shot classes, against plain loops and by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from research.evaluation import neighbours, zero_shot
from research.evaluation.evidence import interval
from research.evaluation.few_shot import few_shot
from research.evaluation.neighbours import knn_accuracy, knn_votes
from research.evaluation.verification import draw_pairs, equal_error_rate
from research.evaluation.zero_shot import class_vectors, zero_shot_accuracy


def draw(size, seed, noise=1.0, num_classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(size) % num_classes)
    centres = np.random.default_rng(9).normal(size=(num_classes, 7))
    return centres[labels] + noise * rng.normal(size=(size, 7)), labels


def cosine(x, y):
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


@pytest.mark.parametrize("count", [5, 1000])
def test_votes_are_those_of_a_plain_loop(count, monkeypatch):
    monkeypatch.setattr(neighbours, "_CHUNK", 3)
    (train, labels), (vectors, _) = draw(31, 1), draw(11, 2)
    found = knn_votes(train, labels, vectors, num_classes=4, neighbours=count, temperature=0.1)
    for row, votes in zip(vectors, found, strict=True):
        near = sorted(((cosine(row, other), label) for other, label in zip(train, labels, strict=True)), reverse=True)
        wanted = np.zeros(4)
        for similarity, label in near[:count]:
            wanted[label] += np.exp(similarity / 0.1)
        np.testing.assert_allclose(votes, wanted / wanted.sum(), rtol=1e-10, atol=1e-14)


def test_weights_and_not_numbers_decide_and_none_overflows():
    train = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    labels, asked = np.array([0, 1, 1]), np.array([[1.0, 0.05]])
    options = {"num_classes": 2, "neighbours": 3}
    assert knn_accuracy(train, labels, asked, np.array([0]), temperature=0.1, **options) == 1.0
    assert knn_accuracy(train, labels, asked, np.array([1]), temperature=10.0, **options) == 1.0
    assert knn_accuracy(train, labels, asked, np.array([0]), temperature=1e-4, **options) == 1.0


def test_knn_accuracy_is_the_share_of_right_votes():
    (train, labels), (vectors, wanted) = draw(60, 3, noise=2.0), draw(29, 4, noise=2.0)
    votes = knn_votes(train, labels, vectors, num_classes=3, neighbours=7)
    found = knn_accuracy(train, labels, vectors, wanted, num_classes=3, neighbours=7)
    assert found == np.mean(votes.argmax(axis=1) == wanted) and 0.4 < found < 1.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_labels": np.zeros(4, int)}, "5 training vectors came with 4 labels"),
        ({"neighbours": 0}, "neighbours=0"),
        ({"temperature": 0.0}, r"temperature=0\.0"),
        ({"train_labels": np.arange(5)}, "labels run from 0 to 4; 3 classes"),
        ({"labels": np.zeros(3, int)}, "5 vectors came with 3 labels"),
    ],
)
def test_votes_that_cannot_be_counted_are_refused(changed, message):
    vectors, labels = draw(5, 5)
    given = {"train_vectors": vectors, "train_labels": labels, "vectors": vectors, "labels": labels, "num_classes": 3}
    with pytest.raises(ValueError, match=message):
        knn_accuracy(**(given | changed))


def test_few_shots_are_drawn_of_every_class_and_averaged(monkeypatch):
    chosen = []
    fit = LogisticRegression.fit

    def watched(self, rows, labels):
        chosen.append((rows, labels))
        return fit(self, rows, labels)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    (train, labels), (vectors, wanted) = draw(47, 6), draw(31, 7)
    found = few_shot(train, labels, vectors, wanted, shots=4, draws=3, seed=1)
    for rows, own in chosen:
        assert np.bincount(own).tolist() == [4, 4, 4]
        assert len(np.unique(rows, axis=0)) == 12
        np.testing.assert_allclose((rows**2).sum(axis=1), 1.0, rtol=1e-12)
    assert not np.array_equal(chosen[0][0], chosen[1][0])
    asked = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted_accuracies = [np.mean(fit(LogisticRegression(C=1.0), *each).predict(asked) == wanted) for each in chosen[:3]]
    assert found["accuracies"] == wanted_accuracies
    assert found["mean"] == pytest.approx(np.mean(wanted_accuracies)) and found["mean"] > 0.5
    assert found["interval95"] == pytest.approx(interval(wanted_accuracies))
    assert few_shot(train, labels, vectors, wanted, shots=4, draws=3, seed=1) == found
    assert few_shot(train, labels, vectors, wanted, shots=4, draws=3, seed=2) != found


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shots": 4}, "class 0 has 3 training rows, fewer than shots=4"),
        ({"shots": 0}, "shots=0"),
        ({"draws": 1}, "draws=1"),
        ({"labels": np.zeros(8, int)}, "9 test vectors came with 8 labels"),
        ({"train_labels": np.zeros(9, int)}, "all the same"),
    ],
)
def test_few_shots_that_cannot_be_drawn_are_refused(changed, message):
    vectors, labels = draw(9, 8)
    given = {"train_vectors": vectors, "train_labels": labels, "vectors": vectors, "labels": labels, "shots": 2}
    with pytest.raises(ValueError, match=message):
        few_shot(**(given | changed))


def pairs_of(similarities):
    """Pairs of vectors of exactly these cosines."""
    similarities = np.asarray(similarities, float)
    first = np.tile([1.0, 0.0], (len(similarities), 1))
    return first, np.stack([similarities, np.sqrt(1 - similarities**2)], axis=1)


def eer(similarities, same):
    return equal_error_rate(*pairs_of(similarities), np.asarray(same, bool))


def test_equal_error_rate_by_hand():
    # At 0.6, 1 of 4 different pairs is accepted and 1 of 4 same pairs refused.
    found = eer([0.9, 0.8, 0.6, 0.3, 0.7, 0.5, 0.2, 0.1], [1, 1, 1, 1, 0, 0, 0, 0])
    assert found == pytest.approx({"eer": 0.25, "threshold": 0.6})
    assert eer([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0]) == pytest.approx({"eer": 0.0, "threshold": 0.8})
    assert eer([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0])["eer"] == pytest.approx(1.0)
    assert eer([0.4, 0.4, 0.4, 0.4, 0.4], [1, 1, 0, 0, 0]) == pytest.approx({"eer": 0.5, "threshold": 0.4})


def test_equal_error_rate_lies_where_the_plain_curves_cross():
    rng = np.random.default_rng(11)
    same = rng.permutation(np.arange(53) < 20)
    similarities = np.clip(rng.normal(np.where(same, 0.4, 0.1), 0.2), -1, 1)
    found = eer(similarities, same)
    points = [(np.mean(similarities[~same] >= cut), np.mean(similarities[same] < cut)) for cut in np.sort(similarities)]
    before = [point for point in points if point[0] > point[1]][-1]
    after = next(point for point in points if point[0] <= point[1])
    # On the line from one to the other, where both are equal.
    share = (before[0] - before[1]) / (before[0] - before[1] + after[1] - after[0])
    assert found["eer"] == pytest.approx(before[0] + share * (after[0] - before[0]), rel=1e-9)
    assert 0.1 < found["eer"] < 0.4
    accepted, refused = (
        np.mean(similarities[~same] >= found["threshold"] - 1e-9),
        np.mean(similarities[same] < found["threshold"] - 1e-9),
    )
    assert abs(accepted - refused) == pytest.approx(min(abs(first - second) for first, second in points), abs=1e-9)


def test_one_vector_for_all_verifies_nothing():
    same = np.arange(11) % 3 == 0
    assert equal_error_rate(np.ones((11, 5)), np.full((11, 5), 2.0), same)["eer"] == pytest.approx(0.5)


def test_pairs_of_one_kind_are_refused():
    with pytest.raises(ValueError, match="2 of 2 pairs are of the same"):
        eer([0.1, 0.2], [1, 1])
    with pytest.raises(ValueError, match="came with 3 answers"):
        eer([0.1, 0.2], [1, 1, 0])


def test_pairs_are_drawn_evenly_and_never_of_a_row_with_itself():
    labels = np.array(["b", "a", "b", "c", "b", "a", "d"])
    first, second, same = draw_pairs(labels, num_pairs=6000, seed=3)
    assert (first != second).all() and same.sum() == 3000
    np.testing.assert_array_equal(labels[first] == labels[second], same)
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    assert len(pairs) == 7 * 6  # every pair of different rows
    counts = np.bincount(first[same], minlength=7)
    assert counts[3] == counts[6] == 0 and counts[[0, 1, 2, 4, 5]].min() > 500  # 600 each, standard deviation 22
    again = draw_pairs(labels, num_pairs=6000, seed=3)
    assert all(np.array_equal(*each) for each in zip((first, second, same), again, strict=True))


@pytest.mark.parametrize(
    ("labels", "num_pairs", "message"),
    [([0, 0, 1], 3, "num_pairs=3"), ([0, 0, 0], 4, "of 1 kinds"), ([0, 1, 2], 4, "3 labels are of 3 kinds")],
)
def test_pairs_that_cannot_be_drawn_are_refused(labels, num_pairs, message):
    with pytest.raises(ValueError, match=message):
        draw_pairs(np.array(labels), num_pairs=num_pairs)


def test_class_vectors_average_directions():
    prompts = np.random.default_rng(1).normal(size=(5, 3, 7)) * np.array([1.0, 10.0, 100.0])[None, :, None]
    for found, own in zip(class_vectors(prompts), prompts, strict=True):
        mean = sum(row / np.sqrt(row @ row) for row in own)
        np.testing.assert_allclose(found, mean / np.sqrt(mean @ mean), rtol=1e-12)


def test_zero_shot_accuracy_is_that_of_sorted_classes(monkeypatch):
    monkeypatch.setattr(zero_shot, "_CHUNK", 4)
    rng = np.random.default_rng(2)
    prompts = rng.normal(size=(7, 3, 5))
    labels = rng.integers(0, 7, 23)
    vectors = prompts.mean(axis=1)[labels] + 1.2 * rng.normal(size=(23, 5))
    classes = class_vectors(prompts)
    places = [
        sorted(range(7), key=lambda index: -cosine(row, classes[index])).index(label)
        for row, label in zip(vectors, labels, strict=True)
    ]
    found = zero_shot_accuracy(vectors, labels, prompts, at=(1, 3, 5, 7))
    assert found == {
        "accuracy": np.mean(np.array(places) < 1),
        "accuracy_at_3": np.mean(np.array(places) < 3),
        "accuracy_at_5": np.mean(np.array(places) < 5),
    }
    assert 0.2 < found["accuracy"] < found["accuracy_at_3"] < 1.0


def test_classes_that_are_all_equal_earn_nothing():
    found = zero_shot_accuracy(np.ones((6, 2)), np.arange(6), np.ones((6, 3, 2)))
    assert found == {"accuracy": 0.0, "accuracy_at_5": 0.0}


def test_zero_shot_input_that_does_not_fit_is_refused():
    vectors, prompts = np.ones((2, 5)), np.ones((3, 2, 5))
    with pytest.raises(ValueError, match="2 vectors came with 1 labels"):
        zero_shot_accuracy(vectors, np.array([0]), prompts)
    with pytest.raises(ValueError, match="labels run from 0 to 3, and there are prompts of 3 classes"):
        zero_shot_accuracy(vectors, np.array([0, 3]), prompts)
    with pytest.raises(ValueError, match=r"wanted \[C T D\]"):
        class_vectors(vectors)
