"""Spans as conlleval and seqeval read them, F1 by hand, and the most frequent tag."""

import pytest

from research.evaluation.tagging import has_spans, most_frequent_tag, spans, tagging_metrics

# Sentences, and what seqeval.metrics.sequence_labeling.get_entities (1.2.2) gives for them.
KNOWN = [
    ("O B-PER I-PER O B-LOC", [("PER", 1, 2), ("LOC", 4, 4)]),
    ("B-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)]),
    ("I-PER I-PER O I-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
    ("B-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
    ("B-PER O I-PER", [("PER", 0, 0), ("PER", 2, 2)]),
    ("S-PER B-LOC E-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2), ("LOC", 3, 3)]),
    ("S-PER S-PER", [("PER", 0, 0), ("PER", 1, 1)]),
    ("B-creative-work I-creative-work", [("creative-work", 0, 1)]),
    ("O O", []),
]


@pytest.mark.parametrize(("tags", "wanted"), KNOWN)
def test_spans_are_those_of_seqeval(tags, wanted):
    assert spans(tags.split()) == wanted


def test_the_score_of_spans_is_that_worked_out_by_hand():
    true = [tags.split() for tags in ("B-PER I-PER O B-LOC", "O B-PER")]
    predicted = [tags.split() for tags in ("B-PER I-PER O B-PER", "O B-PER")]
    found = tagging_metrics(true, predicted, ("B-LOC", "B-PER", "I-PER", "O"))
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert found["per_class"]["PER"] == pytest.approx({"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "support": 2})
    assert found["per_class"]["LOC"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}


def test_a_word_without_a_prediction_is_wrong():
    found = tagging_metrics([["B-PER", "O"]], [["", ""]], ("B-PER", "O"))
    assert found["accuracy"] == 0.0 and found["recall"] == 0.0
    found = tagging_metrics([["NOUN", "VERB"]], [["NOUN", ""]], ("NOUN", "VERB"))
    assert found["accuracy"] == 0.5 and found["f1"] == pytest.approx(0.5)


def test_plain_tags_have_the_mean_of_their_scores():
    assert not has_spans(("NOUN", "VERB")) and has_spans(("O", "B-X", "I-X")) and not has_spans(("B-X", "I-X"))
    found = tagging_metrics([["NOUN", "VERB", "NOUN"]], [["NOUN", "NOUN", "NOUN"]], ("NOUN", "VERB"))
    assert found["f1"] == pytest.approx((0.8 + 0.0) / 2)
    with pytest.raises(ValueError, match="differ in number"):
        tagging_metrics([["NOUN"]], [["NOUN", "VERB"]], ("NOUN", "VERB"))


def test_the_most_frequent_tag_and_that_of_rare_words():
    words = [["run", "run", "run", "a", "xylo"], ["the", "the"]]
    tags = [["V", "N", "V", "D", "P"], ["D", "D"]]
    assert most_frequent_tag(words, tags, [["run", "the", "zebra"]]) == [["V", "D", "D"]]
    assert most_frequent_tag([*words, ["yacht"]], [*tags, ["P"]], [["zebra"]]) == [["P"]]
