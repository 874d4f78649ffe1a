"""Which pictures or recordings train, validate and test: by paths, named splits, and the values of fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from research.batch import Dataset, Example, Source, Spec, Split
from research.build import nearest
from research.data.classes import Label, check_label_names, choose_labels, class_of, find_classes
from research.data.decoded import Decoded
from research.data.media import Media
from research.data.rows import row_at
from research.data.splits import check_slice_fields, divide, fingerprint, random_choice, repeats

_CONDITION = re.compile(r"(?P<field>[^=!]+)(?P<sign>!?=)(?P<values>.*)", re.DOTALL)
_LISTED = 50  # values of a field that a message lists


@dataclass(frozen=True)
class MediaPart:
    """The rows of one split, decoded."""

    media: Media
    decoded: Decoded
    rows: Sequence[int]
    key: str
    num_skipped: int = 0
    label_field: str = ""

    @property
    def where(self) -> str:
        return self.media.where

    @property
    def contents(self) -> np.ndarray:
        """int64 [N], of each row its content."""
        return self.media.contents[np.asarray(self.rows, np.int64)]

    @property
    def labels(self) -> list[Any]:
        column = self.media.columns[self.label_field]
        return [column[row] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, at: Sequence[int], what: str) -> MediaPart:
        """The rows at `at`; `what` tells this choice from others."""
        return replace(self, rows=[self.rows[index] for index in at], key=fingerprint(self.key, what))

    def fields(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """The values of each field, one a row.

        Raises:
          ValueError: no such field, or a value that is no text, number or truth value.
        """
        check_slice_fields(names)
        found = {}
        for name in names:
            column = self.media.column(name)
            found[name] = [column[row] for row in self.rows]
            for row, value in zip(self.rows, found[name], strict=True):
                if not isinstance(value, str | int | float):
                    raise ValueError(
                        f"{self.media.place(row)}: field {name!r} is {type(value).__name__}, wanted text, a number or "
                        "a truth value; leave it out of slice_fields"
                    )
        return found

    def split(self, examples: Source, **more: Any) -> Split:
        """The split of these rows: names for texts, and the hashes of what was decoded."""
        contents = self.contents.tolist()
        names = [self.media.names[index] for index in contents]
        hashes = [self.decoded.hashes[index] for index in contents]
        return Split(examples, **{"texts": names, "hashes": hashes, **more})


@dataclass(frozen=True)
class MediaRows:
    """Rows of a decoded content under `key`, and of `columns`."""

    key: str
    values: np.ndarray  # [M …]
    contents: np.ndarray  # int64 [N], which of the M each row shows
    columns: Mapping[str, np.ndarray]  # [N …]

    def __len__(self) -> int:
        return len(self.contents)

    def __getitem__(self, index: int) -> Example:
        return row_at(self, index)

    def rows(self, indices: np.ndarray) -> Example:
        """The rows at `indices`, stacked."""
        found = {self.key: self.values[self.contents[indices]]}
        return found | {name: column[indices] for name, column in self.columns.items()}


@dataclass(frozen=True, kw_only=True)
class Selections:
    """What paths, named splits and conditions choose for each split; the arguments of `image_classification`."""

    path: str
    select: Sequence[str]
    valid_path: str
    valid_split: str
    valid_select: Sequence[str]
    test_path: str
    test_select: Sequence[str]
    shift_path: str
    shift_select: Sequence[str]

    def open(
        self, open_one: Callable[[str], Media], decode: Callable[[Media], Decoded], *, skip_undecodable: bool
    ) -> dict[str, MediaPart]:
        """The rows of "train" and of the other splits that are given, decoded.

        Raises:
          ValueError: validation data given twice, data given for training and evaluation, a condition that nothing
            meets, or contents that cannot be decoded where these are not to be skipped.
        """
        if self.valid_path and self.valid_split:
            raise ValueError(
                f"valid_path={self.valid_path} and valid_split={self.valid_split} both say what to validate on; give "
                "one of them"
            )
        train = open_one(self.path)
        media = {"train": train}
        chosen = {"train": select_rows(train, self.select, "select")}
        others = {
            "val": (self.valid_path or self._named(train), self.valid_select, "valid_select"),
            "test": (self.test_path, self.test_select, "test_select"),
            "shift": (self.shift_path, self.shift_select, "shift_select"),
        }
        for name, (path, conditions, argument) in others.items():
            if path:
                media[name] = open_one(path)
                _refuse_overlap(train, media[name], name)
            elif conditions:
                media[name] = train
            else:
                continue
            chosen[name] = select_rows(media[name], conditions, argument)
            if not path:
                _refuse_shared(train, chosen, name, argument)
        decoded = {id(source): decode(source) for source in media.values()}
        parts = {}
        for name, source in media.items():
            key = fingerprint(source.fingerprint, *map(str, chosen[name]))
            part = MediaPart(source, decoded[id(source)], chosen[name], key)
            parts[name] = _drop_undecodable(part, skip_undecodable)
        return parts

    def _named(self, train: Media) -> str:
        if not self.valid_split:
            return ""
        if not train.splits:
            raise ValueError(
                f"{self.path} has no named splits (asked for {self.valid_split!r}); give the path of that split's own "
                "files, or choose rows by valid_select"
            )
        base = re.sub(r"\[.+\]$", "", self.path)
        return f"{base}[{self.valid_split}]"


def select_rows(media: Media, conditions: Sequence[str], argument: str) -> list[int]:
    """The rows that meet all conditions, each `field=value`, `field=one|other` or `field!=value`.

    Numbers and truth values are compared as they are written (true, false); a list meets a condition where one of its
    values does; a row without the field has the value "".

    Raises:
      ValueError: no such condition or field, a value that no row has, or no row left.
    """
    kept = np.ones(len(media), bool)
    for condition in conditions:
        match = _CONDITION.fullmatch(condition)
        if not match:
            raise ValueError(f"{argument}: {condition!r} is no condition; write field=value or field!=value")
        wanted = set(match["values"].split("|"))
        found = [_written(value) for value in media.column(match["field"].strip())]
        present = set().union(*found)
        for value in sorted(wanted - present):
            few = nearest(value, present) if len(present) <= _LISTED else f"there are {len(present)} others"
            raise ValueError(f"{argument}: {condition!r}: no row of {media.where} has the value {value!r}; {few}")
        meets = np.array([not wanted.isdisjoint(values) for values in found])
        kept &= meets if match["sign"] == "=" else ~meets
    if not kept.any():
        raise ValueError(f"{argument}={tuple(conditions)} leaves no row of {media.where}; drop a condition")
    return np.flatnonzero(kept).tolist()


def media_dataset(
    opened: Mapping[str, MediaPart],
    tell: Callable[[MediaPart], tuple[dict[str, np.ndarray], dict[str, Any]]],
    *,
    key: str,
    label_field: str,
    label_names: tuple[str, ...],
    valid_fraction: float,
    folds: int,
    fold: int,
    slice_fields: tuple[str, ...],
    seed: int,
    num_labels: int,
    labels_seed: int,
    **known: Any,
) -> Dataset:
    """The data set of decoded contents (`key`) and their labels; without `label_field` there are none.

    `tell` gives what else a split's rows hold, and what is counted of it; `known` are facts of `Spec`, all of which the
    decoding depends on. The other arguments are those of `image_classification`.
    """
    parts, classes = dict(opened), list[Label]()
    if label_field:
        parts = _read_labels(parts, label_field)
    strata = parts["train"].labels if label_field else [""] * len(parts["train"])
    parts = divide(parts, strata=strata, folds=folds, fold=fold, valid_fraction=valid_fraction, seed=seed)
    if label_field:
        classes = find_classes(parts)
        check_label_names(label_names, classes)
    if num_labels and label_field:
        parts["train"] = choose_labels(parts["train"], num_labels, labels_seed)
    elif num_labels:
        train = parts["train"]
        chosen = random_choice(len(train), num_labels, labels_seed, train.where)
        parts["train"] = train.take(chosen, f"{num_labels} by {labels_seed}")
    number = {label: index for index, label in enumerate(classes)}
    splits, counts = {}, {}
    for name, part in parts.items():
        columns, counted = tell(part)
        counts[name] = {"rows": len(part), **counted}
        labels = [number[label] for label in part.labels] if label_field else []
        if label_field:
            columns = columns | {"label": np.array(labels, np.int32)}
            counts[name]["labels"] = {str(label): count for label, count in sorted(Counter(part.labels).items())}
        examples = MediaRows(key, part.decoded.values, part.contents, columns)
        splits[name] = part.split(examples, labels=labels, fields=part.fields(slice_fields))
    train_labels = splits["train"].labels
    return Dataset(
        splits=splits,
        spec=Spec(
            label_names=label_names or tuple(map(str, classes)),
            label_counts=tuple(train_labels.count(index) for index in range(len(classes))),
            **known,
        ),
        facts={
            **counts,
            "skipped": {name: part.num_skipped for name, part in opened.items()},
            **repeats({name: split.hashes for name, split in splits.items()}),
            "fingerprint": fingerprint(
                repr(sorted(known.items())), label_field, *(f"{name} {part.key}" for name, part in parts.items())
            ),
        },
    )


def _read_labels(found: Mapping[str, MediaPart], label_field: str) -> dict[str, MediaPart]:
    """The parts with their labels, each a whole number or a name.

    Raises:
      ValueError: a row without a label, or labels of two types.
    """
    parts = {name: replace(part, label_field=label_field) for name, part in found.items()}
    for part in parts.values():
        if label_field not in part.media.columns:
            raise ValueError(
                f"{part.where}: no field {label_field!r} (a folder of one folder a class has the field 'label'); the "
                f"fields present are: {', '.join(sorted(part.media.columns)) or 'none'}"
            )
        first = part.labels[0]
        for row, label in zip(part.rows, part.labels, strict=True):
            class_of(label, label_field, part.media.place(row))
            if type(label) is not type(first):
                raise ValueError(
                    f"{part.media.place(row)}: {label_field}={label!r} is {type(label).__name__}, the labels before it "
                    f"{type(first).__name__}; write all of them the same way"
                )
    return parts


def _written(value: Any) -> set[str]:
    values = value if isinstance(value, list) else ["" if value is None else value]
    return {str(each).lower() if isinstance(each, bool) else str(each) for each in values}


def _drop_undecodable(part: MediaPart, skip: bool) -> MediaPart:
    problems = part.decoded.problems
    if not problems:
        return part
    broken = [row for row in part.rows if int(part.media.contents[row]) in problems]
    if broken and not skip:
        reason = problems[int(part.media.contents[broken[0]])]
        more = f" ({len(broken) - 1} more cannot either)" if len(broken) > 1 else ""
        raise ValueError(
            f"{part.media.place(broken[0])} cannot be decoded: {reason}{more}; mend or remove it, or set "
            "skip_undecodable=True to leave such rows out"
        )
    kept = sorted(set(part.rows) - set(broken))
    if not kept:
        raise ValueError(f"{part.where}: none of the {len(part)} rows can be decoded; give other data")
    return replace(part, rows=kept, num_skipped=len(broken), key=fingerprint(part.key, f"without {broken}"))


def _refuse_overlap(train: Media, other: Media, name: str) -> None:
    if train.parts & other.parts or train.fingerprint == other.fingerprint:
        raise ValueError(
            f"{other.where} is given for {name} and is in the training data {train.where} too; give other data for "
            f"{name}, or leave the path out and choose rows of the training data by conditions"
        )


def _refuse_shared(media: Media, chosen: Mapping[str, Sequence[int]], name: str, argument: str) -> None:
    trained = set(media.contents[np.asarray(chosen["train"])].tolist())
    shared = [row for row in chosen[name] if int(media.contents[row]) in trained]
    if shared:
        raise ValueError(
            f"{media.place(shared[0])} is chosen by both select and {argument} ({len(shared)} rows are); make select "
            f"leave out what {argument} takes"
        )
