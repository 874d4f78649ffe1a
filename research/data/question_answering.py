"""Questions whose answer stands in a text: a row for each window of the text, the answer's columns as its label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from research.batch import Dataset, Example, Spec, Split, Window
from research.data.files import find_files
from research.data.questions import Asked, read_questions
from research.data.rows import row_at
from research.data.splits import Documents, fingerprint, hash_text, open_splits, random_choice, random_cut, repeats
from research.data.text import TokenizerBlock, train_tokenizer
from research.data.tokenizers import facts, frame

_CHUNK = 256  # texts encoded at a time: offsets are many
_SPECIAL = 3  # tokens of a row: <bos> and two <eos>


@dataclass(frozen=True)
class _Asked:
    """The questions of one split."""

    where: str
    items: list[Asked]
    key: str

    def take(self, at: Sequence[int], what: str) -> _Asked:
        return _Asked(self.where, [self.items[index] for index in at], fingerprint(self.key, what))


@dataclass(frozen=True)
class QuestionRows:
    """Rows `<bos> question <eos> window of the context <eos>`: `tokens`, `segment_ids` (1 where real), `positions`,
    `token_types` (1 behind the first <eos>), each int32 [L], `answer_mask` bool [L], and the columns `start` and `end`.
    """

    heads: Sequence[np.ndarray]  # `<bos> question <eos>` of each question, int32
    bodies: Sequence[np.ndarray]  # the context's tokens in each row, int32
    windows: Sequence[Window]
    columns: np.ndarray  # int32 [N 2], of the answer's first and last token, 0: the row holds no answer
    eos_id: int
    length: int

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Example:
        return row_at(self, index)

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked."""
        tokens = np.zeros((len(indices), self.length), np.int32)
        borders, ends = np.zeros((2, len(indices), 1), np.int32)  # the context's first column, and the last <eos>
        for row, index in enumerate(indices):
            head, body = self.heads[self.windows[index].question], self.bodies[index]
            borders[row], ends[row] = len(head), len(head) + len(body)
            tokens[row, : len(head)] = head
            tokens[row, len(head) : len(head) + len(body)] = body
            tokens[row, len(head) + len(body)] = self.eos_id
        column = np.arange(self.length, dtype=np.int32)
        real, behind = column <= ends, column >= borders
        return {
            "tokens": tokens,
            "segment_ids": real.astype(np.int32),
            "positions": np.where(real, column, 0),
            "token_types": (real & behind).astype(np.int32),
            "answer_mask": (column == 0) | (behind & (column < ends)),
            "start": self.columns[indices, 0],
            "end": self.columns[indices, 1],
        }


def question_answering(
    path: str | tuple[str, ...],
    *,
    length: int,
    tokenizer: TokenizerBlock,
    question_field: str = "question",
    context_field: str = "context",
    answers_field: str = "answers",
    max_question: int = 64,
    stride: int = 32,
    max_answer: int = 30,
    empty_windows: float = 1.0,
    valid_path: str = "",
    valid_fraction: float = 0.1,
    test_path: str = "",
    seed: int = 0,
    num_labels: int = 0,
    labels_seed: int = 0,
) -> Dataset:
    """A row for each window of a question's context; its label is where the answer begins and ends in it.

    The first column stands for "not here": for windows without the answer, and for questions that have none (Devlin et
    al. 2019, section 4.3). Questions are cut after `max_question` tokens; neighbouring windows have `stride` tokens in
    common, so that an answer of up to as many is whole in one of them. Training sees every window that holds an answer
    or belongs to a question without, and the share `empty_windows` of the others, a choice by `seed`. `max_answer`
    bounds, in tokens, the answers that evaluation and predict look for. Files as `read_questions` takes them.

    Validation data are `valid_path`, else `valid_fraction` of the articles of each file that has several (SQuAD's, or
    those of one `title`), and of the contexts of the others: never some questions of a text whose others are trained
    on. `num_labels` (of questions) and `labels_seed` as in `tagging`.

    Raises:
      ValueError: bad data, or a length without room for a question and a window.
    """
    _check(length, max_question, stride, max_answer, empty_windows)
    paths = [file for each in ((path,) if isinstance(path, str) else path) for file in _files(each)]
    opened = open_splits(paths, fields=(), valid_path=valid_path, valid_split="", test_path=test_path)
    fields = dict(question_field=question_field, context_field=context_field, answers_field=answers_field)
    found = {}
    for name, sources in opened.items():
        items = [_grouped(read_questions(records, **fields)) for records in sources]
        key = fingerprint(*(records.fingerprint for records in sources), *fields.values())
        found[name] = _Asked(", ".join(records.path for records in sources), sum(items, []), key)
    if "val" not in found:
        found["train"], found["val"] = _cut(found["train"], valid_fraction, seed)
    if num_labels:
        chosen = random_choice(len(found["train"].items), num_labels, labels_seed, found["train"].where)
        found["train"] = found["train"].take(chosen, f"{num_labels} by {labels_seed}")
    train = found["train"]
    texts = [item.question.text for item in train.items] + _contexts(train)
    trained = train_tokenizer(tokenizer, [Documents(train.where, texts, train.key)])

    splits, counts = {}, {}
    for name in [name for name in ("train", "val", "test") if name in found]:
        share = empty_windows if name == "train" else 1.0
        rows = _rows(found[name], trained, length=length, max_question=max_question, stride=stride)
        rows = _thin(rows, found[name].items, share, seed)
        splits[name] = _split(found[name], rows, max_answer)
        counts[name] = _counts(found[name], rows)
    contents = trained.to_str()
    return Dataset(
        splits=splits,
        spec=Spec(length=length, packed=True, **facts(trained)),
        tokenizer=contents,
        facts={
            **counts,
            **repeats({name: split.hashes for name, split in splits.items()}),
            "fingerprint": fingerprint(contents, *(f"{name} {part.key}" for name, part in found.items())),
        },
    )


def fit_windows(length: int, *, max_question: int, stride: int) -> dict[str, int]:
    """The sizes that `encode_questions` takes, as they are given where rows of `length` have room for them, or less."""
    if length - max_question - _SPECIAL < 1:
        max_question = (length - _SPECIAL) // 2
    room = length - max_question - _SPECIAL
    return {"length": length, "max_question": max_question, "stride": stride if stride < room else room // 2}


def encode_questions(
    asked: Sequence[tuple[str, str]],
    tokenizer: Tokenizer,
    *,
    length: int,
    max_question: int,
    stride: int,
    answers: Sequence[tuple[int, int] | None] = (),
) -> QuestionRows:
    """The rows of questions with their contexts, in order, those of a question one after the other.

    `answers` are the characters [first, last) of each question's answer, where they are known. A window's characters
    are without the white space that a token may begin or end with.

    Raises:
      ValueError: a tokenizer without the tokens that part a question from its context.
    """
    known = facts(tokenizer)
    if min(known["bos_id"], known["eos_id"]) < 0:
        raise ValueError(
            "question answering writes <bos> question <eos> context <eos>, and the tokenizer lacks one of the two "
            "tokens; start from a model whose tokenizer has both"
        )
    questions = {text: ids[:max_question] for text, ids, _ in _encoded([text for text, _ in asked], tokenizer)}
    contexts = {text: (ids, places) for text, ids, places in _encoded([text for _, text in asked], tokenizer)}
    between = frame(tokenizer, pair=True)[1]
    heads, bodies, windows, columns = [], [], [], []
    for index, (text, context) in enumerate(asked):
        head = np.array([known["bos_id"], *questions[text], *between], np.int32)
        heads.append(head)
        ids, places = contexts[context]
        first, last = _tokens_of(answers[index] if answers else None, places)
        room = length - len(head) - 1
        if room <= stride:
            raise ValueError(
                f"length={length} leaves {room} tokens of a context beside a question of {len(questions[text])} and "
                f"{len(between) + 2} special tokens, and stride={stride}; use a longer length or a smaller max_question"
            )
        for begin in range(0, max(1, len(ids) - stride), room - stride):
            bodies.append(ids[begin : begin + room])  # a view: a context is held once
            windows.append(Window(index, len(head), places[begin : begin + room]))
            whole = begin <= first and last < begin + room
            columns.append((len(head) + first - begin, len(head) + last - begin) if whole else (0, 0))
    return QuestionRows(heads, bodies, windows, np.array(columns, np.int32), known["eos_id"], length)


def _check(length: int, max_question: int, stride: int, max_answer: int, empty_windows: float) -> None:
    for name, value in (("max_question", max_question), ("max_answer", max_answer)):
        if value < 1:
            raise ValueError(f"{name}={value}: wanted 1 or more")
    room = length - max_question - _SPECIAL
    if room < 1:
        raise ValueError(
            f"length={length} leaves no room for a context beside max_question={max_question} and 3 special tokens; "
            f"use {max_question + 4} or more, or a smaller max_question"
        )
    if not 0 <= stride < room:
        raise ValueError(
            f"stride={stride}: windows show {room} tokens of the context (length={length} without max_question="
            f"{max_question} and 3 special tokens) and can have 0 to {room - 1} in common"
        )
    if not 0.0 <= empty_windows <= 1.0:
        raise ValueError(f"empty_windows={empty_windows}: wanted a share from 0 to 1")


def _files(path: str) -> list[str]:
    """Each file of a glob or folder by itself: whether a file has several articles is asked of every one."""
    return [path] if path.startswith(("embedded:", "tfds:")) else [str(file) for file in find_files(path)]


def _grouped(items: list[Asked]) -> list[Asked]:
    """The questions of one file, by their context where it does not part them into articles."""
    articles = {item.article for item in items}
    if len(articles) > 1 and "" not in articles:
        return items
    return [Asked(item.question, f"context {item.question.context}", item.answer) for item in items]


def _cut(part: _Asked, fraction: float, seed: int) -> tuple[_Asked, _Asked]:
    """Training and validation questions, whole articles or contexts on either side."""
    groups = {item.article: None for item in part.items}
    _, chosen = random_cut(len(groups), fraction, seed, part.where, unit="articles or contexts")
    names = list(groups)
    held_out = {names[index] for index in chosen}
    sides = {"train": [], "val": []}
    for index, item in enumerate(part.items):
        sides["val" if item.article in held_out else "train"].append(index)
    train, val = (part.take(at, f"{name} of {fraction} by {seed}") for name, at in sides.items())
    return train, val


def _contexts(part: _Asked) -> list[str]:
    return list(dict.fromkeys(item.question.context for item in part.items))


def _rows(part: _Asked, tokenizer: Tokenizer, **sizes: int) -> QuestionRows:
    asked = [(item.question.text, item.question.context) for item in part.items]
    return encode_questions(asked, tokenizer, answers=[item.answer for item in part.items], **sizes)


def _thin(rows: QuestionRows, items: Sequence[Asked], share: float, seed: int) -> QuestionRows:
    """The rows without 1 - `share` of those that hold nothing of a question which has an answer."""
    answered = np.array([items[window.question].answer is not None for window in rows.windows])
    drawn = np.random.default_rng(seed).random(len(rows)) < share
    kept = np.flatnonzero((rows.columns[:, 0] > 0) | ~answered | drawn).tolist()
    bodies, windows = [rows.bodies[index] for index in kept], [rows.windows[index] for index in kept]
    return QuestionRows(rows.heads, bodies, windows, rows.columns[kept], rows.eos_id, rows.length)


def _split(part: _Asked, rows: QuestionRows, max_answer: int) -> Split:
    questions = [item.question for item in part.items]
    texts = [f"{question.text}\n{question.context}" for question in questions]
    return Split(
        rows,
        texts=texts,
        num_bytes=sum(len(text.encode()) for text in texts),
        hashes=[hash_text(text) for text in texts],
        questions=questions,
        windows=rows.windows,
        max_answer=max_answer,
    )


def _counts(part: _Asked, rows: QuestionRows) -> dict[str, int | float]:
    """Of what decoding can reach: `lost_answers` are whole in no row, `inexact_answers` no run of tokens spells."""
    reached, inexact = set(), set()
    for row in np.flatnonzero(rows.columns[:, 0]).tolist():
        window = rows.windows[row]
        first, last = rows.columns[row] - window.border
        reached.add(window.question)
        if (window.characters[first, 0], window.characters[last, 1]) != part.items[window.question].answer:
            inexact.add(window.question)
    answered = sum(item.answer is not None for item in part.items)
    num_tokens = sum(len(rows.heads[window.question]) + len(window.characters) + 1 for window in rows.windows)
    return {
        "questions": len(part.items),
        "contexts": len(_contexts(part)),
        "without_answer": len(part.items) - answered,
        "rows": len(rows),
        "empty_rows": int((rows.columns[:, 0] == 0).sum()),
        "lost_answers": answered - len(reached),
        "inexact_answers": len(inexact),
        "tokens": num_tokens,
        "fill": num_tokens / (len(rows) * rows.length),
    }


def _tokens_of(answer: tuple[int, int] | None, places: np.ndarray) -> tuple[int, int]:
    """The first and last token that show some of the answer's characters; (-1, -1) where none does."""
    if answer is None:
        return -1, -1
    inside = np.flatnonzero((places[:, 1] > answer[0]) & (places[:, 0] < answer[1]))
    return (int(inside[0]), int(inside[-1])) if len(inside) else (-1, -1)


def _encoded(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each distinct text, its token ids int32 [T], and the characters [first, last) of each: int32 [T 2]."""
    distinct = list(dict.fromkeys(texts))
    for chunk in range(0, len(distinct), _CHUNK):
        part = distinct[chunk : chunk + _CHUNK]
        for text, encoding in zip(part, tokenizer.encode_batch(part, add_special_tokens=False), strict=True):
            places = [_trimmed(text, first, last) for first, last in encoding.offsets]
            yield text, np.array(encoding.ids, np.int32), np.array(places, np.int32).reshape(-1, 2)


def _trimmed(text: str, first: int, last: int) -> tuple[int, int]:
    """The place without white space around it; as it is where there is nothing else."""
    piece = text[first:last]
    if not piece.strip():
        return first, last
    return first + len(piece) - len(piece.lstrip()), last - len(piece) + len(piece.rstrip())
