"""Records from files, from prepared tensorflow-datasets and from the embedded data, all under one interface.

A path is a file, a glob, a folder of files, `embedded:NAME`, `tfds:NAME`, or the folder of a prepared tfds data set;
the last three may end in a named split: `embedded:corpus[train]`, `tfds:ag_news_subset[train[:90%]]`.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.data.files import Part, Record, digest, encodable, file_part, find_files, first_line, plain

_HELD_BYTES = 2 << 30  # decoded text kept in memory; past it, the file read longest ago is dropped and parsed again
_NAMED = re.compile(r"(?P<base>[^\[\]]+?)(?:\[(?P<split>.+)\])?")


class Records(Sequence[Record]):
    """Rows of a source in a fixed order (files by name), each a dict of all its fields.

    `files` names the parts, `splits` the named splits that `split` can open (files have none).
    """

    def __init__(
        self,
        path: str,
        parts: Sequence[Part],
        *,
        fields: tuple[str, ...],
        splits: tuple[str, ...] = (),
    ):
        self.path, self.fields, self.splits = path, fields, splits
        self.files = [part.name for part in parts]
        self._parts = parts
        self._held: dict[int, tuple[Sequence[Record], int]] = {}  # the least recently used first
        counts = [self._check(index) for index in range(len(parts))]
        self._ends = list(itertools.accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        index %= len(self)
        part = bisect.bisect_right(self._ends, index)
        return self._rows(part)[index - (self._ends[part - 1] if part else 0)]

    def __iter__(self) -> Iterator[Record]:
        for part in range(len(self._parts)):
            yield from self._rows(part)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the contents, in order; the names and places of the files do not enter."""
        return hashlib.sha256("\n".join(part.digest() for part in self._parts).encode()).hexdigest()

    def split(self, name: str) -> Records:
        """Another named split of the same source.

        Raises:
          ValueError: files have no named splits, or no split has this name.
        """
        if not self.splits:
            raise ValueError(
                f"{self.path} has no named splits (asked for {name!r}); give the path of that split's own files"
            )
        return open_records(f"{_base(self.path)}[{name}]", fields=self.fields)

    def _rows(self, part: int) -> Sequence[Record]:
        held = self._held.pop(part, None) or self._parts[part].read()
        self._held[part] = held
        while len(self._held) > 1 and sum(size for _, size in self._held.values()) > _HELD_BYTES:
            del self._held[next(iter(self._held))]
        return held[0]

    def _check(self, part: int) -> int:
        """The number of rows, after a look at every row's fields."""
        rows, source = self._rows(part), self._parts[part]
        blank = True
        for index, row in enumerate(rows):
            for field in self.fields:
                value = row.get(field)
                if value is None:
                    present = ", ".join(sorted(key for key in row if row[key] is not None)) or "none"
                    raise ValueError(
                        f"{source.name}, {source.line(index)}: no field {field!r}; the fields present are: {present}"
                    )
                if isinstance(value, str):
                    blank = blank and not value.strip()
                    if not value.isascii():
                        encodable(value, f"{source.name}, {source.line(index)}, field {field!r}")
                else:
                    blank = False
        if not len(rows) or (blank and self.fields):
            wanted = f"text in {' or '.join(map(repr, self.fields))}" if self.fields else "rows"
            raise ValueError(f"{source.name} is empty: no row holds any {wanted}; remove it or give another path")
        return len(rows)


def open_records(path: str, *, fields: tuple[str, ...]) -> Records:
    """Opens the rows that `path` names, each of which must have all of `fields`.

    A path of several named splits with none in brackets opens its `train` split.

    Raises:
      ValueError: nothing is there, a file is empty, broken or not UTF-8, a row lacks a field; the message says where.
    """
    path = "embedded:corpus" if path == "embedded" else str(path)
    if path.startswith("embedded:"):
        return _open_embedded(path, fields)
    if path.startswith("tfds:") or tfds_folder(_base(path)):
        return _open_tfds(path, fields)
    return Records(path, [file_part(file) for file in find_files(path)], fields=fields)


def same_source(a: str, b: str) -> bool:
    """True where two paths share a file (by place or by contents), or rows of one named split."""
    named_a, named_b = named_split(a), named_split(b)
    if named_a is not None or named_b is not None:
        if named_a is None or named_b is None or named_a[0] != named_b[0]:
            return False
        return bool(named_a[1] & named_b[1])
    files_a, files_b = find_files(a), find_files(b)
    if {file.resolve() for file in files_a} & {file.resolve() for file in files_b}:
        return True
    sizes = {file.stat().st_size for file in files_a} & {file.stat().st_size for file in files_b}
    digests = [{digest(file) for file in files if file.stat().st_size in sizes} for files in (files_a, files_b)]
    return bool(digests[0] & digests[1])


# Named splits.


def _base(path: str) -> str:
    return take_apart(path)[0]


def take_apart(path: str) -> tuple[str, str]:
    """`tfds:NAME[SPLIT]` as ("tfds:NAME", "SPLIT"); the split is "" where none is named."""
    match = _NAMED.fullmatch(path)
    return (match["base"], match["split"] or "") if match else (path, "")


def choose_split(path: str, splits: Sequence[str]) -> str:
    """The split in brackets, else `train`; a name that is not there is the user's mistake."""
    split = take_apart(path)[1] or "train"
    for name in (part.partition("[")[0].strip() for part in split.split("+")):
        if name not in splits and name != "all":
            raise ValueError(f"{path} has no split {name!r}; the splits are: {', '.join(splits)}")
    return split


def named_split(path: str) -> tuple[str, set[tuple[str, int]]] | None:
    """The source that holds named splits, and the rows as (split, row) pairs, or None for files."""
    path = "embedded:corpus" if path == "embedded" else str(path)
    if path.startswith("embedded:"):
        from research.data import embedded

        name = _base(path).removeprefix("embedded:")
        return _base(path), {(choose_split(path, embedded.splits(name)), 0)}
    if not (path.startswith("tfds:") or tfds_folder(_base(path))):
        return None
    import tensorflow_datasets as tfds

    builder = tfds_builder(_base(path))
    split = choose_split(path, sorted(builder.info.splits))
    rows = set()
    for piece in tfds.core.ReadInstruction.from_spec(split).to_absolute(builder.info.splits):
        last = builder.info.splits[piece.splitname].num_examples if piece.to is None else piece.to
        rows.update((piece.splitname, row) for row in range(piece.from_ or 0, last))
    return str(builder.data_dir), rows


def _open_embedded(path: str, fields: tuple[str, ...]) -> Records:
    from research.data import embedded

    base = _base(path)
    name = base.removeprefix("embedded:")
    splits = tuple(embedded.splits(name))
    split = choose_split(path, splits)
    rows = embedded.records(name, split)
    part = Part(f"{base}[{split}]", lambda: (rows, 0), lambda row: f"row {row + 1}", lambda: _digest_rows(rows))
    return Records(path, [part], fields=fields, splits=splits)


def tfds_folder(path: str) -> Path | None:
    """The version folder of a prepared tfds data set: `path` itself, or the only version in it."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return None
    found = [info.parent for info in (*folder.glob("dataset_info.json"), *folder.glob("*/dataset_info.json"))]
    return found[0] if len(found) == 1 else None


def _open_tfds(path: str, fields: tuple[str, ...]) -> Records:
    builder = tfds_builder(_base(path))
    splits = tuple(sorted(builder.info.splits))
    split = choose_split(path, splits)
    name = f"{_base(path)}[{split}]"
    try:
        source = builder.as_data_source(split=split)
    except (NotImplementedError, ValueError) as error:
        raise ValueError(
            f"{name} cannot be read at random ({first_line(error)}); prepare it with file_format='array_record'"
        ) from error
    rows = TfdsRows(source, builder.info.features, name)
    part = Part(name, lambda: (rows, 0), lambda row: f"row {row + 1}", lambda: _digest_rows(rows))
    return Records(path, [part], fields=fields, splits=splits)


def tfds_builder(base: str) -> Any:
    """A builder whose data are on disk, downloaded and prepared now where they are not (this needs no TensorFlow)."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    folder = tfds_folder(base)
    if folder is not None:
        return tfds.builder_from_directory(folder)
    name = base.removeprefix("tfds:")
    try:
        builder = tfds.builder(name, try_gcs=False, file_format="array_record")
        if not builder.is_prepared():
            builder.download_and_prepare()
    except DatasetNotFoundError as error:
        raise ValueError(
            f"{base}: tensorflow-datasets knows no data set {name!r}; check its catalog for the name"
        ) from error
    except (OSError, ImportError, ValueError, tfds.download.DownloadError) as error:
        raise ValueError(
            f"{base} is not prepared and cannot be prepared here ({type(error).__name__}: {first_line(error)}); "
            "prepare it where there is a network and give the path of its folder"
        ) from error
    return builder


@dataclass(frozen=True)
class TfdsRows(Sequence[Record]):
    """A tfds data source with text for bytes, plain numbers for numpy's, and class names for class numbers.

    The fields `left_out` are not there.
    """

    source: Any
    features: Any
    name: str
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self):
            raise IndexError(index)
        kept = {field: value for field, value in self.source[index].items() if field not in self.left_out}
        row = plain(kept, lambda field: f"{self.name}, row {index + 1}, field {field!r}")
        for field, value in row.items():
            feature = self.features[field]
            # A class number of -1 means that the row has no label.
            if hasattr(feature, "int2str") and isinstance(value, int) and 0 <= value < feature.num_classes:
                row[field] = feature.int2str(value)
        return row


def _digest_rows(rows: Sequence[Record]) -> str:
    total = hashlib.sha256()
    for index in range(len(rows)):
        total.update(json.dumps(rows[index], sort_keys=True, default=repr).encode() + b"\n")
    return total.hexdigest()
