"""Labelled texts as rows: special tokens, truncation, classes, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from research.build import build
from research.data import DATA
from research.data.labelled import encode_rows


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "cache"))


def records(count, *, first=0):
    return [
        {"text": f"text number {n}", "pair": "p" * (n % 7), "label": ("b", "c", "a")[n % 3]}
        for n in range(first, first + count)
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(path, **arguments):
    block = {"name": "text_classification", "path": path, "length": 23, "tokenizer": {"name": "byte"}} | arguments
    return build(block, DATA, kind="data")


def spoken(data, split, index):
    """A row's tokens as text, special tokens shown."""
    row = data.splits[split].examples[index]
    return Tokenizer.from_str(data.tokenizer).decode(row["tokens"][row["segment_ids"] > 0], skip_special_tokens=False)


def test_a_row_is_bos_text_eos(tmp_path):
    data = load(write(tmp_path / "a.jsonl", records(31)))
    split = data.splits["train"]
    assert spoken(data, "train", 0) == f"<bos>{split.texts[0]}<eos>"
    row = split.examples[0]
    length = len(split.texts[0]) + 2
    assert row["segment_ids"].tolist() == [1] * length + [0] * (23 - length)
    assert row["positions"].tolist() == [*range(length)] + [0] * (23 - length)
    assert not row["tokens"][length:].any()
    assert row["label"] == split.labels[0]
    assert row["label"].dtype == row["tokens"].dtype == np.int32


def test_a_batch_of_rows_is_those_rows_stacked(tmp_path):
    source = load(write(tmp_path / "a.jsonl", records(31))).splits["train"].examples
    indices = np.array([5, 0, len(source) - 1, 5])
    batch = source.rows(indices)
    for row, index in enumerate(indices):
        for key, values in source[int(index)].items():
            np.testing.assert_array_equal(batch[key][row], values)


def test_long_texts_are_cut_before_the_last_token_and_counted(tmp_path):
    rows = [{"text": "x" * size, "label": size % 2} for size in (1, 20, 21, 22, 50)]
    data = load(write(tmp_path / "a.jsonl", rows), valid_path=write(tmp_path / "b.jsonl", rows[:2]))
    assert [spoken(data, "train", index).count("x") for index in range(5)] == [1, 20, 21, 21, 21]
    assert spoken(data, "train", 4).endswith("<eos>")
    assert data.facts["train"]["cut_rows"] == 2


@pytest.mark.parametrize(
    ("first", "second", "kept"), [(5, 3, (5, 3)), (50, 3, (17, 3)), (3, 50, (3, 17)), (50, 50, (10, 10))]
)
def test_of_a_pair_the_longer_text_is_cut(tmp_path, first, second, kept):
    tokenizer = Tokenizer.from_str(load(write(tmp_path / "a.jsonl", records(31))).tokenizer)
    tokens, lengths, borders, _ = encode_rows([("x" * first, "y" * second)], tokenizer, length=23)
    text = tokenizer.decode(tokens[0, : lengths[0]], skip_special_tokens=False)
    assert text == "<bos>" + "x" * kept[0] + "<eos>" + "y" * kept[1] + "<eos>"
    assert borders[0] == kept[0] + 2


def test_a_pair_is_one_segment_and_one_text_for_the_floors(tmp_path):
    data = load(write(tmp_path / "a.jsonl", records(31)), pair_field="pair", length=37)
    split = data.splits["train"]
    first, second = split.texts[0].split("\n")
    assert spoken(data, "train", 0) == f"<bos>{first}<eos>{second}<eos>"
    row = split.examples[0]
    size, end = len(first) + 2, len(first) + len(second) + 3
    assert row["token_types"].tolist() == [0] * size + [1] * (end - size) + [0] * (37 - end)


def test_a_special_token_written_in_a_text_is_that_token(tmp_path):
    data = load(write(tmp_path / "a.jsonl", [{"text": "a <mask> b", "label": n % 2} for n in range(11)]))
    assert (data.splits["train"].examples[0]["tokens"] == data.spec.mask_id).sum() == 1


def test_classes_are_the_sorted_training_labels(tmp_path):
    data = load(write(tmp_path / "a.jsonl", records(31)))
    assert data.spec.label_names == ("a", "b", "c")
    assert data.spec.num_classes == 3
    numbers = [{"text": f"{n}", "label": (10, 9, -1)[n % 3]} for n in range(30)]
    path = write(tmp_path / "b.jsonl", numbers)
    assert load(path).spec.label_names == ("-1", "9", "10")
    named = load(path, label_names=("low", "nine", "ten"))
    assert named.spec.label_names == ("low", "nine", "ten")
    assert named.splits["train"].labels == load(path).splits["train"].labels


def test_a_budget_of_labels_is_stratified_and_seeded(tmp_path):
    labels = ["often"] * 70 + ["some"] * 25 + ["rare"] * 5
    rows = [{"text": f"{number} {label}", "label": label} for number, label in enumerate(labels)]
    train, other = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", rows[::10])
    for number, wanted in ((20, {"often": 14, "rare": 1, "some": 5}), (3, {"often": 1, "rare": 1, "some": 1})):
        data = load(train, valid_path=other, num_labels=number)
        assert data.facts["train"]["labels"] == wanted
    first, again, third = (load(train, valid_path=other, num_labels=20, labels_seed=seed) for seed in (0, 0, 1))
    assert first.splits["train"].texts == again.splits["train"].texts != third.splits["train"].texts
    assert len(load(train, valid_path=other, num_labels=100).splits["train"].texts) == 100
    for number in (2, 101):
        with pytest.raises(ValueError, match=f"num_labels={number}: .* has 100 training rows of 3 classes"):
            load(train, valid_path=other, num_labels=number)


def test_validation_rows_are_a_seeded_choice(tmp_path):
    path = write(tmp_path / "a.jsonl", records(61))
    first, again, other = (load(path, valid_fraction=0.2, seed=seed) for seed in (0, 0, 1))
    assert len(first.splits["val"].texts) == 12
    assert first.splits["val"].texts == again.splits["val"].texts != other.splits["val"].texts
    together = [*first.splits["train"].texts, *first.splits["val"].texts]
    assert sorted(together) == sorted(row["text"] for row in records(61))
    assert first.facts["fingerprint"] == again.facts["fingerprint"] != other.facts["fingerprint"]
    assert "test" not in first.splits


def test_shared_rows_and_labels_are_counted(tmp_path):
    data = load(
        write(tmp_path / "a.jsonl", [*records(30), records(1)[0]]),
        valid_path=write(tmp_path / "b.jsonl", records(5, first=27)),
        test_path=write(tmp_path / "c.jsonl", records(5, first=31)),
    )
    assert data.facts["shared_rows"] == {"train-val": 3, "train-test": 0, "val-test": 1}
    assert data.facts["duplicates_in_train"] == 1
    assert data.facts["train"]["labels"] == {"a": 10, "b": 11, "c": 10}
    json.dumps(data.facts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_path": "a.jsonl"}, "a.jsonl is given for test and is in the training data"),
        ({"valid_path": "copy.jsonl"}, "copy.jsonl is given for val and is in the training data"),
        (
            {"test_path": "unseen.jsonl"},
            "label 'd' of the test split is never seen in training, which has 'a', 'b', 'c'",
        ),
        ({"label_field": "class"}, "no field 'class'; the fields present are: label, pair, text"),
        ({"pair_field": "second"}, "no field 'second'"),
        ({"path": "floats.jsonl"}, "record 1: label=0.5 is no class; wanted a whole number or a name"),
        ({"path": "bools.jsonl"}, "record 1: label=True is no class"),
        ({"path": "mixed.jsonl"}, "record 2: label='1' is str, the labels before it int"),
        ({"path": "single.jsonl"}, "every training label is 'b'; there is nothing to tell apart"),
        ({"text_field": "label", "path": "integers.jsonl"}, "record 1: field 'label' is int, wanted text"),
        ({"valid_fraction": 0.001}, "valid_fraction=0.001 of the 31 records"),
        ({"valid_fraction": 1.0}, "valid_fraction=1.0; wanted a number between 0 and 1"),
        (
            {"label_names": ("x", "y")},
            "label_names=.*wanted a name of its own for each of the labels \\['a', 'b', 'c'\\]",
        ),
        ({"length": 2}, "length=2 leaves no room for text between special tokens; use 3 or more"),
        ({"length": 4, "pair_field": "pair"}, "use 5 or more"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", records(31))
    shutil.copy(tmp_path / "a.jsonl", tmp_path / "copy.jsonl")
    write(tmp_path / "unseen.jsonl", [{"text": "x", "pair": "y", "label": "d"}])
    write(tmp_path / "single.jsonl", [{"text": f"{n}", "label": "b"} for n in range(11)])
    kinds = {"floats": (0.5, 1.0), "bools": (True, False), "mixed": (1, "1"), "integers": (1, 2)}
    for name, labels in kinds.items():
        write(tmp_path / f"{name}.jsonl", [{"text": "x", "label": label} for label in labels])
    with pytest.raises(ValueError, match=message):
        load(**({"path": "a.jsonl"} | arguments))


def test_numbers_are_classes_in_their_order_as_text_too(tmp_path):
    rows = "".join(f"text {n},{n % 12}\n" for n in range(60))
    (tmp_path / "a.csv").write_text("text,label\n" + rows)
    names = load(str(tmp_path / "a.csv")).spec.label_names
    assert names == tuple(str(n) for n in range(12))


def test_pairs_are_parted_as_a_given_file_parts_them():
    """RoBERTa's file writes two </s> between, BERT's one [SEP]; rows are what the file itself would encode."""
    for begin, end, processor in (("<s>", "</s>", processors.RobertaProcessing), ("[CLS]", "[SEP]", None)):
        made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, begin: 3, end: 4, "<unk>": 5}, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        made.add_special_tokens([begin, end])
        made.post_processor = (processor or processors.BertProcessing)((end, 4), (begin, 3))
        tokens, lengths, borders, num_cut = encode_rows([("a b", "c"), ("c", "a b c")], made, length=9)
        for row, pair in enumerate((("a b", "c"), ("c", "a b c"))):
            wanted = made.encode(*pair)
            assert tokens[row, : lengths[row]].tolist() == wanted.ids and num_cut == 0
            assert borders[row] == wanted.sequence_ids.index(1)
        assert encode_rows([("a b",)], made, length=9)[0][0].tolist() == [3, 0, 1, 4, 0, 0, 0, 0, 0]
        tokens, lengths, *_, num_cut = encode_rows([("a b", "a b c")], made, length=7)
        assert lengths[0] == 7 and num_cut == 1 and tokens[0, -1] == 4
