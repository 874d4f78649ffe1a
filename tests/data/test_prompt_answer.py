"""Prompts with their answers: rows worked out by hand, what is cut, and what is refused."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from research.build import build
from research.data import DATA

ROWS = [
    {"prompt": "ab", "answer": "xyz"},
    {"prompt": "a long prompt", "answer": "no"},
    {"prompt": "", "answer": "an answer too long"},
    {"prompt": "<mask>", "answer": "<eos>"},
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path / "cache"))


def load(folder, rows=ROWS, **keys):
    for name, part in (("train", rows), ("val", ROWS[:1])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    paths = {"path": str(folder / "train.jsonl"), "valid_path": str(folder / "val.jsonl")}
    block = {"name": "prompt_answer", "length": 13, "tokenizer": {"name": "byte"}} | paths | keys
    return build(block, DATA, kind="data")


def spoken(data, index):
    """A row's prompt and answer as text, special tokens shown."""
    row = data.splits["train"].examples[index]
    real, mask = row["segment_ids"] > 0, row["loss_mask"]
    assert mask.dtype == bool and not (mask & ~real).any() and (np.diff(mask[real].astype(int)) >= 0).all()
    decode = Tokenizer.from_str(data.tokenizer).decode
    return tuple(decode(row["tokens"][where].tolist(), skip_special_tokens=False) for where in (real & ~mask, mask))


def test_a_row_is_prompt_separator_answer_and_its_end(tmp_path):
    data = load(tmp_path)
    assert spoken(data, 0) == ("<bos>ab\n", "xyz<eos>")
    row = data.splits["train"].examples[0]
    assert row["positions"].tolist() == [*range(8), 0, 0, 0, 0, 0]
    assert row["segment_ids"].tolist() == [1] * 8 + [0] * 5
    assert data.splits["train"].texts[0] == "ab" and len(data.splits["train"].answers[0]) == 4
    assert spoken(load(tmp_path, separator=" -> "), 0) == ("<bos>ab -> ", "xyz<eos>")
    assert spoken(load(tmp_path, separator=""), 0) == ("<bos>ab", "xyz<eos>")


def test_a_prompt_is_cut_at_its_beginning_and_an_answer_only_where_it_does_not_fit_alone(tmp_path):
    data = load(tmp_path)
    assert spoken(data, 1) == ("<bos>g prompt\n", "no<eos>")
    assert spoken(data, 2) == ("<bos>\n", "an answer t")  # the separator stays; what is cut has no end
    assert data.facts["train"]["cut_prompts"] == 2 and data.facts["train"]["cut_answers"] == 1
    assert len(data.splits["train"].answers[2]) == len("an answer too long") + 1


def test_special_tokens_written_in_texts_are_text(tmp_path):
    data = load(tmp_path, length=19)
    assert spoken(data, 3) == ("<bos><mask>\n", "<eos><eos>")
    row = data.splits["train"].examples[3]
    assert len(row["tokens"][row["loss_mask"]]) == 6 and (row["tokens"] == data.spec.eos_id).sum() == 1


def test_rows_read_together_are_those_read_alone(tmp_path):
    source = load(tmp_path).splits["train"].examples
    batch = source.rows(np.array([3, 0]))
    for row, index in enumerate((3, 0)):
        for key, values in source[index].items():
            np.testing.assert_array_equal(batch[key][row], values)
    assert len(load(tmp_path, num_labels=3).splits["train"].texts) == 3


def test_a_prompt_seen_in_training_is_counted(tmp_path):
    assert load(tmp_path).facts["shared_rows"] == {"train-val": 1}


@pytest.mark.parametrize(
    ("change", "keys", "message"),
    [
        ({"answer": None}, {}, "line 2: no field 'answer'"),
        ({"answer": ""}, {}, "record 2: answer='' is no answer"),
        ({"answer": " \n"}, {}, "record 2: answer=' .n' is no answer"),
        ({"answer": 4}, {}, "record 2: answer=4 is no answer"),
        ({"prompt": 4}, {}, "record 2: field 'prompt' is int, wanted text"),
        ({}, {"length": 3}, "length=3 leaves no room for an answer; use 4 or more"),
        ({"answer": "\u200b"}, {"tokenizer": {"name": "wordpiece", "vocab_size": 90}}, "no token of the answer"),
        ({}, {"tokenizer": {"name": "wordpiece", "vocab_size": 90}, "separator": "\n"}, "separator='.n' is no token"),
    ],
)
def test_prompts_and_answers_that_cannot_be_are_named(tmp_path, change, keys, message):
    keys = {"separator": " : "} | keys if "tokenizer" in keys else keys
    with pytest.raises(ValueError, match=message):
        load(tmp_path, [ROWS[0], ROWS[1] | change, *ROWS[2:]], **keys)
