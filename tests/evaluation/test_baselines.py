"""Floors against plain implementations, and their promises."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from research.evaluation import baselines
from research.evaluation.baselines import (
    kneser_ney,
    kneser_ney_log_probabilities,
    tfidf_logistic,
    unigram_nats,
)

BOS = 2


def documents(seed: int, *, count: int, vocab_size: int) -> list[np.ndarray]:
    """Documents of a Markov chain, so that every order has something to learn; the shortest has <bos> alone."""
    rng = np.random.default_rng(seed)
    transition = np.random.default_rng(97).dirichlet(np.full(vocab_size, 0.2), size=vocab_size)
    made = []
    for length in [1, 2, *rng.integers(3, 23, count)]:
        tokens = [BOS]
        while len(tokens) < length:
            tokens.append(int(rng.choice(vocab_size, p=transition[tokens[-1]])))
        made.append(np.array(tokens, np.int32))
    return made


class PlainKneserNey:
    """Interpolated modified Kneser-Ney with dictionaries, written from the paper's equations; every order recurses."""

    def __init__(self, train: list[np.ndarray], *, vocab_size: int, order: int):
        self.vocab_size, self.order = vocab_size, order
        self.counts = {level: self.count(train, level) for level in range(1, order + 1)}
        self.discounts = {level: self.estimate(self.counts[level]) for level in self.counts}

    def count(self, train: list[np.ndarray], level: int) -> Counter:
        """Occurrences at the highest level; below, distinct predecessors, or occurrences where nothing precedes."""
        occurrences, predecessors = Counter(), defaultdict(set)
        for document in train:
            tokens = document.tolist()
            for end in range(max(level, 2), len(tokens) + 1):
                gram = tuple(tokens[end - level : end])
                if level == self.order or end == level:
                    occurrences[gram] += 1
                else:
                    predecessors[gram].add(tokens[end - level - 1])
        return occurrences + Counter({gram: len(tokens) for gram, tokens in predecessors.items()})

    def estimate(self, counts: Counter) -> tuple[float, ...]:
        n1, n2, n3, n4 = (sum(1 for count in counts.values() if count == number) for number in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return (0, 0.5, 1, 1.5)
        y = n1 / (n1 + 2 * n2)
        found = (0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        return found if all(0 <= d <= r for r, d in enumerate(found)) else (0, 0.5, 1, 1.5)

    def probability(self, token: int, context: tuple[int, ...]) -> float:
        """P(token | context), with at most order - 1 tokens of context."""
        level = len(context) + 1
        lower = self.probability(token, context[1:]) if context else 1 / self.vocab_size
        followers = {g: c for g, c in self.counts[level].items() if g[:-1] == context}
        total = sum(followers.values())
        if not total:
            return lower
        discount = self.discounts[level]
        count = followers.get((*context, token), 0)
        freed = sum(discount[min(c, 3)] for c in followers.values())
        return (count - discount[min(count, 3)] + freed * lower) / total

    def log_probabilities(self, evaluated: list[np.ndarray]) -> list[float]:
        return [
            math.log(self.probability(tokens[i], tuple(tokens[max(0, i - self.order + 1) : i])))
            for tokens in (document.tolist() for document in evaluated)
            for i in range(1, len(tokens))
        ]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [7, 211])  # few: fallback discounts; many: estimated ones
def test_kneser_ney_equals_a_dictionary_implementation(order, count):
    train, evaluated = documents(3, count=count, vocab_size=7), documents(5, count=5, vocab_size=7)
    plain = PlainKneserNey(train, vocab_size=7, order=order)
    wanted = plain.log_probabilities(evaluated)
    found = kneser_ney_log_probabilities(train, evaluated, vocab_size=7, orders=(order,))[order]
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
    estimated = any(discounts != (0, 0.5, 1, 1.5) for discounts in plain.discounts.values())
    assert estimated == (order > 1)  # seven tokens are too few for counts of counts at the lowest level


@pytest.mark.parametrize("context", [[BOS], [BOS, 3], [BOS, 6, 5, 0, 1], [BOS, 10, 10, 4]])
def test_kneser_ney_probabilities_sum_to_one(context):
    train = documents(3, count=53, vocab_size=7)  # tokens 7 to 10 are in the vocabulary and never in training
    continued = [np.array([*context, token]) for token in range(11)]
    found = kneser_ney_log_probabilities(train, continued, vocab_size=11, orders=(1, 2, 3, 4, 5))
    for order, values in found.items():
        last = np.cumsum([len(document) - 1 for document in continued]) - 1
        assert np.exp(values[last]).sum() == pytest.approx(1, abs=1e-12), order


def test_one_call_for_many_orders_equals_one_call_each():
    train, evaluated = documents(3, count=31, vocab_size=5), documents(5, count=3, vocab_size=5)
    together = kneser_ney(train, evaluated, vocab_size=5, orders=(1, 2, 3, 4, 5))
    for order, nats in together.items():
        assert kneser_ney(train, evaluated, vocab_size=5, orders=(order,)) == {order: nats}


def test_higher_orders_win_on_a_repeated_sequence():
    cycle = [3, 4, 3, 5, 3, 6, 4, 4, 5]  # 3 is followed by 4, 5 or 6: only a second token of context can tell
    train, evaluated = [np.array([BOS, *cycle * 29])], [np.array([BOS, *cycle * 3])]
    nats = kneser_ney(train, evaluated, vocab_size=7)
    assert nats[1] > nats[2] + 0.3 and nats[2] > nats[3] + 0.3
    assert nats[3] < 0.2


def test_kneser_ney_never_looks_across_documents():
    train = documents(3, count=31, vocab_size=7)
    first, second = np.array([BOS, 3, 4, 5]), np.array([BOS, 6, 1, 1])
    together = kneser_ney_log_probabilities(train, [first, second], vocab_size=7, orders=(5,))[5]
    alone = kneser_ney_log_probabilities(train, [second], vocab_size=7, orders=(5,))[5]
    np.testing.assert_array_equal(together[3:], alone)


def test_document_order_in_training_does_not_matter():
    train, evaluated = documents(3, count=31, vocab_size=7), documents(5, count=5, vocab_size=7)
    forwards = kneser_ney(train, evaluated, vocab_size=7)
    assert kneser_ney(train[::-1], evaluated, vocab_size=7) == pytest.approx(forwards, rel=1e-12)


def test_unigram_is_the_frequency_with_one_added_and_leaves_out_first_tokens():
    train, evaluated = [np.array([BOS, 3, 3, 4]), np.array([BOS, 3])], [np.array([BOS, 3, 0])]
    # predicted in training: 3 three times, 4 once; five tokens in the vocabulary
    assert unigram_nats(train, evaluated, 5) == pytest.approx(-(math.log(4 / 9) + math.log(1 / 9)) / 2)


@pytest.mark.parametrize(
    ("train", "orders", "message"),
    [
        ([[2, 3]], (0, 1), "at least 1"),
        ([[2, 3]], (), "at least 1"),
        ([[2]], (1,), "no token to predict"),
        ([], (1,), "no token to predict"),
        ([[2, 3], []], (1,), r"train_documents\[1\] is empty"),
        ([[2, 11]], (1,), "token 11, outside vocab_size=7"),
    ],
)
def test_kneser_ney_refuses(train, orders, message):
    with pytest.raises(ValueError, match=message):
        kneser_ney([np.array(d, np.int64) for d in train], [np.array([2, 3])], vocab_size=7, orders=orders)


def test_tfidf_logistic_learns_words_and_punctuation():
    train = ["good film !", "bad film ?", "a good one !", "a bad one ?"] * 5
    labels = ["yes", "no", "yes", "no"] * 5
    predicted, probabilities = tfidf_logistic(train, labels, ["good", "bad", "!", "?"])
    assert predicted.tolist() == ["yes", "no", "yes", "no"]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert probabilities[0, 1] > 0.5 > probabilities[1, 1]  # columns in the order of sorted labels: no, yes


def test_tfidf_logistic_reads_both_texts_of_a_pair():
    train = [("a", "up"), ("a", "down"), ("b", "up"), ("b", "down")] * 5
    predicted, _ = tfidf_logistic(train, [1, 0, 1, 0] * 5, [("a", "up"), ("b", "down")])
    assert predicted.tolist() == [1, 0]


def test_tfidf_logistic_is_the_same_from_run_to_run():
    train, labels = ["one two", "two three", "three one", "one one"] * 3, [0, 1, 2, 0] * 3
    first, second = (tfidf_logistic(train, labels, ["one", "two"], seed=3)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_tfidf_logistic_refuses_one_class_and_missing_labels():
    with pytest.raises(ValueError, match="at least two classes"):
        tfidf_logistic(["a", "b"], [1, 1], ["a"])
    with pytest.raises(ValueError, match="2 training texts came with 1 labels"):
        tfidf_logistic(["a", "b"], [1], ["a"])


@pytest.mark.real_data
def test_kneser_ney_on_tinyshakespeare_characters(real_data):
    import zstandard

    packed = (real_data / "tinyshakespeare" / "input.txt.zst").read_bytes()
    text = zstandard.ZstdDecompressor().stream_reader(packed).read().decode()
    characters = np.unique(np.array(list(text)), return_inverse=True)[1]
    cut = int(0.9 * len(characters))
    nats = kneser_ney([characters[:cut]], [characters[cut:]], vocab_size=65, orders=(3, 5))
    assert nats[3] == pytest.approx(2.0381, abs=1e-4)
    assert nats[5] == pytest.approx(1.5611, abs=1e-4)


def test_one_fit_tells_several_splits():
    texts, labels = ["a b", "b c", "c d", "d a"], ["x", "y", "x", "y"]
    before = baselines._fit_logistic.cache_info()
    first, _ = baselines.tfidf_logistic(texts, labels, ["a b"])
    second, _ = baselines.tfidf_logistic(texts, labels, ["a b", "d a"])
    other, _ = baselines.tfidf_logistic(texts, labels[::-1], ["a b"])
    after = baselines._fit_logistic.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (2, 1)
    assert (first[0], second.tolist(), other[0]) == ("x", ["x", "y"], "y")
