"""Folds: every record is tested once, by strata; and a second test set that is checked like the first."""

import json
from collections import Counter

import pytest

from research.batch import Dataset
from research.build import build
from research.data import DATA
from research.data.sources import open_records
from research.data.splits import deal, hash_text, random_cut, repeats

KINDS = ("text_classification", "tagging")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "cache"))


def write(path, rows=range(43), **changes):
    with path.open("w") as file:
        for n in rows:
            label = "c" if n % 7 == 0 else "ab"[n % 2]
            record = {"text": f"text number {n}", "label": label, "tokens": ["a", f"{n}"], "tags": ["X", "Y"]}
            record |= {"source": f"s{n % 3}", "size": n, "parts": [n]} | changes
            file.write(json.dumps(record) + "\n")
    return str(path)


def load(name, path, **arguments) -> Dataset:
    block = {"name": name, "path": path, "length": 23, "tokenizer": {"name": "byte"}, "valid_fraction": 0.2}
    return build(block | arguments, DATA, kind="data")


def test_the_only_record_of_a_class_is_trained_on():
    """In a test fold or among the validation rows it would be a label that training never sees."""
    strata = ["a", "b"] * 20 + ["rare", "rarer"]
    for fold in range(4):
        train, test = deal(strata, 4, fold, 0, "a.jsonl")
        assert {40, 41} <= set(train) and sorted(train + test) == list(range(42))
    for seed in range(30):
        train, valid = random_cut(42, 0.3, seed, "a.jsonl", strata=strata)
        assert {40, 41} <= set(train) and sorted(train + valid) == list(range(42))
        plain = random_cut(42, 0.3, seed, "a.jsonl")[1]
        assert valid == [index for index in plain if index < 40]  # else the choice is the same
    for strata, count in ((["a", "b", "c"], 0), (["a", "a", "b", "c", "d"], 2)):
        with pytest.raises(ValueError, match=f"a.jsonl has {count} records, without those whose label no other has"):
            deal(strata, 5, 0, 0, "a.jsonl")
    with pytest.raises(ValueError, match="leaves one side without rows"):
        random_cut(4, 0.5, 0, "a.jsonl", strata=["a", "b", "c", "d"])


@pytest.mark.parametrize("folds", [2, 3, 5, 43])
def test_folds_take_every_record_once_and_of_each_stratum_the_same_number(folds):
    strata = ["a"] * 23 + ["b"] * 13 + ["c"] * 7
    dealt = [deal(strata, folds, fold, 5, "a.jsonl") for fold in range(folds)]
    assert sorted(index for _, test in dealt for index in test) == list(range(43))
    for train, test in dealt:
        assert sorted([*train, *test]) == list(range(43)) and train == sorted(train)
    for name in "abc":
        counts = [Counter(strata[index] for index in test)[name] for _, test in dealt]
        assert max(counts) - min(counts) <= 1
    sizes = [len(test) for _, test in dealt]
    assert max(sizes) - min(sizes) <= 1 and sizes[0] == max(sizes)
    assert deal(strata, folds, 0, 5, "")[1] == dealt[0][1] != deal(strata, folds, 0, 6, "")[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_test_splits_of_the_folds_are_the_records(tmp_path, kind):
    path = write(tmp_path / "a.jsonl")
    texts = []
    for fold in range(4):
        data = load(kind, path, folds=4, fold=fold)
        assert list(data.splits) == ["train", "val", "test"]
        parts = [set(split.texts) for split in data.splits.values()]
        assert sum(map(len, parts)) == 43 == len(set.union(*parts))
        assert len(parts[1]) == round(0.2 * (43 - len(parts[2])))
        texts += data.splits["test"].texts
    assert len(texts) == 43 == len(set(texts))


def test_folds_of_labels_are_stratified_and_go_with_a_validation_path(tmp_path):
    valid = write(tmp_path / "b.jsonl", range(100, 110))
    path = write(tmp_path / "a.jsonl")
    found = [load("text_classification", path, valid_path=valid, folds=3, fold=fold) for fold in range(3)]
    counts = [data.facts["test"]["labels"] for data in found]
    for label in "abc":
        assert max(count[label] for count in counts) - min(count[label] for count in counts) <= 1
    assert len({data.facts["fingerprint"] for data in found}) == 3
    assert [len(data.splits["val"].texts) for data in found] == [10] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 1}, r"folds=1: .*a.jsonl has 43 records; use a number from 2 to that"),
        ({"folds": 44}, r"folds=44: .*a.jsonl has 43 records"),
        ({"folds": 3, "fold": 3}, r"fold=3: folds=3 are counted from 0 to 2"),
        ({"fold": 1}, r"folds=0: .* use a number from 2"),
        ({"folds": 3, "test_path": "b.jsonl"}, r"folds=3 cuts a test split .* leave out test_path or folds"),
        ({"shift_path": "a.jsonl"}, r"a.jsonl is given for shift and is in the training data"),
        ({"shift_path": "unseen.jsonl"}, r"'Q' of the shift split is never seen in training"),
        ({"slice_fields": ("colour",)}, r"line 1: no field 'colour'; the fields present are: label"),
        ({"slice_fields": ("label",)}, r"slice_fields: scores by label and by length are always there; leave 'label'"),
        ({"slice_fields": ("parts",)}, r"record 1: field 'parts' is list, wanted text, a number or a truth value"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(tmp_path, monkeypatch, kind, arguments, message):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "a.jsonl")
    write(tmp_path / "b.jsonl", range(50, 60))
    write(tmp_path / "unseen.jsonl", range(3), label="Q", tags=["Q", "Q"])
    with pytest.raises(ValueError, match=message):
        load(kind, path, **arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_test_set_and_the_fields_of_records_come_along(tmp_path, kind):
    path = write(tmp_path / "a.jsonl")
    shift = write(tmp_path / "c.jsonl", range(60, 71))
    data = load(kind, path, shift_path=shift, slice_fields=("source", "size"))
    assert list(data.splits) == ["train", "val", "shift"]
    assert len(data.splits["shift"].examples) == 11 and data.facts["shared_rows"]["train-shift"] == 0
    for split in data.splits.values():
        numbers = [int(text.split()[-1]) for text in split.texts]
        assert split.fields["size"] == numbers and split.fields["source"] == [f"s{n % 3}" for n in numbers]
    chosen = load(kind, path, num_labels=5, slice_fields=("size",)).splits["train"]
    assert chosen.fields["size"] == [int(text.split()[-1]) for text in chosen.texts]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "rows", "texts", "to_the_letter"),
    [("trec", 11, 11, 10), ("ag_news_10k", 9, 8, 8), ("imdb", 123, 123, 123)],
)
def test_rows_shared_by_public_data_sets_are_found(real_data, name, rows, texts, to_the_letter):
    """TREC's test split has ten training questions to the letter, and one that differs in case alone."""
    found = {}
    for split in ("train", "test"):
        records = open_records(str(real_data / name / f"{split}.jsonl.zst"), fields=("text",))
        found[split] = [record["text"] for record in records]
    hashes = {split: [hash_text(text) for text in given] for split, given in found.items()}
    assert repeats(hashes)["shared_rows"] == {"train-test": rows}
    assert len(set(hashes["train"]) & set(hashes["test"])) == texts
    assert len(set(found["train"]) & set(found["test"])) == to_the_letter
