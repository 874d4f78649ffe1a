"""Questions and their contexts as rows: every answer is found where its characters are, in every window."""

import gzip
import itertools
import json

import numpy as np
import pytest
import zstandard
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from research.batch import Dataset
from research.data.question_answering import encode_questions, fit_windows, question_answering

CONTEXTS = {
    "Anna lives in old Reykjavík, far from Bern. Her brother Émile moved to Bern in 1987.": [
        ("Where does Anna live?", ["Reykjavík"]),
        ("Who moved?", ["Her brother Émile", "Émile", "Émile"]),
        ("Who sold the house?", []),
    ],
    "The naïve 日本 café opened at NOON; it closed at midnight, as cafés do.": [
        ("When did the café open?", ["NOON"]),
        ("What closed?", ["naïve 日本 café"]),
    ],
}


def squad(contexts=CONTEXTS, title="towns"):
    """The nested layout, with one article of each context."""
    data = []
    for index, (context, questions) in enumerate(contexts.items()):
        asked = [
            {
                "id": f"q{index}{order}",
                "question": text,
                "answers": [{"text": answer, "answer_start": context.index(answer)} for answer in answers],
            }
            for order, (text, answers) in enumerate(questions)
        ]
        data.append({"title": f"{title} {index}", "paragraphs": [{"context": context, "qas": asked}]})
    return {"version": "1", "data": data}


def write(path, value) -> str:
    """JSON, or JSON lines; packed as the name says."""
    text = "\n".join(map(json.dumps, value)) if ".jsonl" in path.name else json.dumps(value)
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)
    path.write_bytes(pack(text.encode()))
    return str(path)


def load(path, tokenizer="wordpiece", **keys) -> Dataset:
    block = {"name": tokenizer} | ({"vocab_size": 330} if tokenizer in ("bpe", "wordpiece") else {})
    return question_answering(
        path, **({"tokenizer": block, "length": 120, "max_question": 30, "stride": 11, "valid_fraction": 0.5} | keys)
    )


def both_splits(data: Dataset):
    for part in (data.splits["train"], data.splits["val"]):
        for row, window in enumerate(part.windows):
            yield part.questions[window.question], window, part.examples[row]


@pytest.mark.parametrize("tokenizer", ["byte", "character", "bpe", "wordpiece"])
@pytest.mark.parametrize("length", [120, 53])
def test_the_columns_of_the_answer_are_its_characters(tmp_path, tokenizer, length):
    data = load(write(tmp_path / "a.json", squad()), tokenizer, length=length)
    wanted = {text: set(answers[-1:]) for questions in CONTEXTS.values() for text, answers in questions}
    seen = set()
    for question, window, example in both_splits(data):
        if example["start"] == 0:
            assert example["end"] == 0
            continue
        first, last = example["start"] - window.border, example["end"] - window.border
        said = question.context[window.characters[first, 0] : window.characters[last, 1]]
        assert {said} == wanted[question.text]
        seen.add(question.text)
    lost = sum(data.facts[name]["lost_answers"] for name in ("train", "val"))
    assert len(seen) + lost == 4 and (lost == 0 or tokenizer in ("byte", "character"))
    assert all(data.facts[name]["inexact_answers"] == 0 for name in ("train", "val"))


def test_a_row_is_the_question_and_a_window_and_says_where_an_answer_may_be(tmp_path):
    data = load(write(tmp_path / "a.json", squad()), "byte")
    made = Tokenizer.from_str(data.tokenizer)
    for question, window, example in both_splits(data):
        real = int(example["segment_ids"].sum())
        shown = window.border
        assert shown == len(question.text.encode()) + 2
        assert made.decode(example["tokens"][1 : shown - 1].tolist()) == question.text
        assert example["tokens"][0] == 2 and example["tokens"][shown - 1] == example["tokens"][real - 1] == 3
        first, last = window.characters[0, 0], window.characters[-1, 1]
        context = made.decode(example["tokens"][shown : real - 1].tolist())
        assert context.strip() == question.context[first:last].strip()
        allowed = [0, *range(shown, real - 1)]
        np.testing.assert_array_equal(np.flatnonzero(example["answer_mask"]), allowed)
        np.testing.assert_array_equal(np.flatnonzero(example["token_types"]), range(shown, real))
        np.testing.assert_array_equal(example["positions"][:real], range(real))


@pytest.mark.parametrize(("length", "stride"), [(29, 7), (23, 0), (60, 31)])
def test_windows_overlap_by_the_stride_and_cover_the_context(tmp_path, length, stride):
    made = Tokenizer.from_str(load(write(tmp_path / "a.json", squad()), "character").tokenizer)
    context = next(iter(CONTEXTS))
    asked = [("Who moved to Bern?", context), ("Who?", "Anna"), ("Who?", context)]
    sizes = dict(length=length, max_question=12, stride=stride)
    rows = encode_questions(asked, made, **sizes)
    assert [window.question for window in rows.windows].count(1) == 1
    for index in (0, 2):
        mine = [row for row, window in enumerate(rows.windows) if window.question == index]
        room = length - len(rows.heads[index]) - 1
        spans = [rows.windows[row].characters for row in mine]
        assert all(len(part) == room for part in spans[:-1]) and stride < len(spans[-1]) <= room
        for first, second in itertools.pairwise(spans):
            np.testing.assert_array_equal(first[room - stride :], second[:stride])
        covered = sorted({tuple(place) for part in spans for place in part.tolist()})
        assert [first for first, _ in covered] == list(range(len(context)))
    room = length - len(rows.heads[0]) - 1
    for first in range(len(context) - 7):  # an answer is in every window that holds all of it, and in no other
        labelled = encode_questions(asked[:1], made, answers=[(first, first + 7)], **sizes)
        for window, columns in zip(labelled.windows, labelled.columns, strict=True):
            begin = window.characters[0, 0]
            whole = begin <= first and first + 7 <= begin + room
            at = window.border + first - begin
            assert tuple(columns) == ((at, at + 6) if whole else (0, 0))
        assert (labelled.columns[:, 0] > 0).any() or stride < 7


def test_an_answer_that_no_window_shows_whole_is_counted(tmp_path):
    text = "a" * 40 + "needle" + "b" * 40
    for stride, lost in ((6, 0), (0, 1)):
        record = {"context": text, "question": "Where?", "answers": ["needle"]}
        path = write(tmp_path / f"{stride}.jsonl", [record, record | {"context": "needle and thread"}])
        data = load(path, "character", length=21 + 4, max_question=1, stride=stride)
        assert sum(data.facts[name]["lost_answers"] for name in ("train", "val")) == lost  # a border is at 42


def test_an_answer_within_a_token_is_the_whole_token_and_counted(tmp_path):
    record = {"context": "the 1990s, the 1990s", "question": "when", "answers": [{"text": "1990", "answer_start": 4}]}
    other = {"context": "the 1990s, not the 1990s", "question": "when", "answers": ["1990s"]}
    data = load(write(tmp_path / "a.jsonl", [record, other] * 3), "wordpiece")
    assert sum(data.facts[name]["inexact_answers"] for name in ("train", "val")) == 3


def layouts(tmp_path):
    """The same questions in every layout that is read."""
    flat, lists = [], []
    for article in squad()["data"]:
        for paragraph in article["paragraphs"]:
            for entry in paragraph["qas"]:
                row = {"id": entry["id"], "title": article["title"], "context": paragraph["context"]}
                row |= {"question": entry["question"]}
                flat.append(row | {"answers": entry["answers"]})
                columns = {key: [answer[key] for answer in entry["answers"]] for key in ("text", "answer_start")}
                lists.append(row | {"answers": columns})
    import pyarrow as pa
    import pyarrow.parquet

    for name in ("a.json", "a.json.gz", "a.json.zst"):
        yield write(tmp_path / name, squad())
    yield write(tmp_path / "list.json", flat)
    yield write(tmp_path / "objects.jsonl", flat)
    yield write(tmp_path / "columns.jsonl", lists)
    texts = [row | {"answers": [answer["text"] for answer in row["answers"]]} for row in flat]
    yield write(tmp_path / "texts.jsonl", texts)
    import csv

    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, flat[0])
        writer.writeheader()
        writer.writerows(row | {"answers": json.dumps(row["answers"])} for row in flat)
    yield str(tmp_path / "a.csv")
    pyarrow.parquet.write_table(pa.Table.from_pylist(lists), tmp_path / "a.parquet")
    yield str(tmp_path / "a.parquet")


def test_every_layout_gives_the_same_questions_and_rows(tmp_path):
    found = []
    for path in layouts(tmp_path):
        data = load(path)
        rows = [example["tokens"].tolist() + [int(example["start"])] for *_, example in both_splits(data)]
        asked = [(name, part.questions) for name, part in data.splits.items()]
        found.append((asked, rows))
    assert len(found) == 9
    assert all(each == found[0] for each in found[1:])
    answers = {question.text: question.answers for _, questions in found[0][0] for question in questions}
    assert answers["Who moved?"] == ("Her brother Émile", "Émile", "Émile") and answers["Who sold the house?"] == ()


def test_a_csv_cell_may_be_one_plain_answer(tmp_path):
    (tmp_path / "a.csv").write_text("question,context,answers\nWho?,Anna sings,Anna\nWhat?,Bob sings,\n")
    data = load(str(tmp_path / "a.csv"))
    assert sorted(question.answers for part in data.splits.values() for question in part.questions) == [(), ("Anna",)]


def test_several_files_are_one_training_split(tmp_path):
    first, second = (
        write(tmp_path / "a.json", squad()),
        write(tmp_path / "b.jsonl", [FLAT, FLAT | {"context": "so Anna"}]),
    )
    data = load((first, second), valid_fraction=0.25)
    assert sum(len(part.questions) for part in data.splits.values()) == 7


def many(groups, *, per_group, titled):
    for group in range(groups):
        for index in range(per_group):
            text = f"context {group} says word{group}" + (f" line {index}" if titled else "")
            row = {"question": f"what {index}", "context": text, "answers": [f"word{group}"]}
            yield row | ({"title": f"title {group}"} if titled else {})


@pytest.mark.parametrize("titled", [True, False])
def test_validation_takes_whole_articles_or_contexts(tmp_path, titled):
    path = write(tmp_path / "a.jsonl", list(many(20, per_group=3, titled=titled)))
    data, again, other = (load(path, valid_fraction=0.2, seed=seed) for seed in (0, 0, 1))
    groups = {name: {question.context.split()[1] for question in part.questions} for name, part in data.splits.items()}
    assert len(groups["val"]) == 4 and not groups["val"] & groups["train"]
    assert len(data.splits["val"].questions) == 12
    assert data.splits["val"].questions == again.splits["val"].questions != other.splits["val"].questions
    assert data.facts["fingerprint"] == again.facts["fingerprint"] != other.facts["fingerprint"]


def test_a_file_of_one_article_is_cut_by_its_contexts_whatever_stands_beside_it(tmp_path):
    nested = squad({f"context {i} says word{i}": [("what", [f"word{i}"])] for i in range(8)})
    alone = {"data": [{"title": "all", "paragraphs": [part["paragraphs"][0] for part in nested["data"]]}]}
    write(tmp_path / "a.json", alone)
    write(tmp_path / "b.json", squad())
    data = load(str(tmp_path / "*.json"), valid_fraction=0.5)
    held_out = [question.context.startswith("context") for question in data.splits["val"].questions]
    assert 3 <= sum(held_out) <= 5


def test_a_number_of_questions_is_a_seeded_choice(tmp_path):
    path = write(tmp_path / "a.jsonl", list(many(20, per_group=3, titled=False)))
    first, again, third = (load(path, num_labels=7, labels_seed=seed) for seed in (0, 0, 1))
    assert len(first.splits["train"].questions) == len(first.splits["train"].hashes) == 7
    assert first.splits["train"].questions == again.splits["train"].questions != third.splits["train"].questions
    assert first.splits["val"].questions == third.splits["val"].questions


def test_empty_windows_are_thinned_in_training_and_nowhere_else(tmp_path):
    context = "the answer is here " + "and nothing more of it " * 9
    rows = [{"question": f"where {i}", "context": f"{i} {context}", "answers": ["here"]} for i in range(12)]
    rows += [{"question": f"who {i}", "context": f"{i} {context}", "answers": []} for i in range(4)]
    path = write(tmp_path / "a.jsonl", rows)
    whole, some, none = (load(path, "character", length=60, empty_windows=share) for share in (1.0, 0.5, 0.0))
    sizes = [len(data.splits["train"].examples) for data in (whole, some, none)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert len({len(data.splits["val"].examples) for data in (whole, some, none)}) == 1
    for example, window in zip(none.splits["train"].examples, none.splits["train"].windows, strict=True):
        answers = none.splits["train"].questions[window.question].answers
        assert (example["start"] > 0) == bool(answers)
    silent = []
    for part in (data.splits["train"] for data in (whole, none)):
        silent.append(sum(not part.questions[window.question].answers for window in part.windows))
    assert silent[0] == silent[1] > 0  # of a question without an answer every window stays


def test_rows_read_together_are_those_read_alone(tmp_path):
    source = load(write(tmp_path / "a.json", squad()), "byte", length=53).splits["train"].examples
    batch = source.rows(np.array([2, 0]))
    for row, index in enumerate((2, 0)):
        for key, values in source[index].items():
            np.testing.assert_array_equal(batch[key][row], values)


FLAT = {"question": "who", "context": "Anna sings", "answers": ["Anna"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": [{"text": "Bob", "answer_start": 0}]},
         r"record 2: the answer 'Bob' should begin at character 0 of its context, where 'Ann' stands"),
        ({"answers": [{"text": "Anna", "answer_start": -10}]}, r"should begin at character -10"),
        ({"answers": ["Bob"]}, r"record 2: the answer 'Bob' does not stand in its context"),
        ({"answers": [3]}, r"record 2: the answer 3 is neither a text nor"),
        ({"answers": [{"text": "Anna", "answer_start": "0"}]}, r"is neither a text nor"),
        ({"answers": {"text": ["Anna"], "answer_start": []}}, r"record 2: the answers' text and answer_start are no"),
        ({"answers": "[Anna"}, r"record 2: the answers begin as JSON does and are none"),
        ({"answers": 3}, r"record 2: answers is int, wanted a list"),
        ({"answers": None}, r"record 2: no field 'answers'; the fields present are: context, question"),
        ({"question": None}, r"record 2: no field 'question'; the fields present are: answers, context"),
        ({"question": " "}, r"record 2: 'question' is blank, wanted text"),
        ({"context": ""}, r"record 2: 'context' is blank, wanted text"),
        ({"context": 7}, r"record 2: 'context' is 7, wanted text"),
        ({"question": "\ud800"}, r"record 2, 'question': a lone surrogate"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "a.jsonl", [FLAT, FLAT | change]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": [{"text": "Bern", "answer_start": 3}]}, r"article 1, paragraph 1, question q00: .*'a li' stands"),
        ({"is_impossible": True}, r"question q00: is_impossible is true and there are answers"),
        ({"question": ""}, r"question q00: 'question' is blank"),
        ({"answers": None}, r"question q00: no field 'answers'"),
    ],
)
def test_a_question_of_an_article_that_cannot_be_is_named(tmp_path, change, message):
    nested = squad()
    nested["data"][0]["paragraphs"][0]["qas"][0] |= change
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "a.json", nested))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ('{"question": "a"}\n{"question": "b"}\n', r"line 2: not JSON .*is named .jsonl"),
        ('{"question": "a"}', r"wanted a list of JSON objects, alone or under the key 'data'"),
        ('{"data": []}', r"is empty"),
        ('{"data": [{"paragraphs": [3]}]}', r"article 1: 'paragraphs' is no list of JSON objects"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', r"paragraph 1: no field 'context'"),
        ('{"data": [{"paragraphs": []}]}', r"holds no question"),
    ],
)
def test_a_json_file_of_another_kind_is_named(tmp_path, contents, message):
    (tmp_path / "a.json").write_text(contents)
    with pytest.raises(ValueError, match=message):
        load(str(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"length": 33}, r"length=33 leaves no room for a context beside max_question=30 and 3 special tokens; use 34"),
        ({"length": 43}, r"stride=11: windows show 10 tokens of the context .* and can have 0 to 9 in common"),
        ({"stride": -1}, r"stride=-1"),
        ({"max_question": 0}, r"max_question=0: wanted 1 or more"),
        ({"max_answer": 0}, r"max_answer=0: wanted 1 or more"),
        ({"empty_windows": 1.5}, r"empty_windows=1.5: wanted a share from 0 to 1"),
        ({"num_labels": 99}, r"num_labels=99"),
        ({"valid_fraction": 0.01}, r"of the 2 articles or contexts of .* leaves one side without rows"),
    ],
)
def test_sizes_that_cannot_be_are_named(tmp_path, keys, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "a.json", squad()), **keys)


def test_sizes_shrink_where_rows_have_no_room_for_them_and_only_there(tmp_path):
    for length, max_question, stride in ((120, 30, 11), (34, 30, 0), (128, 64, 32)):
        sizes = dict(max_question=max_question, stride=stride)
        assert fit_windows(length, **sizes) == dict(length=length, **sizes)
    path = write(tmp_path / "a.json", squad())
    for length in (512, 128, 99, 70, 40, 20, 9):
        sizes = fit_windows(length, max_question=64, stride=32)
        assert sizes["length"] == length and 1 <= sizes["max_question"] <= 64
        assert length < 99 or sizes["max_question"] == 64
        load(path, **sizes)  # raises where they have no room


def test_a_tokenizer_without_special_tokens_is_refused():
    bare = Tokenizer.from_str(
        '{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,'
        '"post_processor":null,"decoder":null,"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}'
    )
    with pytest.raises(ValueError, match="the tokenizer lacks one of the two tokens"):
        encode_questions([("a", "a")], bare, length=20, max_question=5, stride=2)


def test_a_folder_leaves_json_files_out_for_they_are_settings(tmp_path):
    write(tmp_path / "a.jsonl", list(many(4, per_group=1, titled=False)))
    (tmp_path / "config.json").write_text('{"width": 3}')
    assert sum(len(part.questions) for part in load(str(tmp_path)).splits.values()) == 4


def test_roberta_s_two_separators_part_a_question_from_its_context():
    made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "<s>": 3, "</s>": 4, "<unk>": 5}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["<s>", "</s>"])
    made.post_processor = processors.RobertaProcessing(("</s>", 4), ("<s>", 3))
    rows = encode_questions([("a b", "c a b")], made, length=10, max_question=3, stride=1)
    row = rows[0]
    assert row["tokens"][row["segment_ids"] > 0].tolist() == made.encode("a b", "c a b").ids
    with pytest.raises(ValueError, match=r"length=7 leaves 1 tokens of a context beside .* 2 and 4 special tokens"):
        encode_questions([("a b", "c a b")], made, length=7, max_question=3, stride=1)
