"""Pairs with a row each: rows by hand, groups of equal texts, and what is refused."""

import json

import numpy as np
import pytest

from research.data.pairs import text_pairs
from research.data.tokenizers import from_json

ROWS = [("what is it", "a cat"), ("who is it", "a  Cat"), ("why", "because of the long rain today"), ("how", "so")]


def write(path, rows):
    path.write_text("".join(json.dumps({"text": first, "pair": second}) + "\n" for first, second in rows))
    return str(path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    place = tmp_path_factory.mktemp("pairs")
    train, valid = write(place / "train.jsonl", ROWS), write(place / "valid.jsonl", [("huh", "a dog")])
    return text_pairs(train, length=11, tokenizer={"name": "character"}, valid_path=valid)


def test_each_text_has_a_row_of_its_own(dataset):
    tokenizer = from_json(dataset.tokenizer)
    rows = dataset.splits["train"].examples.rows(np.array([0, 2]))
    spec = dataset.spec
    for name, texts in (("", ["what is it", "why"]), ("pair_", ["a cat", "because of the long rain today"])):
        for row, text in enumerate(texts):
            ids = [spec.bos_id, *tokenizer.encode(text, add_special_tokens=False).ids[:9], spec.eos_id]
            real = rows[f"{name}segment_ids"][row] > 0
            assert rows[f"{name}tokens"][row][real].tolist() == ids
            assert rows[f"{name}positions"][row].tolist() == [*range(len(ids)), *[0] * (11 - len(ids))]
    assert dataset.facts["train"]["cut_texts"] == 2 and dataset.facts["train"]["rows"] == 4


def test_equal_second_texts_are_of_one_group(dataset):
    groups = dataset.splits["train"].examples.rows(np.arange(4))["group"]
    assert groups[0] == groups[1] and len(set(groups.tolist())) == 3
    assert dataset.facts["train"]["distinct_seconds"] == 3


def test_negatives_have_rows_and_groups_of_the_same_numbers(tmp_path):
    negatives = ["a dog", "", "a cat", "because of the long rain today"]
    rows = [{"text": a, "pair": b, "wrong": c} for (a, b), c in zip(ROWS, negatives, strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "valid.jsonl").write_text('{"text": "huh", "pair": "a dog", "wrong": "so"}\n')
    keys = dict(length=11, tokenizer={"name": "character"}, valid_path=str(tmp_path / "valid.jsonl"))
    dataset = text_pairs(str(tmp_path / "rows.jsonl"), negative_field="wrong", **keys)
    found, tokenizer = dataset.splits["train"].examples.rows(np.arange(4)), from_json(dataset.tokenizer)
    assert dataset.facts["train"]["negatives"] == 3
    group, negative = found["group"].tolist(), found["negative_group"].tolist()
    assert negative[1] == -1 and negative[2] == group[0] == group[1] and negative[3] == group[2]
    assert negative[0] not in [*group, *negative[1:]]
    real = found["negative_segment_ids"][2] > 0
    ids = tokenizer.encode("a cat", add_special_tokens=False).ids
    assert found["negative_tokens"][2][real].tolist() == [dataset.spec.bos_id, *ids, dataset.spec.eos_id]


def test_labels_are_counted_in_pairs(tmp_path):
    path, valid = write(tmp_path / "train.jsonl", ROWS), write(tmp_path / "valid.jsonl", [("huh", "a dog")])
    keys = dict(length=11, tokenizer={"name": "character"}, valid_path=valid)
    chosen = [text_pairs(path, num_labels=2, labels_seed=seed, **keys).splits["train"].texts for seed in range(4)]
    assert all(len(texts) == 2 for texts in chosen) and len({tuple(texts) for texts in chosen}) > 1


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([*ROWS, ("x", " ")], {}, "record 5: field 'pair' is empty; a pair has two texts"),
        ([("x", 3)], {}, "record 1: field 'pair' is int, wanted text"),
        (ROWS, {"length": 2}, "length=2 leaves no room"),
        (ROWS, {"pair_field": "passage"}, "passage"),
        (ROWS, {"negative_field": "wrong"}, "no field 'wrong'"),
        (ROWS, {"negative_field": "pair"}, "record 1: the negative of 'pair' is the second text itself"),
    ],
)
def test_bad_pairs_are_refused(tmp_path, rows, changes, message):
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        text_pairs(path, **(dict(length=11, tokenizer={"name": "character"}, valid_fraction=0.5) | changes))
