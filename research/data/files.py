"""Rows of text files: .txt, .jsonl, .csv, .parquet and .json, each plain, gzip or zstd."""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import hashlib
import io
import json
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

Record = dict[str, Any]

FORMATS = (".txt", ".jsonl", ".csv", ".parquet", ".json")
COMPRESSIONS = (".gz", ".zst")
_SETTINGS = ("", *(".json" + extra for extra in ("", *COMPRESSIONS)))  # what a folder's search leaves out
SUFFIXES = tuple(form + extra for form in FORMATS for extra in ("", *COMPRESSIONS))


@dataclass(frozen=True)
class Part:
    """One file, or one named split: where it is, and how to read its rows."""

    name: str
    read: Callable[[], tuple[Sequence[Record], int]]  # the rows, and about how many bytes they hold
    line: Callable[[int], str]  # where row i stands, for messages: "line 4"
    digest: Callable[[], str]  # sha256 of the contents


def find_files(path: str) -> list[Path]:
    """The data files of a file, a glob or a folder (searched through, hidden and unknown files left out), sorted.

    A .json file of a folder is left out too, for most of them are settings: name it, or give a glob.

    Raises:
      ValueError: nothing is there, or a file that is named has a suffix that nothing here reads.
    """
    known = ", ".join(FORMATS) + " (each plain, .gz or .zst)"
    place = Path(path).expanduser()
    if place.is_dir():
        inside = [file for file in place.rglob("*") if file.is_file() and _suffix(file) not in _SETTINGS]
        files = [file for file in inside if not any(name.startswith(".") for name in file.relative_to(place).parts)]
        if not files:
            raise ValueError(f"{path} is a folder without data files; wanted some of {known}")
        return sorted(files)
    if place.is_file():
        files = [place]
    else:
        files = sorted(file for file in map(Path, glob.glob(str(place), recursive=True)) if file.is_file())
        if not files and glob.has_magic(path):
            raise ValueError(f"{path} matches no file; check the pattern")
        if not files:
            raise ValueError(f"{path} does not exist; give a file, a glob, a folder, embedded:NAME or tfds:NAME")
    for file in files:
        if not _suffix(file):
            raise ValueError(f"{file} has no suffix that is read here; wanted {known}")
    return files


def _suffix(file: Path) -> str:
    """The part of the name that says how to read it (".jsonl.zst"), or ""."""
    name = file.name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def file_part(file: Path) -> Part:
    suffix = _suffix(file)
    form = next(known for known in FORMATS if suffix.startswith(known))
    lines: list[int] = []  # filled by the reader: the line on which each row ends or stands

    def read() -> tuple[Sequence[Record], int]:
        data = _decompress(file)
        if not data.strip():
            raise ValueError(f"{file} is empty; remove it or give another path")
        if form == ".parquet":
            return _read_parquet(data, file), len(data) * 4
        text = decode(data, str(file))
        lines.clear()
        readers = {".txt": _read_txt, ".jsonl": _read_jsonl, ".csv": _read_csv, ".json": _read_json}
        return readers[form](text, file, lines), len(data)

    def line(row: int) -> str:
        return f"line {lines[row]}" if row < len(lines) else f"row {row + 1}"

    return Part(str(file), read, line, lambda: form + digest(file))


def _read_txt(text: str, file: Path, lines: list[int]) -> list[Record]:
    lines.append(1)
    return [{"text": text}]


def _read_jsonl(text: str, file: Path, lines: list[int]) -> list[Record]:
    rows = []
    # Not splitlines(): JSON may hold U+2028 and the like unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{file}, line {number}: not JSON ({error.msg} at column {error.colno}); wanted one JSON object a line"
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {number}: {type(row).__name__}, wanted one JSON object a line")
        rows.append(row)
        lines.append(number)
    return rows


def _read_json(text: str, file: Path, lines: list[int]) -> list[Record]:
    """The objects of a list, alone or under "data" (the layout of SQuAD, and of many tables)."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}, line {error.lineno}: not JSON ({error.msg} at column {error.colno}); a file of one JSON object a "
            "line is named .jsonl"
        ) from error
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{file}: wanted a list of JSON objects, alone or under the key 'data'")
    return rows


def _read_csv(text: str, file: Path, lines: list[int]) -> list[Record]:
    csv.field_size_limit(sys.maxsize)  # a document may be longer than the module's 128 KiB
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            if None in row:
                raise ValueError(
                    f"{file}, line {reader.line_num}: more values than the first line has fields "
                    f"({len(reader.fieldnames or ())}); quote values that hold commas"
                )
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.reader.line_num}: not CSV ({error}); mend that line") from error
    return rows


def _read_parquet(data: bytes, file: Path) -> list[Record]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}: a text column is not UTF-8 ({error.reason}); write the file again as UTF-8"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is not a readable parquet file ({first_line(error)}); write it again") from error
    return [
        plain(row, lambda field, number=number: f"{file}, row {number + 1}, field {field!r}")
        for number, row in enumerate(rows)
    ]


def _decompress(file: Path) -> bytes:
    try:
        data = file.read_bytes()
        if file.name.lower().endswith(".gz"):
            return gzip.decompress(data)
        if file.name.lower().endswith(".zst"):
            return _decompress_zstd(data)
    except (zlib.error, EOFError, zstandard.ZstdError, OSError) as error:
        raise ValueError(f"{file} cannot be read ({first_line(error)}); copy or compress it again") from error
    return data


def _decompress_zstd(data: bytes) -> bytes:
    frames = []
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        frames.append(frame.decompress(data))
        if not frame.eof:  # the library itself returns what there is
            raise EOFError("it ends within a frame")
        data = frame.unused_data
    return b"".join(frames)


def decode(data: bytes, where: str) -> str:
    start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:
        return data[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        at = start + error.start
        line = data.count(b"\n", 0, at) + 1
        raise ValueError(
            f"{where}, line {line}, byte offset {at}: byte 0x{data[at]:02x} is not UTF-8 ({error.reason}); "
            "convert the file to UTF-8"
        ) from error


def encodable(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: a lone surrogate at character {error.start} is no text; remove it") from error


def digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def plain(row: Record, where: Callable[[str], str]) -> Record:
    """The row with bytes decoded as UTF-8 and numpy scalars as Python's."""
    converted = {}
    for field, value in row.items():
        if isinstance(value, bytes):
            value = decode(value, where(field))
        elif hasattr(value, "item") and getattr(value, "ndim", None) == 0:
            value = value.item()
        converted[field] = value
    return converted


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
