"""Sentences whose words have tags: one row each, the tag at the first token of its word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from tokenizers import Tokenizer

from research.batch import Dataset, Example, Spec, Split
from research.data.rows import row_at, text_columns
from research.data.sources import Records
from research.data.splits import (
    Documents,
    check_slice_fields,
    divide,
    fingerprint,
    hash_text,
    open_splits,
    random_choice,
    read_fields,
    repeats,
)
from research.data.text import TokenizerBlock, train_tokenizer
from research.data.tokenizers import facts

NO_TAG = -1


@dataclass(frozen=True)
class _Tagged:
    """The sentences of one split, as the files hold them."""

    where: str
    words: list[tuple[str, ...]]
    tags: list[tuple[str, ...]]
    key: str
    fields: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.words)

    def take(self, at: Sequence[int], what: str) -> _Tagged:
        words, tags = [self.words[i] for i in at], [self.tags[i] for i in at]
        fields = {name: [values[i] for i in at] for name, values in self.fields.items()}
        return _Tagged(self.where, words, tags, fingerprint(self.key, what), fields)


@dataclass(frozen=True)
class TaggedRows:
    """Rows of `tokens`, `segment_ids` (1 where real), `positions` and `tags` (-1 where none), each int32 [L]."""

    tokens: np.ndarray  # [N L], 0 behind each sentence
    lengths: np.ndarray  # int64 [N]
    tags: np.ndarray  # int32 [N L]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        return row_at(self, index)

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked."""
        return text_columns(self.tokens[indices], self.lengths[indices]) | {"tags": self.tags[indices]}


def tagging(
    path: str,
    *,
    length: int,
    tokenizer: TokenizerBlock,
    words_field: str = "tokens",
    tags_field: str = "tags",
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
) -> Dataset:
    """One row `<bos> sentence <eos>` for each record of a list of words and a list of tags, as long as one another.

    Words are joined by spaces and tokenised together; a word's tag stands at its first token. What does not fit is cut
    off, and the words that are lost are counted; scores count them as wrong. Validation data, `shift_path`, `folds`,
    `slice_fields`, `num_labels` (of sentences) and `labels_seed` as in `text_classification`; nothing is stratified.

    Raises:
      ValueError: bad data, words and tags of different number (the record is named), a tag that training never sees.
    """
    check_slice_fields(slice_fields)
    opened = open_splits(
        (path,),
        fields=(words_field, tags_field, *slice_fields),
        valid_path=valid_path,
        valid_split=valid_split,
        test_path=test_path,
        shift_path=shift_path,
    )
    read = {name: _read(records[0], words_field, tags_field, slice_fields) for name, records in opened.items()}
    strata = [""] * len(read["train"])
    found = divide(read, strata=strata, folds=folds, fold=fold, valid_fraction=valid_fraction, seed=seed)
    names = _names(found)
    train = found["train"]
    if num_labels:
        chosen = random_choice(len(train.words), num_labels, labels_seed, train.where)
        found["train"] = train = train.take(chosen, f"{num_labels} by {labels_seed}")
    texts = [" ".join(words) for words in train.words]
    trained = train_tokenizer(tokenizer, [Documents(train.where, texts, train.key)])

    splits, counts = {}, {}
    number = {tag: index for index, tag in enumerate(names)}
    for name, part in found.items():
        tags = [[number[tag] for tag in tags] for tags in part.tags]
        splits[name] = split = tagged_split(part.words, tags, trained, length=length, fields=part.fields)
        lengths = cast(TaggedRows, split.examples).lengths
        counts[name] = {
            "rows": len(part),
            "words": sum(map(len, part.words)),
            "lost_words": sum(list(columns).count(-1) for columns in split.places),
            "tokens": int(lengths.sum()),
            "fill": float(lengths.mean() / length),
            "tags": dict(sorted(Counter(tag for tags in part.tags for tag in tags).items())),
        }
    contents = trained.to_str()
    return Dataset(
        splits=splits,
        spec=Spec(
            length=length,
            label_names=tuple(names),
            label_counts=tuple(counts["train"]["tags"].get(name, 0) for name in names),
            **facts(trained),
        ),
        tokenizer=contents,
        facts={
            **counts,
            **repeats({name: split.hashes for name, split in splits.items()}),
            "fingerprint": fingerprint(contents, *(f"{name} {part.key}" for name, part in found.items())),
        },
    )


def tagged_split(
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    *,
    length: int,
    fields: Mapping[str, Sequence[Any]],
) -> Split:
    """The split of some sentences with the number of each word's tag."""
    tokens, lengths, places = encode_words(sentences, tokenizer, length=length)
    row_tags = np.full(tokens.shape, NO_TAG, np.int32)
    for row, columns in enumerate(places):
        for column, tag in zip(columns, tags[row], strict=True):
            if column >= 0:
                row_tags[row, column] = tag
    joined = [" ".join(words) for words in sentences]
    return Split(
        TaggedRows(tokens, lengths, row_tags),
        texts=joined,
        num_bytes=sum(len(text.encode()) for text in joined),
        hashes=[hash_text(text) for text in joined],
        words=sentences,
        tags=tags,
        places=places,
        fields=fields,
    )


def encode_words(
    sentences: Sequence[Sequence[str]], tokenizer: Tokenizer, *, length: int
) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """Token ids int32 [N L] with 0 behind each row's end, the rows' lengths [N], and where each word's first token is.

    A place of -1 is a word that is not in its row: cut off, or nothing but characters that the tokenizer drops.
    """
    known = facts(tokenizer)
    bos, eos = ([known[name]] if known[name] >= 0 else [] for name in ("bos_id", "eos_id"))
    tokens = np.zeros((len(sentences), length), np.int32)
    lengths = np.zeros(len(sentences), np.int64)
    places: list[list[int]] = []
    room = length - len(bos) - len(eos)
    texts = [" ".join(words) for words in sentences]
    for row, encoding in enumerate(tokenizer.encode_batch(texts, add_special_tokens=False)):
        kept = encoding.ids[:room]
        ids = bos + kept + eos
        tokens[row, : len(ids)] = ids
        lengths[row] = len(ids)
        starts = np.cumsum([0, *(len(word) + 1 for word in sentences[row])])
        columns = [-1] * len(sentences[row])
        for index, (first, last) in enumerate(encoding.offsets[:room]):
            piece = texts[row][first:last]
            if not piece.strip():  # white space only, or a token that stands for no character
                continue
            first += len(piece) - len(piece.lstrip())
            word = int(np.searchsorted(starts, first, side="right")) - 1
            if columns[word] < 0:
                columns[word] = len(bos) + index
        places.append(columns)
    return tokens, lengths, places


def _read(records: Records, words_field: str, tags_field: str, slice_fields: tuple[str, ...]) -> _Tagged:
    words, tags = [], []
    for index, record in enumerate(records):
        for field in (words_field, tags_field):
            value = record[field]
            if not isinstance(value, list | tuple) or not value or not all(isinstance(item, str) for item in value):
                raise ValueError(
                    f"{records.path}, record {index + 1}: field {field!r} is no list of words; wanted one text a word, "
                    "or name another words_field or tags_field"
                )
        if len(record[words_field]) != len(record[tags_field]):
            raise ValueError(
                f"{records.path}, record {index + 1}: {len(record[words_field])} words have "
                f"{len(record[tags_field])} tags; give each word one tag"
            )
        words.append(tuple(" ".join(word.split()) or "\N{REPLACEMENT CHARACTER}" for word in record[words_field]))
        tags.append(tuple(record[tags_field]))
    key = fingerprint(records.fingerprint, words_field, tags_field)
    return _Tagged(records.path, words, tags, key, read_fields(records, slice_fields))


def _names(found: dict[str, _Tagged]) -> list[str]:
    """The sorted tags of training, once every split is known to hold no other."""
    train = found["train"]
    names = sorted({tag for tags in train.tags for tag in tags})
    if len(names) < 2:
        raise ValueError(f"{train.where}: every tag of training is {names[0]!r}; there is nothing to tell apart")
    for name, part in found.items():
        unseen = sorted({tag for tags in part.tags for tag in tags} - set(names))
        if unseen:
            raise ValueError(
                f"{part.where}: tag {unseen[0]!r} of the {name} split is never seen in training, which has "
                f"{', '.join(map(repr, names[:20]))}; remove its sentences or add it to the training data"
            )
    return names
