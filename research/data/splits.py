"""Which records train, which validate and which test; and what is counted of each split and between them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from research.data.sources import Records, open_records, same_source


@dataclass(frozen=True)
class Documents(Sequence[str]):
    """The text of some records, in order. `key` stands for the contents in caches and fingerprints."""

    where: str  # for messages
    texts: Sequence[str]
    key: str

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index) -> Any:
        return self.texts[index]


@dataclass(frozen=True)
class _Field(Sequence[str]):
    """One field of the records first … last - 1, read when asked for."""

    records: Records
    field: str
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, index) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.records[self.first + index][self.field]


def open_splits(
    paths: Sequence[str], *, fields: tuple[str, ...], valid_path: str, valid_split: str, test_path: str
) -> dict[str, list[Records]]:
    """The records of "train", one for each path, and of "val" and "test" where a path or a named split gives them.

    Raises:
      ValueError: validation data given twice, or training data given for evaluation.
    """
    if valid_path and valid_split:
        raise ValueError(
            f"valid_path={valid_path} and valid_split={valid_split} both say what to validate on; give one of them"
        )
    records = {"train": [open_records(path, fields=fields) for path in paths]}
    if valid_path:
        records["val"] = [open_records(valid_path, fields=fields)]
    elif valid_split:
        records["val"] = [source.split(valid_split) for source in records["train"]]
    if test_path:
        records["test"] = [open_records(test_path, fields=fields)]
    for name in records.keys() - {"train"}:
        for train in records["train"]:
            for source in records[name]:
                _refuse_overlap(train.path, source.path, name)
    return records


def all_documents(records: Records, field: str) -> Documents:
    """The text of every record."""
    return _part(records, field, 0, len(records))


def cut_documents(records: Records, field: str, *, fraction: float) -> tuple[Documents, Documents]:
    """Training and validation text: the last `fraction` of the documents, or of the characters of a single document.

    Raises:
      ValueError: the fraction is not between 0 and 1, or leaves one side with nothing.
    """
    check_fraction(fraction)
    if len(records) == 1:
        text = records[0][field]
        check_text(text, records, 0, field)
        cut = int(len(text) * (1 - fraction))
        sides = (text[:cut], text[cut:])
        names = (f"characters :{cut}", f"characters {cut}:")
        parts = [
            Documents(records.path, [side], _key(records, field, name)) for side, name in zip(sides, names, strict=True)
        ]
        if not all(side.strip() for side in sides):
            raise ValueError(
                f"valid_fraction={fraction} of the {len(text)} characters of {records.path} leaves one side without "
                "text; give more text, another fraction, or valid_path"
            )
        return parts[0], parts[1]
    cut = int(len(records) * (1 - fraction))
    if not 0 < cut < len(records):
        raise ValueError(
            f"valid_fraction={fraction} of the {len(records)} documents of {records.path} leaves one side without "
            "documents; give more documents, another fraction, or valid_path"
        )
    return _part(records, field, 0, cut), _part(records, field, cut, len(records))


def random_cut(
    size: int, fraction: float, seed: int, where: str, *, unit: str = "records"
) -> tuple[list[int], list[int]]:
    """The records of training and of validation, a seeded random choice; both in the order of the file."""
    check_fraction(fraction)
    num_valid = round(size * fraction)
    if not 0 < num_valid < size:
        raise ValueError(
            f"valid_fraction={fraction} of the {size} {unit} of {where} leaves one side without rows; give "
            f"more {unit}, another fraction, or valid_path"
        )
    valid = np.zeros(size, bool)
    valid[np.random.default_rng(seed).permutation(size)[:num_valid]] = True
    return np.flatnonzero(~valid).tolist(), np.flatnonzero(valid).tolist()


def random_choice(size: int, number: int, seed: int, where: str) -> list[int]:
    """`number` records of `size`, a seeded random choice in the order of the file."""
    if not 0 < number <= size:
        raise ValueError(f"num_labels={number}: {where} has {size} training rows; use that many or fewer, or 0 for all")
    return np.sort(np.random.default_rng(seed).permutation(size)[:number]).tolist()


def check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise ValueError(
            f"valid_fraction={fraction}; wanted a number between 0 and 1, or give valid_path or valid_split: no run is "
            "without validation"
        )


def check_text(text: Any, records: Records, index: int, field: str) -> None:
    if not isinstance(text, str):
        raise ValueError(
            f"{records.path}, record {index + 1}: field {field!r} is {type(text).__name__}, wanted text; "
            "name another field"
        )


def hash_text(text: str) -> str:
    """64 bits of the SHA-1 of a text, white space and case set aside; "" for a blank text."""
    plain = " ".join(text.lower().split())
    return hashlib.sha1(plain.encode(), usedforsecurity=False).hexdigest()[:16] if plain else ""


def repeats(hashes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Texts that occur more than once: within train, and how many of a later split are in an earlier one as well."""
    distinct = {name: set(values) - {""} for name, values in hashes.items()}
    shared = {}
    for first, second in combinations(hashes, 2):
        shared[f"{first}-{second}"] = sum(value in distinct[first] for value in hashes[second])
    written = sum(value != "" for value in hashes["train"])
    return {"shared_rows": shared, "duplicates_in_train": written - len(distinct["train"])}


def fingerprint(*parts: str) -> str:
    """sha256 over named contents, in order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _refuse_overlap(train_path: str, path: str, name: str) -> None:
    if same_source(train_path, path):
        raise ValueError(
            f"{path} is given for {name} and is in the training data {train_path} too; give other data for "
            f"{name}, or leave it out"
        )


def _part(records: Records, field: str, first: int, last: int) -> Documents:
    for index in range(first, last):
        check_text(records[index][field], records, index, field)
    return Documents(
        records.path, _Field(records, field, first, last), _key(records, field, f"documents {first}:{last}")
    )


def _key(records: Records, field: str, part: str) -> str:
    return fingerprint(records.fingerprint, field, part)
