"""Which records train, which validate and which test; and what is counted of each split and between them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol, Self, TypeVar

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


class Part(Protocol):
    """The records of one split, read; `take` gives those at some places, `what` says which, for the key."""

    @property
    def where(self) -> str: ...

    def __len__(self) -> int: ...

    def take(self, at: Sequence[int], what: str) -> Self: ...


AnyPart = TypeVar("AnyPart", bound=Part)


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
    paths: Sequence[str],
    *,
    fields: tuple[str, ...],
    valid_path: str,
    valid_split: str,
    test_path: str,
    shift_path: str = "",
) -> dict[str, list[Records]]:
    """The records of "train", one for each path, and of "val", "test" and "shift" (a second test set, from elsewhere)
    where a path or a named split gives them.

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
    for name, path in (("test", test_path), ("shift", shift_path)):
        if path:
            records[name] = [open_records(path, fields=fields)]
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


def divide(
    found: Mapping[str, AnyPart], *, strata: Sequence[Any], folds: int, fold: int, valid_fraction: float, seed: int
) -> dict[str, AnyPart]:
    """The parts that paths give, and what is cut from the training part: fold `fold` of `folds` as the test split, then
    a random `valid_fraction` as the validation split where there is none. `strata` as for `deal`.

    Raises:
      ValueError: folds beside a test split, or that cannot be, or a fraction that leaves nothing.
    """
    parts = dict(found)
    if folds or fold:
        if "test" in parts:
            raise ValueError(
                f"folds={folds} cuts a test split from the training data, and {parts['test'].where} is one; leave out "
                "test_path or folds"
            )
        train = parts["train"]
        train_at, test_at = deal(strata, folds, fold, seed, train.where)
        parts["train"] = train.take(train_at, f"without fold {fold} of {folds} by {seed}")
        parts["test"] = train.take(test_at, f"fold {fold} of {folds} by {seed}")
        strata = [strata[index] for index in train_at]
    if "val" not in parts:
        train = parts["train"]
        train_at, valid_at = random_cut(len(train), valid_fraction, seed, train.where, strata=strata)
        parts["train"] = train.take(train_at, f"train of {valid_fraction} by {seed}")
        parts["val"] = train.take(valid_at, f"val of {valid_fraction} by {seed}")
    return {name: parts[name] for name in ("train", "val", "test", "shift") if name in parts}


def deal(strata: Sequence[Any], folds: int, fold: int, seed: int, where: str) -> tuple[list[int], list[int]]:
    """The records outside fold `fold` and those in it, in the order of the file; each is in one of the `folds`.

    The records of each value of `strata` (one a record) are shuffled and dealt out one by one, each value going on
    where the one before stopped: folds, and their shares of each value, differ by one record at most, and fold 0 is the
    largest. The only record of its value is in no fold: without it there would be nothing to learn the value from.

    Raises:
      ValueError: fewer than 2 folds, fewer records than folds, or no such fold.
    """
    rng = np.random.default_rng(seed)
    names = np.array([str(value) for value in strata])
    groups = [rng.permutation(np.flatnonzero(names == name)) for name in np.unique(names)]
    order = np.concatenate([np.zeros(0, int), *(group for group in groups if len(group) > 1)])
    if not 2 <= folds <= len(order):
        several = "" if len(order) == len(strata) else ", without those whose label no other has"
        raise ValueError(f"folds={folds}: {where} has {len(order)} records{several}; use a number from 2 to that")
    if not 0 <= fold < folds:
        raise ValueError(f"fold={fold}: folds={folds} are counted from 0 to {folds - 1}")
    chosen = np.zeros(len(strata), bool)
    chosen[order[fold::folds]] = True
    return np.flatnonzero(~chosen).tolist(), np.flatnonzero(chosen).tolist()


def random_cut(
    size: int, fraction: float, seed: int, where: str, *, unit: str = "records", strata: Sequence[Any] = ()
) -> tuple[list[int], list[int]]:
    """The records of training and of validation, a seeded random choice; both in the order of the file.

    Of each value of `strata` (one a record) the first record stays in training where the choice would leave none.
    """
    check_fraction(fraction)
    valid = np.zeros(size, bool)
    valid[np.random.default_rng(seed).permutation(size)[: round(size * fraction)]] = True
    trained = {strata[index] for index in np.flatnonzero(~valid).tolist()} if strata else set()
    for index in np.flatnonzero(valid).tolist() if strata else ():
        if strata[index] not in trained:
            valid[index] = False
            trained.add(strata[index])
    if not valid.any() or valid.all():
        raise ValueError(
            f"valid_fraction={fraction} of the {size} {unit} of {where} leaves one side without rows; give "
            f"more {unit}, another fraction, or valid_path"
        )
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


def check_slice_fields(names: Sequence[str]) -> None:
    for name in names:
        if name in ("label", "length"):
            raise ValueError(f"slice_fields: scores by label and by length are always there; leave {name!r} out")


def read_fields(records: Records, names: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each of the fields, one a record.

    Raises:
      ValueError: a value that is no text, number or truth value.
    """
    found: dict[str, list[Any]] = {name: [] for name in names}
    for index, record in enumerate(records):
        for name, values in found.items():
            if not isinstance(record[name], str | int | float):
                kind = type(record[name]).__name__
                raise ValueError(
                    f"{records.path}, record {index + 1}: field {name!r} is {kind}, wanted text, a number or a truth "
                    "value; leave it out of slice_fields"
                )
            values.append(record[name])
    return found


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
