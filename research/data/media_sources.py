"""Opens pictures or recordings: folders, an index of files, .npz, .tar and .parquet files, and named sets."""

from __future__ import annotations

import glob
import json
import os
from pathlib import Path

import numpy as np

from research.data import embedded_images
from research.data.decoded import contents_digest, hash_values
from research.data.files import COMPRESSIONS
from research.data.media import SUFFIXES, UNITS, Kind, Media, join, to_columns
from research.data.media_containers import open_parquet, open_tar
from research.data.media_npz import open_npz
from research.data.sources import (
    TfdsRows,
    choose_split,
    named_split,
    open_records,
    take_apart,
    tfds_builder,
    tfds_folder,
)
from research.data.splits import fingerprint

# Sets of pictures that come with the package: of each name, the records of a split. A record is {"image": uint8 array
# [Y X C]}, with any other fields ("label", "name", …).

_CONTAINERS = (".npz", ".tar", ".parquet")
_INDEXES = tuple(form + packed for form in (".jsonl", ".csv", ".json") for packed in ("", *COMPRESSIONS))
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


def open_media(path: str, kind: Kind, *, field: str, file_field: str = "file") -> Media:
    """The contents and rows that `path` names.

    A folder's files are the contents, and the folders right below it their labels; an index (.jsonl, .csv or .json)
    names files in `file_field`, from its own folder on; `field` is the column or the array that holds the contents. A
    glob may name several files of one form. Of named splits (tfds:NAME, embedded:NAME, .npz with x_train) the one in
    brackets is opened, else `train`.

    Raises:
      ValueError: nothing is there, or it is broken or in no form that is read here; the message says where.
    """
    base, split = take_apart(path)
    if path.startswith("embedded:"):
        return _open_embedded(path, kind)
    if path.startswith("tfds:") or tfds_folder(base):
        return _open_tfds(path, kind, field)
    place = Path(path).expanduser()
    if place.is_dir():
        return _open_folder(place, kind, field)
    npz = Path(base).expanduser()
    if split and npz.suffix == ".npz" and npz.is_file():
        return open_npz(npz, kind, field=field, split=split)
    return join([_open_file(file, path, kind, field, file_field) for file in _find_files(path)], path)


def _find_files(path: str) -> list[Path]:
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    files = sorted(file for file in map(Path, glob.glob(str(place), recursive=True)) if file.is_file())
    if not files and glob.has_magic(path):
        raise ValueError(f"{path} matches no file; check the pattern")
    if not files:
        raise ValueError(f"{path} does not exist; give a file, a glob, a folder, embedded:NAME or tfds:NAME")
    return files


def _open_file(file: Path, path: str, kind: Kind, field: str, file_field: str) -> Media:
    name = file.name.lower()
    if name.endswith(".npz"):
        return open_npz(file, kind, field=field)
    if name.endswith(".tar"):
        return open_tar(file, kind)
    if name.endswith(".parquet"):
        return open_parquet(file, kind, field=field)
    if name.endswith(_INDEXES):
        return _open_index(file, kind, file_field)
    raise ValueError(
        f"{file} has no suffix that is read here; wanted a folder of {UNITS[kind]}, "
        f"{', '.join(_CONTAINERS)}, or an index of files (.jsonl, .csv or .json)"
    )


def _open_folder(place: Path, kind: Kind, field: str) -> Media:
    found = sorted(_walk(place), key=lambda file: file.parts)
    files = [file for file in found if file.suffix.lower() in SUFFIXES[kind]]
    if not files:
        others = [file for file in found if file.suffix.lower() in _CONTAINERS and len(file.parts) == 1]
        if len(others) == 1:
            return _open_file(place / others[0], str(place), kind, field, "")
        held = f"{len(others)} files ({', '.join(map(str, others[:3]))}, …)" if others else f"no {UNITS[kind]}"
        raise ValueError(f"{place} is a folder that holds {held}; give a file, a glob, or a folder of {UNITS[kind]}")
    labels = [file.parts[0] if len(file.parts) > 1 else "" for file in files]
    if set(labels) <= _SPLIT_NAMES:
        raise ValueError(
            f"{place} holds splits ({', '.join(sorted(set(labels)))}), not classes; give each split's own folder, the "
            "training one as path"
        )
    names = [file.as_posix() for file in files]
    places = [place / file for file in files]
    return Media(
        where=str(place),
        names=names,
        read=lambda index: places[index].read_bytes(),
        columns={"label": labels} if all(labels) else {},
        contents=np.arange(len(files)),
        digest=lambda: contents_digest(places, names),
        parts=frozenset((str(file.resolve()), "") for file in places),
    )


def _walk(place: Path) -> list[Path]:
    """The files below a folder, from it on, hidden ones left out."""
    found = []
    for folder, below, files in os.walk(place):
        below[:] = [name for name in below if not name.startswith(".")]
        inside = Path(folder).relative_to(place)
        found += [inside / name for name in files if not name.startswith(".")]
    return found


def _open_index(index: Path, kind: Kind, file_field: str) -> Media:
    records = open_records(str(index), fields=(file_field,))
    rows = list(records)
    numbers: dict[str, int] = {}
    contents = np.zeros(len(rows), np.int64)
    for row, record in enumerate(rows):
        name = record[file_field]
        if not isinstance(name, str) or not (index.parent / name).is_file():
            raise ValueError(
                f"{index}, record {row + 1}: {file_field}={name!r} is no file in {index.parent}; remove the record, or "
                "name another file_field"
            )
        contents[row] = numbers.setdefault(name, len(numbers))
    names = list(numbers)
    places = [index.parent / name for name in names]
    return Media(
        where=str(index),
        names=names,
        read=lambda number: places[number].read_bytes(),
        columns=to_columns(rows),
        contents=contents,
        digest=lambda: fingerprint(records.fingerprint, contents_digest(places, names)),
        parts=frozenset((str(file.resolve()), "") for file in places),
    )


def _open_tfds(path: str, kind: Kind, field: str) -> Media:
    if kind == "audio":
        raise ValueError(f"{path}: recordings of tensorflow-datasets are not read here; write them as a folder of .wav")
    import tensorflow_datasets as tfds

    base = take_apart(path)[0]
    builder = tfds_builder(base)
    features, splits = builder.info.features, tuple(sorted(builder.info.splits))
    split = choose_split(path, splits)
    where = f"{base}[{split}]"
    if field not in features or not isinstance(features[field], tfds.features.Image):
        raise ValueError(f"{where}: no picture in the field {field!r}; the fields are: {', '.join(sorted(features))}")
    source = builder.as_data_source(split=split, decoders={field: tfds.decode.SkipDecoding()})
    rows = list(TfdsRows(source, features, where, left_out=(field,)))
    if not rows:
        raise ValueError(f"{where} is empty; name another split")
    _, parts = named_split(path) or ("", set())
    files = sorted(file for file in Path(builder.data_dir).iterdir() if file.is_file())
    return Media(
        where=where,
        names=[f"row {index + 1}" for index in range(len(rows))],
        read=lambda index: source[index][field],
        columns=to_columns(rows),
        contents=np.arange(len(rows)),
        digest=lambda: fingerprint(contents_digest(files, [file.name for file in files]), split),
        parts=frozenset((str(builder.data_dir), name, str(row)) for name, row in parts),
        splits=splits,
    )


def _open_embedded(path: str, kind: Kind) -> Media:
    base = take_apart(path)[0]
    name = base.removeprefix("embedded:")
    if kind != "image":
        raise ValueError(f"{base}: no {UNITS[kind]} come with the package; give a file, a glob or a folder")
    splits = embedded_images.splits(name)
    split = choose_split(path, splits)
    records = list(embedded_images.records(name, split))
    columns = to_columns([{key: value for key, value in record.items() if key != "image"} for record in records])

    def digest() -> str:
        pictures = [hash_values(record["image"]) + str(record["image"].shape) for record in records]
        return fingerprint(*pictures, json.dumps(columns, sort_keys=True))

    return Media(
        where=f"{base}[{split}]",
        names=[f"row {index + 1}" for index in range(len(records))],
        read=lambda index: records[index]["image"],
        columns=columns,
        contents=np.arange(len(records)),
        digest=digest,
        parts=frozenset({(base, split)}),
        splits=splits,
    )
