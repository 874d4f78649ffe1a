"""The text data set: its splits, what is counted of them, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from research.build import build
from research.data import DATA, embedded
from research.data.rows import Mixture
from research.data.splits import hash_text
from research.data.stream import TrainStream

WORDS = ("the", "cat", "sat", "on", "a", "mat", "while", "seven", "dogs", "ran", "past", "one", "old", "house")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "cache"))


def sentences(count, *, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(3, 17))) + f" {seed}-{index}" for index in range(count)]


def write(path, texts, *, field="text"):
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts))
    return str(path)


def load(path, **arguments):
    block = {"name": "text", "path": path, "length": 31, "tokenizer": {"name": "byte"}} | arguments
    return build(block, DATA, kind="data")


def decoded(split):
    """The bytes of each document of a split whose tokenizer is `byte`."""
    return [len(document) - 1 for document in split.documents]


def test_one_text_file_is_cut_by_characters(tmp_path):
    contents = "abcdefghij" * 37 + "é"
    (tmp_path / "one.txt").write_text(contents)
    data = load(str(tmp_path / "one.txt"), valid_fraction=0.1, tokenizer={"name": "character"})
    cut = int(len(contents) * 0.9)
    assert [len(data.splits[name].documents[0]) - 1 for name in ("train", "val")] == [cut, len(contents) - cut]
    assert data.splits["train"].num_bytes == cut
    assert data.splits["val"].num_bytes == len(contents) - cut + 1
    unknown = (data.splits["val"].documents[0] == data.spec.unk_id).sum()
    assert unknown == 1, "the tokenizer saw validation text"


@pytest.mark.real_data
def test_tinyshakespeare_is_split_as_everywhere():
    path = Path(__file__).parents[3] / "shared/data/tinyshakespeare/input.txt.zst"
    data = load(str(path), valid_fraction=0.1, tokenizer={"name": "character"}, packing="windows", length=64)
    assert (data.facts["train"]["tokens"], data.facts["val"]["tokens"]) == (1_003_854 + 1, 111_540 + 1)
    assert data.spec.vocab_size == 65 + 5


def test_documents_are_cut_at_the_last_fraction(tmp_path):
    texts = sentences(53)
    data = load(write(tmp_path / "a.jsonl", texts), valid_fraction=0.2)
    assert decoded(data.splits["train"]) == [len(text) for text in texts[:42]]
    assert decoded(data.splits["val"]) == [len(text) for text in texts[42:]]
    assert list(data.splits["val"].hashes) == [hash_text(text) for text in texts[42:]]


def test_every_token_is_predicted_once_in_each_split(tmp_path):
    data = load(write(tmp_path / "a.jsonl", sentences(53)), test_path=write(tmp_path / "b.jsonl", sentences(7, seed=1)))
    for split in data.splits.values():
        rows = [split.examples[index]["segment_ids"] for index in range(len(split.examples))]
        predicted = sum(int(((row[1:] == row[:-1]) & (row[1:] > 0)).sum()) for row in rows)
        assert predicted == sum(len(document) - 1 for document in split.documents)


def test_windows_train_with_their_stride_and_evaluate_each_token_once(tmp_path):
    data = load(write(tmp_path / "a.jsonl", sentences(53)), packing="windows", stride=3, valid_fraction=0.3)
    num_train, num_valid = (sum(map(len, data.splits[name].documents)) for name in ("train", "val"))
    assert len(data.splits["train"].examples) == 1 + -(-(num_train - 31) // 3)
    assert len(data.splits["val"].examples) == 1 + -(-(num_valid - 31) // 30)


def test_counts_are_those_of_the_text(tmp_path):
    texts = [*sentences(29), "", "The  cat\nSAT", "the cat sat", "the cat sat"]
    valid, test = ["The cat sat ", "something else", ""], ["something else", "the cat sat"]
    data = load(
        write(tmp_path / "a.jsonl", texts),
        valid_path=write(tmp_path / "b.jsonl", valid),
        test_path=write(tmp_path / "c.jsonl", test),
    )
    facts = data.facts
    assert facts["shared_rows"] == {"train-val": 1, "train-test": 1, "val-test": 2}
    assert facts["duplicates_in_train"] == 2
    assert facts["train"]["documents"] == 33
    assert facts["train"]["dropped_documents"] == 1
    assert facts["train"]["bytes"] == data.splits["train"].num_bytes == sum(map(len, texts))
    assert facts["train"]["tokens"] == sum(map(len, texts)) + 33
    assert facts["train"]["rows"] == len(data.splits["train"].examples)
    assert facts["train"]["fill"] == pytest.approx(
        np.mean([data.splits["train"].examples[i]["segment_ids"] > 0 for i in range(facts["train"]["rows"])])
    )
    json.dumps(facts)


def test_the_cache_gives_back_the_same_rows(tmp_path):
    path = write(tmp_path / "a.jsonl", sentences(53))
    first, again = (
        load(path, tokenizer={"name": "bpe", "vocab_size": 277}),
        load(path, tokenizer={"name": "bpe", "vocab_size": 277}),
    )
    assert first.facts == again.facts
    assert first.tokenizer == again.tokenizer
    before = sorted((tmp_path / "cache").rglob("*"))
    other = load(path, tokenizer={"name": "bpe", "vocab_size": 277}, length=17, seed=1)
    assert other.facts["fingerprint"] == first.facts["fingerprint"]
    assert len(other.splits["train"].examples) > len(first.splits["train"].examples)
    added = {place.name for place in set((tmp_path / "cache").rglob("*")) - set(before)}
    assert added == {"rows-1-17-1.npz"}


def test_the_fingerprint_follows_the_contents(tmp_path):
    path = write(tmp_path / "a.jsonl", sentences(53))
    moved = shutil.copy(path, tmp_path / "moved.jsonl")
    prints = [load(each).facts["fingerprint"] for each in (path, str(moved))]
    assert prints[0] == prints[1]
    assert load(write(tmp_path / "b.jsonl", sentences(53, seed=2))).facts["fingerprint"] != prints[0]
    assert load(path, valid_fraction=0.5).facts["fingerprint"] != prints[0]


def test_a_mixture_draws_by_weight_and_validates_on_all(tmp_path):
    paths = (write(tmp_path / "a.jsonl", sentences(53)), write(tmp_path / "b.jsonl", sentences(211, seed=1)))
    data = load(paths, weights=(3.0, 1.0))
    train = data.splits["train"].examples
    assert isinstance(train, Mixture)
    first = len(train.parts[0])
    batch = TrainStream(train, seed=0, batch_size=400).batch_at(0)
    known = {train[index]["tokens"].tobytes() for index in range(first)}
    drawn = np.mean([row.tobytes() in known for row in batch["tokens"]])
    assert drawn == pytest.approx(0.75, abs=0.01)
    assert len(data.splits["val"].documents) == data.facts["val"]["documents"] == 3 + 11
    assert len(data.splits["val"].hashes) == 14


def test_named_splits_are_kept_apart(monkeypatch):
    seeds = {"train": 0, "val": 1, "test": 2}
    monkeypatch.setattr(embedded, "splits", lambda name: tuple(seeds))
    monkeypatch.setattr(
        embedded, "records", lambda name, split: [{"text": t} for t in sentences(11, seed=seeds[split])]
    )
    data = load("embedded:corpus", valid_split="val", test_path="embedded:corpus[test]")
    for name, split in data.splits.items():
        assert list(split.hashes) == [hash_text(text) for text in sentences(11, seed=seeds[name])]
    for same in ({"valid_split": "train"}, {"valid_split": "val", "test_path": "embedded:corpus[train]"}):
        with pytest.raises(ValueError, match="is in the training data embedded:corpus too"):
            load("embedded:corpus", **same)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"valid_path": "a.jsonl"}, "a.jsonl is given for val and is in the training data"),
        ({"test_path": "a.jsonl"}, "a.jsonl is given for test and is in the training data"),
        ({"path": "*.jsonl", "valid_path": "b.jsonl"}, "b.jsonl is given for val and is in the training data"),
        ({"valid_path": "copy.jsonl"}, "copy.jsonl is given for val and is in the training data"),
        ({"path": ("b.jsonl", "a.jsonl"), "test_path": "a.jsonl"}, "a.jsonl is given for test"),
        ({"valid_path": "b.jsonl", "valid_split": "val"}, "both say what to validate on"),
        ({"valid_split": "val"}, "no named splits"),
        ({"valid_path": "nowhere.jsonl"}, "nowhere.jsonl does not exist"),
        ({"text_field": "body"}, "no field 'body'; the fields present are: text"),
        ({"path": "numbers.jsonl"}, "record 1: field 'text' is int, wanted text"),
        ({"valid_fraction": 0.0}, "valid_fraction=0.0; wanted a number between 0 and 1"),
        ({"valid_fraction": 1.5}, "valid_fraction=1.5; wanted a number between 0 and 1"),
        ({"valid_fraction": 0.99}, "leaves one side without documents"),
        ({"path": "short.txt", "valid_fraction": 0.1}, "leaves one side without text"),
        ({"path": "blank_end.jsonl"}, "the val split has no rows: nothing in the 1 documents from .*blank_end.jsonl"),
        ({"weights": (1.0, 2.0)}, "give a path or more, and each one weight"),
        ({"path": ("a.jsonl", "b.jsonl"), "weights": (1.0, -2.0)}, "give each source a positive weight"),
        ({"path": ()}, "give a path or more"),
        ({"length": 1}, "length=1 leaves nothing to predict"),
        ({"stride": 3}, "stride=3 is the distance of windows"),
        ({"packing": "windows", "stride": 31}, "stride=31 for length=31"),
        ({"packing": "whole"}, "wanted one of documents, windows"),
        ({"tokenizer": {"name": "bytes"}}, "did you mean byte"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", sentences(31))
    shutil.copy(tmp_path / "a.jsonl", tmp_path / "copy.jsonl")
    write(tmp_path / "b.jsonl", sentences(7, seed=1))
    write(tmp_path / "numbers.jsonl", [3, 5, 7])
    write(tmp_path / "blank_end.jsonl", ["some text", "more text", ""])
    (tmp_path / "short.txt").write_text("a")
    with pytest.raises(ValueError, match=message):
        load(**({"path": "a.jsonl"} | arguments))


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="cannot be written .*set GROUNDWORK_CACHE to another folder"):
        load(write(tmp_path / "a.jsonl", sentences(31)))


def test_alone_rows_are_documents_with_their_own_hashes(tmp_path):
    texts = sentences(20)
    data = load(write(tmp_path / "a.jsonl", texts), packing="alone", valid_fraction=0.2, length=13)
    assert not data.spec.packed and load(str(tmp_path / "a.jsonl")).spec.packed
    for name, own in (("train", texts[:16]), ("val", texts[16:])):
        part = data.splits[name]
        assert len(part.examples) == len(part.hashes) == len(own)
        assert list(part.hashes) == [hash_text(text) for text in own]
        assert part.examples[3]["segment_ids"].tolist() == [1] * 13  # longer texts are cut,
        assert part.num_bytes == 0  # so that there are no bits a byte
