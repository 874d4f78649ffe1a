"""Pictures or recordings in .tar shards (WebDataset's layout) and in .parquet files (the Hugging Face layout)."""

from __future__ import annotations

import functools
import json
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from research.data.decoded import contents_digest
from research.data.files import Record, decode, first_line
from research.data.media import SUFFIXES, UNITS, Kind, Media, to_columns

_HELD_GROUPS = 8  # row groups of a parquet file in memory at a time

Member = tuple[int, int]  # where its bytes begin in the shard, and how many there are


def open_tar(file: Path, kind: Kind) -> Media:
    """Members of one name are a row: `7.jpg` with `7.cls` (the label), `7.txt` (the text) and `7.json` (any fields).

    Raises:
      ValueError: a broken or compressed shard, a row without its one picture (or recording), or fields that are broken.
    """
    groups = _members(file)
    names, members, records = [], [], []
    for name, group in groups.items():
        found = [extension for extension in group if f".{extension}" in SUFFIXES[kind]]
        if len(found) != 1:
            raise ValueError(
                f"{file}, {name}: {len(found) or 'no'} {UNITS[kind]} beside {', '.join(sorted(group))}; wanted one of "
                f"{', '.join(SUFFIXES[kind])} for each name"
            )
        names.append(f"{name}.{found[0]}")
        members.append(group[found[0]])
        records.append(_record(file, name, group))
    if not names:
        raise ValueError(f"{file} is empty: it holds no {UNITS[kind]}; remove it or give another path")
    return Media(
        where=str(file),
        names=names,
        read=lambda index: _read_member(file, members[index]),
        columns=to_columns(records),
        contents=np.arange(len(names)),
        digest=lambda: contents_digest([file], [""]),
        parts=frozenset({(str(file.resolve()), "")}),
    )


def _members(file: Path) -> dict[str, dict[str, Member]]:
    """The members of each name, by what stands behind the first point of their file's name."""
    groups: dict[str, dict[str, Member]] = {}
    end = 0
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                folder, _, base = member.name.rpartition("/")
                if not member.isfile() or base.startswith("."):
                    continue
                stem, _, extension = base.partition(".")
                group = groups.setdefault(f"{folder}/{stem}" if folder else stem, {})
                if extension.lower() in group:
                    raise ValueError(f"{file} holds {member.name} twice; write the shard again")
                group[extension.lower()] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"{file} is not a readable .tar file ({first_line(error)}); write it again, without compression"
        ) from error
    # The library takes a header that is cut off for the end: an archive that is whole ends in blocks of zeros.
    if _read_member(file, (end, tarfile.BLOCKSIZE)).strip(b"\0"):
        raise ValueError(f"{file} has no end behind its last member; write it again")
    return groups


def _record(file: Path, name: str, group: dict[str, Member]) -> Record:
    def text(extension: str) -> str:
        return decode(_read_member(file, group[extension]), f"{file}, {name}.{extension}").strip()

    record: Record = {}
    if "json" in group:
        try:
            record = json.loads(text("json"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, {name}.json: not JSON ({error.msg}); mend it") from error
        if not isinstance(record, dict):
            raise ValueError(f"{file}, {name}.json: {type(record).__name__}, wanted one JSON object")
    if "cls" in group:
        label = text("cls")
        record["label"] = int(label) if label.removeprefix("-").isdecimal() else label
    if "txt" in group:
        record["text"] = text("txt")
    return record


def _read_member(file: Path, member: Member) -> bytes:
    first, size = member
    with file.open("rb") as stream:
        stream.seek(first)
        content = stream.read(size)
    if len(content) < size:
        raise ValueError(
            f"{file} ends at byte {first + len(content)}, wanted {size - len(content)} more; write it again"
        )
    return content


def open_parquet(file: Path, kind: Kind, *, field: str) -> Media:
    """Rows whose column `field` holds encoded bytes, alone or as {bytes, path}; numbers of classes become their names.

    Raises:
      ValueError: a broken file, or a column that is not there or holds something else.
    """
    import pyarrow as pa
    import pyarrow.parquet

    try:
        source = pyarrow.parquet.ParquetFile(file)
        schema = source.schema_arrow
        column = _bytes_column(schema, field, file)
        plain = [name for name in schema.names if name != field and _is_plain(schema.field(name).type)]
        columns = source.read(columns=plain).to_pydict()
        names = _paths(source, schema, field)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is not a readable parquet file ({first_line(error)}); write it again") from error
    if not names:
        raise ValueError(f"{file} is empty: it holds no {UNITS[kind]}; remove it or give another path")
    for name, classes in _class_names(schema).items():
        if name in columns:
            columns[name] = [_class_name(value, classes) for value in columns[name]]
    return Media(
        where=str(file),
        names=names,
        read=_reader(source, column),
        columns=columns,
        contents=np.arange(len(names)),
        digest=lambda: contents_digest([file], [""]),
        parts=frozenset({(str(file.resolve()), "")}),
    )


def _bytes_column(schema: Any, field: str, file: Path) -> str:
    """The path of the column of bytes."""
    import pyarrow as pa

    if field not in schema.names:
        raise ValueError(f"{file}: no column {field!r}; the columns are: {', '.join(schema.names)}")
    found = schema.field(field).type
    if pa.types.is_binary(found) or pa.types.is_large_binary(found):
        return field
    if pa.types.is_struct(found) and found.get_field_index("bytes") >= 0:
        return f"{field}.bytes"
    raise ValueError(f"{file}: the column {field!r} holds {found}; wanted encoded bytes, alone or as {{bytes, path}}")


def _is_plain(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_plain(kind.value_type)
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _paths(source: Any, schema: Any, field: str) -> list[str]:
    """What each content is called: its path where the column holds any, else its row."""
    import pyarrow as pa

    count, found = source.metadata.num_rows, schema.field(field).type
    paths: list[Any] = [None] * count
    if pa.types.is_struct(found) and found.get_field_index("path") >= 0:
        paths = [(row or {}).get("path") for row in source.read(columns=[f"{field}.path"])[field].to_pylist()]
    return [path or f"row {index + 1}" for index, path in enumerate(paths)]


def _reader(source: Any, column: str) -> Callable[[int], bytes]:
    """Reads one content; whole row groups are held, the last few of them."""
    ends = np.cumsum([source.metadata.row_group(index).num_rows for index in range(source.num_row_groups)])
    lock = threading.Lock()
    field, _, within = column.partition(".")

    @functools.lru_cache(_HELD_GROUPS)
    def group(index: int) -> Any:
        table = source.read_row_group(index, columns=[column])
        return table.flatten()[column] if within else table[field]

    def read(index: int) -> bytes:
        with lock:
            part = int(np.searchsorted(ends, index, side="right"))
            value = group(part)[index - (int(ends[part - 1]) if part else 0)].as_py()
        return value or b""

    return read


def _class_names(schema: Any) -> dict[str, list[str]]:
    """The names of classes that the Hugging Face library keeps in the file's metadata, by column."""
    kept = (schema.metadata or {}).get(b"huggingface")
    features = json.loads(kept).get("info", {}).get("features", {}) if kept else {}
    return {name: found["names"] for name, found in features.items() if isinstance(found, dict) and "names" in found}


def _class_name(value: Any, classes: list[str]) -> Any:
    # A class number of -1 means that the row has no label.
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else value
