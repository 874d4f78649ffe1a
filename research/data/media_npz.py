"""Pictures or recordings in an .npz file, with their labels and what a .jsonl file beside it tells of them.

Contents are `data` and `offsets` (encoded, one after the other), or plain arrays: `images` [N Y X C]; `audio` [N T], or
[T] with `offsets`; `x_train`, `y_train`, `x_test`, `y_test` are named splits. Arrays of N values are the rows' fields
(`labels` and `y` are the field `label`), and `speaker_names` holds the names of the numbers in `speaker`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from research.data.decoded import contents_digest
from research.data.files import COMPRESSIONS, first_line
from research.data.media import UNITS, Kind, Media, read_late, to_columns
from research.data.sources import open_records
from research.data.splits import fingerprint

_RENAMED = {"labels": "label", "y": "label"}
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class _Archive:
    """Arrays by name: their shapes, read from the headers, and the arrays, read when asked for."""

    file: Path
    shapes: Mapping[str, tuple[int, ...]]

    def load(self, key: str) -> np.ndarray:
        try:
            with np.load(self.file, allow_pickle=False) as archive:
                return archive[key]
        except _UNREADABLE as error:
            raise ValueError(
                f"{self.file}: the array {key!r} cannot be read ({first_line(error)}); save it as numbers or text"
            ) from error


@dataclass(frozen=True)
class _Contents:
    """The contents of an archive: how many, how to read one, and which arrays are taken up by them."""

    count: int
    read: Callable[[int], Any]
    used: tuple[str, ...]


def open_npz(file: Path, kind: Kind, *, field: str, split: str = "") -> Media:
    """The contents of `file`; `field` names plain arrays (`images` where it is "image").

    Raises:
      ValueError: no such layout, a broken file, arrays of unequal lengths, or a split that is not there.
    """
    archive = _Archive(file, _shapes(file))
    splits = tuple(key.removeprefix("x_") for key in archive.shapes if key.startswith("x_"))
    if splits:
        split = split or "train"
        if split not in splits:
            raise ValueError(f"{file} has no split {split!r}; the splits are: {', '.join(splits)}")
        found = _plain_arrays(archive, f"x_{split}", kind)
        columns = _columns(archive, {"y": f"y_{split}"} if f"y_{split}" in archive.shapes else {}, found.count)
    elif split:
        raise ValueError(f"{file} has no named splits (asked for {split!r}); give the path of that split's own file")
    else:
        found = _contents(archive, kind, field)
        own = {key: key for key in archive.shapes if key not in found.used}
        columns = _columns(archive, own, found.count)
    if not found.count:
        raise ValueError(f"{file} is empty: it holds no {UNITS[kind]}; give another path")
    names = columns.pop("names", None) or [f"row {index + 1}" for index in range(found.count)]
    if isinstance(names[0], str) and "label" in columns:
        columns["label"] = _folder_names(names, columns["label"])
    beside = None if splits else _beside(file)
    if beside is not None:
        columns |= _told(beside, file, found.count, kind)
    files = [file] if beside is None else [file, beside]
    return Media(
        where=f"{file}[{split}]" if split else str(file),
        names=names,
        read=found.read,
        columns=columns,
        contents=np.arange(found.count),
        digest=lambda: fingerprint(contents_digest(files, ["", "told"][: len(files)]), split),
        parts=frozenset({(str(file.resolve()), split)}),
        splits=splits,
    )


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        with zipfile.ZipFile(file) as archive:
            shapes = {}
            for name in archive.namelist():
                with archive.open(name) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else _read_later_header
                    shapes[name.removesuffix(".npy")] = read(stream)[0]
            return shapes
    except _UNREADABLE as error:
        raise ValueError(f"{file} is not a readable .npz file ({first_line(error)}); save it again") from error


def _read_later_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    return np.lib.format.read_array_header_2_0(stream)


def _contents(archive: _Archive, kind: Kind, field: str) -> _Contents:
    shapes, unit = archive.shapes, UNITS[kind]
    if "data" in shapes and "offsets" in shapes:
        pieces = _pieces(archive, "data")
        return _Contents(len(pieces), lambda index: pieces[index].tobytes(), ("data", "offsets"))
    name = field if field in shapes else f"{field}s"
    if name in shapes and kind == "audio" and "offsets" in shapes:
        pieces, rate = _pieces(archive, name), _rate(archive)
        return _Contents(len(pieces), lambda index: (pieces[index], rate), (name, "offsets", "sample_rate"))
    if name in shapes:
        return _plain_arrays(archive, name, kind)
    wanted = f"data and offsets, {field if kind == 'audio' else name}, or x_train"
    raise ValueError(
        f"{archive.file} holds no {unit} that are found: wanted the arrays {wanted}; there are: {', '.join(shapes)}"
    )


def _plain_arrays(archive: _Archive, name: str, kind: Kind) -> _Contents:
    """One array along the first axis for each content."""
    shape = archive.shapes[name]
    if len(shape) not in ((3, 4) if kind == "image" else (2, 3)):
        wanted = "[N Y X] or [N Y X C]" if kind == "image" else "[N T] or [N T channels]"
        raise ValueError(f"{archive.file}: the array {name!r} has the shape {shape}; wanted {wanted}")
    values = read_late(lambda: archive.load(name))
    if kind == "image":
        return _Contents(shape[0], lambda index: values()[index], (name,))
    rate = _rate(archive)
    return _Contents(shape[0], lambda index: (values()[index], rate), (name, "sample_rate"))


class _Pieces(Sequence[np.ndarray]):
    """What lies between offsets of a flat array, which is loaded when the first is asked for."""

    def __init__(self, archive: _Archive, name: str, offsets: np.ndarray) -> None:
        self._offsets, self._values = offsets, read_late(lambda: archive.load(name))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        return self._values()[self._offsets[index] : self._offsets[index + 1]]


def _pieces(archive: _Archive, name: str) -> _Pieces:
    offsets, shape = archive.load("offsets"), archive.shapes[name]
    sorted_up = offsets.ndim == 1 and len(offsets) > 0 and offsets.dtype.kind in "iu" and bool(offsets[0] == 0)
    if len(shape) != 1 or not sorted_up or (np.diff(offsets.astype(np.int64)) < 0).any() or offsets[-1] != shape[0]:
        raise ValueError(
            f"{archive.file}: offsets do not fit {name!r} of shape {shape}; wanted N + 1 whole numbers from 0, rising, "
            "the last of them its length"
        )
    return _Pieces(archive, name, offsets.astype(np.int64))


def _rate(archive: _Archive) -> int:
    if "sample_rate" not in archive.shapes or archive.shapes["sample_rate"] not in ((), (1,)):
        raise ValueError(f"{archive.file}: samples without one sample_rate; save it beside them, in Hz")
    return int(archive.load("sample_rate").reshape(()))


def _columns(archive: _Archive, keys: Mapping[str, str], count: int) -> dict[str, Any]:
    """The fields of the rows, from arrays by their names."""
    columns: dict[str, Any] = {}
    for field, key in keys.items():
        shape = archive.shapes[key]
        told = field in ("names", *_RENAMED, *_RENAMED.values())
        if shape not in ((count,), (count, 1)):
            if told:
                raise ValueError(
                    f"{archive.file}: {key!r} has the shape {shape} for {count} rows; wanted one value each"
                )
            continue
        values = archive.load(key).reshape(count)
        values = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
        columns[_RENAMED.get(field, field)] = values.tolist()
    for field in [field for field in columns if f"{field}_names" in archive.shapes]:
        names = archive.load(f"{field}_names").astype(str).tolist()
        wrong = [value for value in columns[field] if not (isinstance(value, int) and 0 <= value < len(names))]
        if wrong:
            raise ValueError(
                f"{archive.file}: {field} is {wrong[0]!r} in a row, and {field}_names has {len(names)} names"
            )
        columns[field] = [names[value] for value in columns[field]]
    return columns


def _folder_names(names: Sequence[str], labels: Sequence[Any]) -> Sequence[Any]:
    """The folders of names like "cat/7.jpg" for numbered labels, where there is one of them for each number."""
    folders = [name.rpartition("/")[0] for name in names]
    pairs = set(zip(folders, labels, strict=True))
    one_to_one = len(pairs) == len(set(folders)) == len(set(labels))
    return folders if all(folders) and one_to_one and isinstance(labels[0], int) else labels


def _beside(file: Path) -> Path | None:
    """NAME.jsonl beside NAME.npz, or meta.jsonl where no other .npz file is there: plain or compressed."""
    stems = [file.stem] + (["meta"] if len(list(file.parent.glob("*.npz"))) == 1 else [])
    places = [file.with_name(f"{stem}.jsonl{packed}") for stem in stems for packed in ("", *COMPRESSIONS)]
    return next((place for place in places if place.is_file()), None)


def _told(beside: Path, file: Path, count: int, kind: Kind) -> dict[str, list[Any]]:
    records = list(open_records(str(beside), fields=()))
    if len(records) < count:
        raise ValueError(
            f"{beside} has {len(records)} rows for the {count} {UNITS[kind]} of {file.name}: nothing is told of row "
            f"{len(records) + 1}; add it"
        )
    if len(records) > count:
        raise ValueError(
            f"{beside}, row {count + 1} tells of nothing: {file.name} holds {count} {UNITS[kind]}; remove it"
        )
    return to_columns(records)
