"""Several labels a text, and a number: rows worked out by hand, and what is refused."""

import json

import numpy as np
import pytest

from research.build import build
from research.data import DATA

TRAIN = [
    {"text": "one", "labels": ["red", "blue"], "value": 3},
    {"text": "two", "labels": [], "value": -1.5},
    {"text": "three", "labels": ["blue"], "value": "7.5"},
    {"text": "four", "labels": ["red"], "value": 0},
    {"text": "five", "labels": ["green"], "value": 2},
]
OTHER = [{"text": "six", "labels": ["green", "blue"], "value": 100}]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "cache"))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(folder, name, train=TRAIN, other=OTHER, **keys):
    paths = {"path": write(folder / "train.jsonl", train), "valid_path": write(folder / "val.jsonl", other)}
    if name == "text_regression":
        keys.setdefault("label_field", "value")
    block = {"name": name, "length": 17, "tokenizer": {"name": "byte"}} | paths | keys
    return build(block, DATA, kind="data")


def test_each_label_is_a_column_of_its_own(tmp_path):
    data = load(tmp_path, "text_multi_label")
    assert data.spec.label_names == ("blue", "green", "red") and data.spec.num_classes == 3
    assert data.spec.label_counts == (2, 1, 2) and data.spec.num_rows == 5
    wanted = [[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]
    rows = data.splits["train"].examples
    assert [rows[index]["labels"].tolist() for index in range(5)] == wanted == data.splits["train"].labels
    assert rows[0]["labels"].dtype == np.float32 and rows.rows(np.array([2, 0]))["labels"].shape == (2, 3)
    assert data.splits["val"].labels == [[1, 1, 0]]
    assert data.facts["train"]["labels"] == {"blue": 2, "green": 1, "red": 2}
    assert data.facts["train"]["without_labels"] == 1


def test_names_in_one_text_and_columns_are_the_same_labels(tmp_path):
    listed = load(tmp_path, "text_multi_label")
    for separator in ("|", ", "):
        rows = [[row | {"labels": separator.join(row["labels"])} for row in part] for part in (TRAIN, OTHER)]
        (tmp_path / "joined").mkdir(exist_ok=True)
        joined = load(tmp_path / "joined", "text_multi_label", *rows, label_separator=separator)
        assert joined.splits["train"].labels == listed.splits["train"].labels
        assert joined.spec.label_names == listed.spec.label_names
    names = ("red", "blue", "green")
    for number, (no, yes) in enumerate([(0, 1), (False, True), ("0", "1"), ("False", "true"), (0.0, 1.0)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows = [
            [{"text": row["text"]} | {name: yes if name in row["labels"] else no for name in names} for row in part]
            for part in (TRAIN, OTHER)
        ]
        columns = load(folder, "text_multi_label", *rows, label_fields=names)
        assert columns.spec.label_names == names  # in the order of the page
        order = [names.index(name) for name in listed.spec.label_names]
        for split in ("train", "val"):
            assert np.array(columns.splits[split].labels)[:, order].tolist() == listed.splits[split].labels


def test_columns_of_a_csv_file_are_read_and_pairs_too(tmp_path):
    (tmp_path / "a.csv").write_text("comment,reply,toxic\nhi,you,0\nbad,you,1\nso,so,0\n")
    keys = dict(path=str(tmp_path / "a.csv"), valid_path=write(tmp_path / "b.jsonl", [dict(comment="a", toxic=1)]))
    data = load(tmp_path, "text_multi_label", **keys, text_field="comment", label_fields=("toxic",))
    assert data.splits["train"].labels == [[0], [1], [0]] and data.spec.label_names == ("toxic",)
    keys["valid_path"] = write(tmp_path / "c.jsonl", [dict(comment="a", reply="b", toxic=1)])
    keys |= dict(text_field="comment", pair_field="reply", label_fields=("toxic",))
    row = load(tmp_path, "text_multi_label", **keys).splits["train"].examples[0]
    assert row["token_types"].sum() == 4 and row["labels"].tolist() == [0.0]


def test_a_number_of_rows_has_each_label_and_is_a_seeded_choice(tmp_path):
    rows = [{"text": f"row {n}", "labels": ["often"] * (n % 2) + ["rare"] * (n == 37)} for n in range(61)]
    found = [
        load(tmp_path, "text_multi_label", rows, [rows[0]], num_labels=5, labels_seed=seed).splits["train"]
        for seed in (0, 0, 1)
    ]
    assert all(len(split.texts) == 5 and (np.sum(split.labels, axis=0) > 0).all() for split in found)
    assert found[0].texts == found[1].texts != found[2].texts
    assert all("row 37" in split.texts for split in found)
    with pytest.raises(ValueError, match="num_labels=1: .* each of 2 classes once takes 1|num_labels=62"):
        load(tmp_path, "text_multi_label", rows, [rows[0]], num_labels=62)


def test_numbers_are_kept_in_their_own_units_with_the_mean_and_spread_of_training(tmp_path):
    data = load(tmp_path, "text_regression")
    values = [3.0, -1.5, 7.5, 0.0, 2.0]
    assert data.splits["train"].labels == values and data.splits["val"].labels == [100.0]
    assert data.spec.target_mean == pytest.approx(2.2) and data.spec.num_classes == 1
    assert data.spec.target_scale == pytest.approx(np.sqrt(np.mean((np.array(values) - 2.2) ** 2)))
    rows = data.splits["train"].examples.rows(np.array([2, 1]))
    assert rows["value"].tolist() == [7.5, -1.5] and rows["value"].dtype == np.float32
    assert data.facts["train"]["least"] == -1.5 and data.facts["train"]["most"] == 7.5
    few = load(tmp_path, "text_regression", num_labels=3)
    assert len(few.splits["train"].texts) == 3
    assert few.spec.target_mean == pytest.approx(np.mean(few.splits["train"].labels))


def changed(row, **keys):
    return [TRAIN[0], TRAIN[1] | keys, *TRAIN[2:]]


@pytest.mark.parametrize(
    ("train", "keys", "message"),
    [
        (changed(1, labels="red"), {}, "record 2: labels='red' is one text; .* label_separator"),
        (changed(1, labels=3), {}, "record 2: labels=3 is int, wanted a list of names"),
        (changed(1, labels=["red", True]), {}, "record 2: True in labels is no class"),
        (changed(1, labels=["red", ""]), {}, "record 2: '' in labels is no class"),
        (changed(1, labels=[4]), {}, "some labels are numbers, others names"),
        ([row | {"labels": []} for row in TRAIN], {}, "no training row has a label"),
        ([row | {"labels": ["blue", "green"]} for row in TRAIN], {}, "every one of the 5 training rows .* 'blue'"),
        ([row | {"a": 0} for row in TRAIN], {"label_fields": ("a",)}, "none of the 5 training rows has the label 'a'"),
        (changed(1, value=2), {"label_fields": ("value",)}, "record 1: value=3; wanted 0 or 1, or false or true"),
        (TRAIN, {"label_fields": ("value", "value")}, "names a column twice"),
        (TRAIN, {"label_fields": ("value",), "label_separator": ","}, "leave one of the two out"),
        (TRAIN[1:4], {}, "'green' of the val split is never seen in training; remove it from its 1 rows"),
        (TRAIN, {"num_labels": 2}, "num_labels=2: .* 5 training rows, and each of 3 classes once takes 3|takes 2"),
    ],
)
def test_labels_that_cannot_be_are_named(tmp_path, train, keys, message):
    other = [row | {"a": 0} for row in OTHER] if "label_fields" in keys else OTHER
    with pytest.raises(ValueError, match=message):
        load(tmp_path, "text_multi_label", train, other, **keys)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (changed(1, value="high"), "record 2: value='high' is no finite number"),
        (changed(1, value=""), "record 2: value='' is no finite number"),
        (changed(1, value=float("nan")), "record 2: value=nan is no finite number"),
        (changed(1, value=float("inf")), "record 2: value=inf is no finite number"),
        (changed(1, value=1e300), "record 2: value=1e[+]300 is no finite number"),
        (changed(1, value=True), "record 2: value=True is no finite number"),
        (changed(1, value=[1]), r"record 2: value=\[1\] is no finite number"),
        ([row | {"value": 4.0} for row in TRAIN], "value is 4 in every training row"),
        ([row | {"value": 1e6 + n} for n, row in enumerate(TRAIN)], "value is 1000002 in every .* row, or all but"),
    ],
)
def test_numbers_that_cannot_be_are_named(tmp_path, train, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, "text_regression", train)
