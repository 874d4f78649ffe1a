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
    texts: list[tuple[str, str]]
    key: str

    def take(self, at: Sequence[int], what: str) -> _Pairs:
        return _Pairs(self.where, [self.texts[i] for i in at], fingerprint(self.key, what))


@dataclass(frozen=True)
class PairRows:
    """Rows of `tokens`, `segment_ids` (1 where real), `positions`, each int32 [L]; the same of the second text with
    `pair_` before; and `group`, int32: equal where the second texts are.
    """

    tokens: np.ndarray  # [N 2 L], 0 behind each text
    lengths: np.ndarray  # int64 [N 2]
    groups: np.ndarray  # int32 [N]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Example:
        return row_at(self, index)

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked."""
        column = np.arange(self.tokens.shape[2], dtype=np.int32)
        found: Example = {"group": self.groups[indices]}
        for side, prefix in enumerate(("", "pair_")):
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
    valid_path: str = "",
    valid_split: str = "",
    valid_fraction: float = 0.1,
    test_path: str = "",
    seed: int = 0,
    num_labels: int = 0,
    labels_seed: int = 0,
) -> Dataset:
    """Two rows `<bos> text <eos>` for each record; what does not fit is cut off, and counted.

    Validation data, `num_labels` (of pairs) and `labels_seed` as in `text_classification`; nothing is stratified.

    Raises:
      ValueError: bad data, an empty text (the record is named), or the same data given for training and evaluation.
    """
    fields = (text_field, pair_field)
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
    documents = Documents(train.where, [text for texts in train.texts for text in texts], train.key)
    trained = train_tokenizer(tokenizer, [documents])
    splits, counts = {}, {}
    for name, part in found.items():
        sides = [encode_rows([(texts[side],) for texts in part.texts], trained, length=length) for side in (0, 1)]
        tokens, lengths = (np.stack([side[item] for side in sides], axis=1) for item in (0, 1))
        groups = np.unique([hash_text(texts[1]) for texts in part.texts], return_inverse=True)[1].astype(np.int32)
        hashes = [hash_text("\n".join(texts)) for texts in part.texts]
        splits[name] = Split(
            PairRows(tokens, lengths, groups),
            texts=[texts[0] for texts in part.texts],
            seconds=[texts[1] for texts in part.texts],
            num_bytes=sum(len(text.encode()) for texts in part.texts for text in texts),
            hashes=hashes,
        )
        counts[name] = {
            "rows": len(part.texts),
            "cut_texts": sum(side[3] for side in sides),
            "distinct_seconds": int(groups.max()) + 1,
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


def _read(records: Records, fields: tuple[str, str]) -> _Pairs:
    texts = []
    for index, record in enumerate(records):
        for field in fields:
            check_text(record[field], records, index, field)
            if not record[field].strip():
                raise ValueError(
                    f"{records.path}, record {index + 1}: field {field!r} is empty; a pair has two texts, remove it"
                )
        texts.append((record[fields[0]], record[fields[1]]))
    return _Pairs(records.path, texts, fingerprint(records.fingerprint, *fields))
