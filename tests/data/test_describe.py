"""What is told of a data set is what is in it."""

import json

import numpy as np
import pytest

from research.batch import Dataset, Spec, Split
from research.data.describe import (
    count_tokens,
    describe_files,
    describe_repeats,
    describe_rows,
    describe_split,
    describe_tokens,
    document_lengths,
    histogram,
)
from research.data.labelled import text_classification
from research.data.multi_label import text_multi_label
from research.data.prompt_answer import prompt_answer
from research.data.regression import text_regression
from research.data.rows import Joined
from research.data.text import text
from research.data.tokenizers import Byte, facts, from_json

TEXTS = ["one two", "three", "One  two", "four five six seven", "one two", "eight", "nine", "three ten"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rows.jsonl"
    records = [{"text": each, "label": "ab"[index % 2]} for index, each in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def language(path) -> Dataset:
    return text(str(path), length=13, tokenizer={"name": "character"}, valid_fraction=0.25)


def test_tokens_and_lengths_are_those_of_the_documents(language):
    about = describe_split(language.splits["train"], language.spec)
    lengths = [1 + len(each) for each in TEXTS[:6]]
    assert about["documents"] == 6
    assert about["tokens"] == sum(lengths)
    assert about["bytes"] == sum(map(len, TEXTS[:6]))
    assert about["longest"] == max(lengths) == 20
    assert about["lengths"] == [(4, 7, 2), (8, 15, 3), (16, 31, 1)]
    assert about["unknown"] == 0.0
    counts = count_tokens(language.splits["train"], language.spec)
    tokenizer = from_json(language.tokenizer)
    assert counts[2] == 6  # each document begins with <bos>
    assert counts[tokenizer.token_to_id("w")] == 3


def test_unknown_characters_of_validation_are_counted(language):
    val = describe_split(language.splits["val"], language.spec)  # "nine" and "three ten" hold nothing new
    assert val["unknown"] == 0.0
    split = Split(language.splits["val"].examples, documents=[np.array([2, 1, 5, 1], np.int32)], num_bytes=3)
    assert describe_split(split, language.spec)["unknown"] == 0.5


def test_documents_of_a_mixture_are_counted_together(language):
    train = language.splits["train"]
    both = Split(train.examples, documents=Joined([train.documents, list(train.documents)]))
    assert np.array_equal(count_tokens(both, language.spec), 2 * count_tokens(train, language.spec))
    assert np.array_equal(document_lengths(both), np.tile(document_lengths(train), 2))


def test_fill_and_segments_are_those_of_the_rows(language):
    split = language.splits["train"]
    rows = np.stack([split.examples[i]["segment_ids"] for i in range(len(split.examples))])
    about = describe_split(split, language.spec)
    assert about["rows"] == len(rows)
    assert about["fill"] == pytest.approx((rows > 0).mean())
    assert about["segments_per_row"] == pytest.approx(rows.max(axis=1).mean())
    assert sum(about["fill_tenths"]) == len(rows)


def test_repeats_are_counted_and_named(language):
    found = describe_repeats(language, from_json(language.tokenizer))
    assert found["duplicates_in_train"] == language.facts["duplicates_in_train"] == 2
    assert found["most_repeated"] == [{"times": 3, "text": "<bos>one two"}]
    assert found["shared_rows"] == {"train-val": 0}


def test_the_most_frequent_tokens_come_first(language):
    found = describe_tokens(language, from_json(language.tokenizer), most=3)
    counts = [each["count"] for each in found["most_frequent"]]
    assert found["most_frequent"][0]["token"] == "e"
    assert counts == sorted(counts, reverse=True) and len(counts) == 3
    assert found["never_used"] == 4  # <pad>, <unk>, <eos>, <mask>


def test_labelled_rows_are_counted(path):
    dataset = text_classification(str(path), length=31, tokenizer={"name": "byte"}, valid_fraction=0.25)
    about = {name: describe_split(split, dataset.spec) for name, split in dataset.splits.items()}
    train, val = about["train"], about["val"]
    assert train["labels"]["a"] + val["labels"]["a"] == 4
    assert train["documents"] == train["rows"] == 6
    assert train["tokens"] + val["tokens"] == sum(len(each) + 2 for each in TEXTS)


def test_rows_are_read_back_with_their_borders_and_targets():
    tokenizer = Byte().train(["text"])
    spec = Spec(length=7, label_names=("no", "yes"), **facts(tokenizer))
    a, b, c = (tokenizer.token_to_id(letter) for letter in "abc")
    batch = {
        "tokens": np.array([[2, a, b, 2, c, c, 0], [2, a, a, a, a, a, a]]),
        "segment_ids": np.array([[1, 1, 1, 2, 2, 2, 0], [1] * 7]),
        "label": np.array([1, 0]),
    }
    seen = batch["tokens"].copy()
    seen[0, 1], seen[0, 5] = 4, b
    chosen = np.zeros((2, 7), bool)
    chosen[0, [1, 4, 5]] = True
    (row,) = describe_rows(batch, tokenizer, spec, rows=[0], seen=seen, chosen=chosen)
    assert row == {
        "row": 0,
        "padding": 1,
        "label": "yes",
        "segments": [
            {"first": 0, "last": 2, "text": "<bos><mask>b", "targets": [{"target": "a", "seen": "<mask>"}]},
            {
                "first": 3,
                "last": 5,
                "text": "<bos>cb",
                "targets": [{"target": "c", "seen": "c"}, {"target": "c", "seen": "b"}],
            },
        ],
    }
    (plain,) = describe_rows(batch, tokenizer, spec, rows=[1])
    assert plain["segments"] == [{"first": 0, "last": 6, "text": "<bos>aaaaaa"}]


def test_files_are_listed_and_embedded_data_counted(path):
    (found,) = describe_files(str(path))
    assert found == {"path": str(path), "files": {str(path): path.stat().st_size}}
    (corpus,) = describe_files(["embedded:corpus[val]"])
    assert corpus["counts"]["val/records"] > 100
    assert not any(key.startswith("train/") for key in corpus["counts"])


def test_histogram_bins_double():
    assert histogram(np.array([1, 2, 3, 4, 9])) == [(1, 1, 1), (2, 3, 2), (4, 7, 1), (8, 15, 1)]
    assert histogram(np.array([0, 5])) == [(0, 0, 1), (1, 1, 0), (2, 3, 0), (4, 7, 1)]
    assert histogram(np.zeros(0, np.int64)) == []


def test_several_labels_numbers_and_answers_are_shown(tmp_path):
    record = {"text": "one", "labels": ["a", "b"], "value": 2.5, "prompt": "q", "answer": "yes"}
    rows = [record, record | {"text": "two", "labels": [], "value": 1, "answer": "no"}]
    for name, part in (("a", rows), ("b", rows[:1])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in part))
    keys = dict(valid_path=str(tmp_path / "b.jsonl"), length=11, tokenizer={"name": "byte"})
    path = str(tmp_path / "a.jsonl")

    def shown(dataset):
        tokenizer, batch = from_json(dataset.tokenizer), dataset.splits["train"].examples.rows(np.array([0, 1]))
        about = describe_split(dataset.splits["train"], dataset.spec)
        return about, describe_rows(batch, tokenizer, dataset.spec, rows=[0, 1])

    about, found = shown(text_multi_label(path, **keys))
    assert about["labels"] == {"a": 1, "b": 1} and [row["label"] for row in found] == ["a, b", ""]
    about, found = shown(text_regression(path, **keys, label_field="value"))
    assert "labels" not in about and [row["label"] for row in found] == [2.5, 1.0]
    about, found = shown(prompt_answer(path, **keys))
    assert "labels" not in about and [row["segments"][0]["answer"] for row in found] == ["yes<eos>", "no<eos>"]
