"""Labelled texts, or pairs of texts: one row each, held in memory; for classification one class a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from tokenizers import Tokenizer

from research.batch import Dataset, Example, Spec, Split
from research.data.classes import check_label_names, choose_labels, class_of, find_classes
from research.data.rows import row_at, text_columns
from research.data.sources import Records
from research.data.splits import (
    Documents,
    check_slice_fields,
    check_text,
    divide,
    fingerprint,
    hash_text,
    open_splits,
    read_fields,
    repeats,
)
from research.data.text import TokenizerBlock, train_tokenizer
from research.data.tokenizers import Frame, facts, frame, special_ids

_CHUNK = 1024  # texts encoded at a time


@dataclass(frozen=True)
class Labelled:
    """The texts of one split and what is to be told of each, as the files hold them."""

    where: str
    texts: list[tuple[str, ...]]  # one text, or the two of a pair
    labels: list[Any]
    key: str
    fields: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, at: Sequence[int], what: str) -> Labelled:
        """The rows at `at`; `what` tells this choice from others."""
        texts, labels = [self.texts[i] for i in at], [self.labels[i] for i in at]
        fields = {name: [values[i] for i in at] for name, values in self.fields.items()}
        return Labelled(self.where, texts, labels, fingerprint(self.key, what), fields)


@dataclass(frozen=True)
class LabelledRows:
    """Rows of `tokens`, `segment_ids` (1 where real), `positions`, each int32 [L], and what `key` names of `labels`.

    Pairs have `token_types` too: 1 in the second text.
    """

    tokens: np.ndarray  # [N L], 0 behind each text
    lengths: np.ndarray  # int64 [N]
    labels: np.ndarray  # `label` int32 [N], `labels` float32 [N C] or `value` float32 [N]
    borders: np.ndarray | None = None  # int64 [N], where the second text of a pair begins
    key: str = "label"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return row_at(self, index)

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked."""
        found = text_columns(self.tokens[indices], self.lengths[indices]) | {self.key: self.labels[indices]}
        if self.borders is not None:
            column = np.arange(self.tokens.shape[1])
            second = (column >= self.borders[indices, None]) & (found["segment_ids"] > 0)
            found["token_types"] = second.astype(np.int32)
        return found


def text_classification(
    path: str,
    *,
    length: int,
    tokenizer: TokenizerBlock,
    text_field: str = "text",
    pair_field: str = "",
    label_field: str = "label",
    valid_path: str = "",
    valid_split: str = "",
    valid_fraction: float = 0.1,
    test_path: str = "",
    shift_path: str = "",
    folds: int = 0,
    fold: int = 0,
    slice_fields: tuple[str, ...] = (),
    seed: int = 0,
    num_labels: int = 0,
    labels_seed: int = 0,
    label_names: tuple[str, ...] = (),
) -> Dataset:
    """One row `<bos> text <eos>` for each record, or `<bos> text <eos> pair <eos>`; what does not fit is cut off.

    Validation data are `valid_path`, else the named split `valid_split` of `path`, else a random `valid_fraction` of
    the records. `shift_path` is a second test set, from elsewhere. With `folds` the test split is fold `fold` of the
    records, stratified by label. Classes are the labels of the training split, sorted. Of the training rows
    `num_labels` are used (0: all), a choice by `labels_seed` that has each class in its proportion, and at least once.
    `slice_fields` are fields of the records by whose values the scores are given too. `label_names` are words for the
    classes, in their order: (negative, positive) for labels of 0 and 1.

    Raises:
      ValueError: bad data, a label that is no class name or that training never sees, or the same data given for
        training and for evaluation.
    """
    found = read_labelled(
        path,
        lambda record, where: class_of(record[label_field], label_field, where),
        text_fields=(text_field, pair_field) if pair_field else (text_field,),
        label_fields=(label_field,),
        valid_path=valid_path,
        valid_split=valid_split,
        valid_fraction=valid_fraction,
        test_path=test_path,
        shift_path=shift_path,
        folds=folds,
        fold=fold,
        slice_fields=slice_fields,
        seed=seed,
        stratify=True,
    )
    classes = find_classes(found)
    check_label_names(label_names, classes)
    if num_labels:
        found["train"] = choose_labels(found["train"], num_labels, labels_seed)
    number = {label: index for index, label in enumerate(classes)}
    return labelled_dataset(
        found,
        {name: np.array([number[label] for label in part.labels], np.int32) for name, part in found.items()},
        key="label",
        length=length,
        tokenizer=tokenizer,
        counts={
            name: {"labels": {str(label): count for label, count in sorted(Counter(part.labels).items())}}
            for name, part in found.items()
        },
        label_names=label_names or tuple(map(str, classes)),
        label_counts=tuple(found["train"].labels.count(label) for label in classes),
    )


def read_labelled(
    path: str,
    read_label: Callable[[Mapping[str, Any], str], Any],
    *,
    text_fields: tuple[str, ...],
    label_fields: tuple[str, ...],
    valid_path: str,
    valid_split: str,
    valid_fraction: float,
    test_path: str,
    shift_path: str,
    folds: int,
    fold: int,
    slice_fields: tuple[str, ...],
    seed: int,
    stratify: bool = False,
) -> dict[str, Labelled]:
    """The texts and labels of each split that paths and folds give; arguments as `text_classification`.

    `read_label(record, where)` makes a record's label; `where` names the record in messages.
    """
    check_slice_fields(slice_fields)
    opened = open_splits(
        (path,),
        fields=(*text_fields, *label_fields, *slice_fields),
        valid_path=valid_path,
        valid_split=valid_split,
        test_path=test_path,
        shift_path=shift_path,
    )
    read = {
        name: _read(records[0], text_fields, label_fields, slice_fields, read_label) for name, records in opened.items()
    }
    strata = read["train"].labels if stratify else [""] * len(read["train"])
    return divide(read, strata=strata, folds=folds, fold=fold, valid_fraction=valid_fraction, seed=seed)


def labelled_dataset(
    found: Mapping[str, Labelled],
    targets: Mapping[str, np.ndarray],
    *,
    key: str,
    length: int,
    tokenizer: Mapping[str, Any],
    counts: Mapping[str, Mapping[str, Any]],
    **known: Any,
) -> Dataset:
    """The data set of each split's texts and `targets` [N …], which rows hold as `key`, in single precision.

    `counts` is told of each split beside what is counted here; `known` are facts of `Spec`.
    """
    num_texts = len(found["train"].texts[0])
    train = found["train"]
    trained = train_tokenizer(
        tokenizer, [Documents(train.where, [text for texts in train.texts for text in texts], train.key)]
    )
    shortest = sum(map(len, frame(trained, pair=num_texts > 1))) + num_texts  # a token of each text
    if length < shortest:
        raise ValueError(f"length={length} leaves no room for text between special tokens; use {shortest} or more")
    splits, told = {}, {}
    for name, part in found.items():
        held = targets[name].astype(np.int32 if key == "label" else np.float32)
        splits[name], num_cut = labelled_split(part.texts, held, trained, length=length, fields=part.fields, key=key)
        splits[name] = replace(splits[name], labels=targets[name].tolist())
        told[name] = {**_count(splits[name], num_cut, length), **counts[name]}
    contents = trained.to_str()
    return Dataset(
        splits=splits,
        spec=Spec(length=length, **known, **facts(trained)),
        tokenizer=contents,
        facts={
            **told,
            **repeats({name: split.hashes for name, split in splits.items()}),
            "fingerprint": fingerprint(contents, *(f"{name} {part.key}" for name, part in found.items())),
        },
    )


def labelled_split(
    texts: Sequence[tuple[str, ...]],
    labels: np.ndarray,
    tokenizer: Tokenizer,
    *,
    length: int,
    fields: Mapping[str, Sequence[Any]],
    key: str,
) -> tuple[Split, int]:
    """The split of some texts (or pairs of them) whose rows hold `labels` [N …] as `key`, and how many were cut."""
    tokens, lengths, borders, num_cut = encode_rows(texts, tokenizer, length=length)
    rows = LabelledRows(tokens, lengths, labels, borders if len(texts[0]) > 1 else None, key)
    joined = ["\n".join(pieces) for pieces in texts]
    split = Split(
        rows,
        texts=joined,
        pieces=texts,
        labels=labels.tolist(),
        num_bytes=sum(len(text.encode()) for pieces in texts for text in pieces),
        hashes=[hash_text(text) for text in joined],
        fields=fields,
    )
    return split, num_cut


def encode_rows(
    texts: Sequence[tuple[str, ...]], tokenizer: Tokenizer, *, length: int, framed: Callable[..., Frame] = frame
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Rows of tokens, and how many of them were cut.

    Token ids int32 [N L] with 0 behind each row's end; the number of tokens of each row [N]; where the second text of
    a pair begins [N], the row's end for one text; the number of rows that were cut. A special token written in a text
    is that token: `<mask>` hides a word. Around texts stands what `framed` says; a row without a token holds <eos>.
    """
    before, between, after = framed(tokenizer, pair=len(texts[0]) > 1)
    filler = [max(special_ids(tokenizer)["eos_id"], 0)]
    tokens = np.zeros((len(texts), length), np.int32)
    lengths, borders = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
    num_cut = 0
    for row, pieces in enumerate(token_ids(texts, tokenizer)):
        room = length - len(before) - len(between) - len(after)
        first, *others = _shorten(pieces, room)
        begin = before + first + between
        ids = begin + [token for piece in others for token in piece] + after or filler
        tokens[row, : len(ids)] = ids
        lengths[row], borders[row] = len(ids), len(begin) if others else len(ids)
        num_cut += sum(map(len, pieces)) > room
    return tokens, lengths, borders, num_cut


def token_ids(texts: Sequence[tuple[str, ...]], tokenizer: Tokenizer) -> Iterator[list[list[int]]]:
    """Of each row the token ids of its texts."""
    for first in range(0, len(texts), _CHUNK):
        chunk = texts[first : first + _CHUNK]
        encoded = iter(tokenizer.encode_batch_fast([text for row in chunk for text in row], add_special_tokens=False))
        for row in chunk:
            yield [next(encoded).ids for _ in row]


def _count(split: Split, num_cut: int, length: int) -> dict[str, Any]:
    lengths = cast(LabelledRows, split.examples).lengths
    return {
        "rows": len(lengths),
        "cut_rows": num_cut,
        "tokens": int(lengths.sum()),
        "bytes": split.num_bytes,
        "fill": float(lengths.mean() / length),
    }


def _read(
    records: Records,
    text_fields: tuple[str, ...],
    label_fields: tuple[str, ...],
    slice_fields: tuple[str, ...],
    read_label: Callable[[Mapping[str, Any], str], Any],
) -> Labelled:
    texts, labels = [], []
    for index, record in enumerate(records):
        for field in text_fields:
            check_text(record[field], records, index, field)
        texts.append(tuple(record[field] for field in text_fields))
        labels.append(read_label(record, f"{records.path}, record {index + 1}"))
        if type(labels[-1]) is not type(labels[0]):
            raise ValueError(
                f"{records.path}, record {index + 1}: {', '.join(label_fields)}={labels[-1]!r} is "
                f"{type(labels[-1]).__name__}, the labels before it {type(labels[0]).__name__}; write all of them the "
                "same way"
            )
    key = fingerprint(records.fingerprint, *text_fields, *label_fields)
    return Labelled(records.path, texts, labels, key, read_fields(records, slice_fields))


def _shorten(texts: list[list[int]], room: int) -> list[list[int]]:
    """Cuts the ends off, of the longer text first, until all fit into `room` tokens."""
    if len(texts) == 1:
        return [texts[0][:room]]
    first, second = map(len, texts)
    kept = min(first, max(room - second, (room + 1) // 2))
    return [texts[0][:kept], texts[1][: room - kept]]
