"""Pairs of texts that belong together (question and passage, code and docstring): one row each, held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from research.batch import Dataset, Example, Spec, Split
from research.data.labelled import encode_rows
from research.data.rows import row_at
from research.data.sources import Records
from research.data.splits import (
    Documents,
    check_text,
    fingerprint,
    hash_text,
    open_splits,
    random_choice,
    random_cut,
    repeats,
)
from research.data.text import TokenizerBlock, train_tokenizer
from research.data.tokenizers import facts


@dataclass(frozen=True)
class _Pairs:
    """The texts of one split, as the files hold them."""

    where: str
    texts: list[tuple[str, ...]]  # first, second and, where there is a field of these, the negative ("": none)
    key: str

    def take(self, at: Sequence[int], what: str) -> _Pairs:
        return _Pairs(self.where, [self.texts[i] for i in at], fingerprint(self.key, what))


@dataclass(frozen=True)
class PairRows:
    """Rows of `tokens`, `segment_ids` (1 where real), `positions`, each int32 [L]; the same of the second text with
    `pair_` before; and `group`, int32: equal where the second texts are.

    With negatives the same of these with `negative_` before, and `negative_group`, -1 where a row has none.
    """

    tokens: np.ndarray  # [N sides L], 0 behind each text
    lengths: np.ndarray  # int64 [N sides]
    groups: np.ndarray  # int32 [N sides - 1], equal where texts are, of all but the first

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Example:
        return row_at(self, index)

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked."""
        column = np.arange(self.tokens.shape[2], dtype=np.int32)
        found: Example = {}
        for side, prefix in enumerate(("", "pair_", "negative_")[: self.tokens.shape[1]]):
            if side:
                found["negative_group" if side == 2 else "group"] = self.groups[indices, side - 1]
            real = column < self.lengths[indices, side, None]
            found[f"{prefix}tokens"] = self.tokens[indices, side]
            found[f"{prefix}segment_ids"] = real.astype(np.int32)
            found[f"{prefix}positions"] = np.where(real, column, 0)
        return found


def text_pairs(
    path: str,
    *,
    length: int,
    tokenizer: TokenizerBlock,
    text_field: str = "text",
    pair_field: str = "pair",
    negative_field: str = "",
    valid_path: str = "",
    valid_split: str = "",
    valid_fraction: float = 0.1,
    test_path: str = "",
    seed: int = 0,
    num_labels: int = 0,
    labels_seed: int = 0,
) -> Dataset:
    """Two rows `<bos> text <eos>` for each record; what does not fit is cut off, and counted.

    With a `negative_field` a third row for each: a hard negative, which looks like the second text and is wrong; a
    record whose field is empty has none. Validation data, `num_labels` (of pairs) and `labels_seed` as in
    `text_classification`; nothing is stratified.

    Raises:
      ValueError: bad data, an empty text or a negative that is the second text (the record is named), or the same data
        given for training and evaluation.
    """
    fields = (text_field, pair_field, *([negative_field] if negative_field else []))
    opened = open_splits((path,), fields=fields, valid_path=valid_path, valid_split=valid_split, test_path=test_path)
    found = {name: _read(records[0], fields) for name, records in opened.items()}
    if "val" not in found:
        part = found["train"]
        train_at, valid_at = random_cut(len(part.texts), valid_fraction, seed, part.where)
        found["train"] = part.take(train_at, f"train of {valid_fraction} by {seed}")
        found["val"] = part.take(valid_at, f"val of {valid_fraction} by {seed}")
    found = {name: found[name] for name in ("train", "val", "test") if name in found}
    train = found["train"]
    if num_labels:
        chosen = random_choice(len(train.texts), num_labels, labels_seed, train.where)
        found["train"] = train = train.take(chosen, f"{num_labels} by {labels_seed}")
    if length < 3:
        raise ValueError(f"length={length} leaves no room for text between special tokens; use 3 or more")
    documents = Documents(train.where, [text for texts in train.texts for text in texts if text], train.key)
    trained = train_tokenizer(tokenizer, [documents])
    splits, counts = {}, {}
    for name, part in found.items():
        sides = [
            encode_rows([(texts[side],) for texts in part.texts], trained, length=length) for side in range(len(fields))
        ]
        tokens, lengths = (np.stack([side[item] for side in sides], axis=1) for item in (0, 1))
        groups = _groups(part.texts)
        hashes = [hash_text("\n".join(texts[:2])) for texts in part.texts]
        splits[name] = Split(
            PairRows(tokens, lengths, groups),
            texts=[texts[0] for texts in part.texts],
            seconds=[texts[1] for texts in part.texts],
            num_bytes=sum(len(text.encode()) for texts in part.texts for text in texts[:2]),
            hashes=hashes,
        )
        counts[name] = {
            "rows": len(part.texts),
            "cut_texts": sum(side[3] for side in sides),
            "distinct_seconds": len(np.unique(groups[:, 0])),
            **({"negatives": int((groups[:, 1] >= 0).sum())} if negative_field else {}),
            "tokens": int(lengths.sum()),
            "fill": float(lengths.mean() / length),
        }
    contents = trained.to_str()
    return Dataset(
        splits=splits,
        spec=Spec(length=length, **facts(trained)),
        tokenizer=contents,
        facts={
            **counts,
            **repeats({name: split.hashes for name, split in splits.items()}),
            "fingerprint": fingerprint(contents, *(f"{name} {part.key}" for name, part in found.items())),
        },
    )


def _groups(texts: Sequence[tuple[str, ...]]) -> np.ndarray:
    """int32 [N sides - 1]: of each second text and negative a number, the same for equal texts; -1 for no text."""
    flat = [hash_text(text) if text else "" for row in texts for text in row[1:]]
    numbers = np.unique(flat, return_inverse=True)[1].reshape(len(texts), -1)
    missing = np.array([not text for row in texts for text in row[1:]]).reshape(len(texts), -1)
    return np.where(missing, -1, numbers).astype(np.int32)


def _read(records: Records, fields: tuple[str, ...]) -> _Pairs:
    texts = []
    for index, record in enumerate(records):
        where = f"{records.path}, record {index + 1}"
        row = []
        for place, field in enumerate(fields):
            text = record[field]
            check_text(text, records, index, field)
            if place < 2 and not text.strip():
                raise ValueError(f"{where}: field {field!r} is empty; a pair has two texts, remove it")
            row.append(text if text.strip() else "")
        if len(row) == 3 and hash_text(row[1]) == hash_text(row[2]):
            raise ValueError(f"{where}: the negative of {fields[2]!r} is the second text itself; leave it empty")
        texts.append(tuple(row))
    return _Pairs(records.path, texts, fingerprint(records.fingerprint, *fields))
