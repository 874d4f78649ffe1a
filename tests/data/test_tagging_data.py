"""Tagged sentences: every word's tag stands at its first token, whatever the tokenizer."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from research.batch import Dataset
from research.data.tagging import encode_words, tagging

SENTENCES = [
    (["Anna", "sees", "the", "unbelievable", "Eiffel", "Tower", "."], ["P", "V", "D", "A", "P", "P", "X"]),
    (["Dogs", "do", "n't", "bark", "!"], ["N", "V", "A", "V", "X"]),
    (["café", "naïve", "日本", "ok"], ["N", "A", "P", "A"]),
]


def write(path, sentences=SENTENCES, repeat=4):
    with path.open("w") as file:
        for words, tags in list(sentences) * repeat:
            file.write(json.dumps({"tokens": words, "tags": tags}) + "\n")
    return str(path)


def load(path, tokenizer="wordpiece", **keys) -> Dataset:
    block = {"name": tokenizer} | ({"vocab_size": 330} if tokenizer in ("bpe", "wordpiece") else {})
    return tagging(path, **({"tokenizer": block, "length": 60} | keys))


@pytest.mark.parametrize("tokenizer", ["byte", "character", "bpe", "wordpiece"])
def test_a_tag_stands_at_the_first_token_of_its_word(tmp_path, tokenizer):
    data = load(write(tmp_path / "a.jsonl"), tokenizer, valid_path=write(tmp_path / "b.jsonl", SENTENCES[:1], 1))
    made = Tokenizer.from_str(data.tokenizer)
    part, names = data.splits["train"], data.spec.label_names
    for row in range(3):
        words, tags = SENTENCES[row]
        example = part.examples[row]
        tagged = np.flatnonzero(example["tags"] >= 0)
        assert [names[tag] for tag in example["tags"][tagged]] == tags
        assert tagged.tolist() == list(part.places[row])
        ends = [*tagged[1:], int(example["segment_ids"].sum()) - 1]  # <eos> ends the last word
        for word, first, last in zip(words, tagged, ends, strict=True):
            assert made.decode(example["tokens"][first:last].tolist()).strip().replace(" ", "") == word


def test_words_that_do_not_fit_are_lost_and_counted(tmp_path):
    data = load(
        write(tmp_path / "a.jsonl"), "byte", valid_path=write(tmp_path / "b.jsonl", SENTENCES[:1], 1), length=16
    )
    part = data.splits["val"]
    assert list(part.places[0]) == [1, 6, 11, -1, -1, -1, -1]
    assert data.facts["val"]["lost_words"] == 4
    assert len(part.tags[0]) == 7 and (part.examples[0]["tags"] >= 0).sum() == 3


def test_a_word_without_characters_that_count_is_lost_alone(tmp_path):
    made = Tokenizer.from_str(load(write(tmp_path / "a.jsonl"), valid_fraction=0.2).tokenizer)
    _, _, places = encode_words([["Anna", "\u200b\ufeff", "sees"]], made, length=40)
    assert places[0][0] == 1 and places[0][1] == -1 < places[0][2]


def test_rows_read_together_are_those_read_alone(tmp_path):
    source = load(write(tmp_path / "a.jsonl"), valid_fraction=0.2).splits["train"].examples
    batch = source.rows(np.array([2, 0]))
    for row, index in enumerate((2, 0)):
        for key, values in source[index].items():
            np.testing.assert_array_equal(batch[key][row], values)


def test_a_number_of_sentences_is_a_seeded_choice(tmp_path):
    train, other = write(tmp_path / "a.jsonl", repeat=20), write(tmp_path / "b.jsonl", SENTENCES[:1], 1)
    first, again, third = (load(train, valid_path=other, num_labels=9, labels_seed=seed) for seed in (0, 0, 1))
    assert len(first.splits["train"].texts) == 9
    assert first.splits["train"].texts == again.splits["train"].texts != third.splits["train"].texts
    assert first.spec.label_names == ("A", "D", "N", "P", "V", "X")


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([(["a", "b"], ["X", "Y"]), (["a", "b"], ["X"])], r"record 2: 2 words have 1 tags; give each word one tag"),
        ([("a b", ["X", "Y"])], r"record 1: field 'tokens' is no list of words"),
        ([(["a"], [3])], r"record 1: field 'tags' is no list of words"),
        ([(["a"], ["X"])], r"every tag of training is 'X'"),
    ],
)
def test_sentences_that_cannot_be_are_named(tmp_path, sentences, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "a.jsonl", sentences), valid_fraction=0.3)


def test_a_tag_that_training_never_sees_is_named(tmp_path):
    other = write(tmp_path / "b.jsonl", [(["Anna"], ["Z"])], 1)
    with pytest.raises(ValueError, match="tag 'Z' of the val split is never seen in training"):
        load(write(tmp_path / "a.jsonl"), valid_path=other)
