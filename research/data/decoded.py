"""Pictures and recordings decoded once, into flat files in a cache that is keyed by their contents."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from research.data.cache import cache_directory, make_folder, progress, write_whole
from research.data.splits import fingerprint

_FORMAT = "1"  # part of every key: another layout or another way to decode is another cache
_CHUNK = 64  # decoded by a thread at a time


@dataclass(frozen=True)
class Decoded:
    """What a source holds, memory-mapped."""

    values: np.ndarray  # [M …], zeros where it could not be decoded
    notes: np.ndarray  # int64 [M K], what the decoder told of each
    hashes: Sequence[str]  # 64 bits of the SHA-1 of each
    problems: dict[int, str]  # why some could not be decoded


def decode_once(
    decode: Callable[[int], tuple[np.ndarray, tuple[int, ...]]],
    count: int,
    *,
    shape: tuple[int, ...],
    dtype: str,
    num_notes: int,
    key: str,
    unit: str,
) -> Decoded:
    """Decodes contents 0 … count - 1, or takes them from the cache where they have been before.

    `decode(index)` gives values of at most `shape` (zeros follow) and notes, and raises ValueError where it cannot.
    `key` stands for the contents and for what else `decode` depends on. Threads share the work.

    Raises:
      ValueError: the cache cannot be written or has too little room, or what it holds is damaged.
    """
    folder = cache_directory() / "decoded" / fingerprint(_FORMAT, key, repr((count, shape, dtype)))[:32]
    if not folder.exists():
        try:
            _check_room(folder, count * int(np.prod(shape)) * np.dtype(dtype).itemsize, unit)
            make_folder(folder, lambda place: _write(decode, count, shape, dtype, num_notes, unit, place))
        except OSError as error:
            raise ValueError(
                f"the {unit} cannot be decoded into the cache {folder.parent} ({error}); see to the file named, "
                "free space there, or set GROUNDWORK_CACHE to another folder"
            ) from error
    return _read(folder, (count, *shape))


def contents_digest(files: Sequence[Path], names: Sequence[str]) -> str:
    """sha256 over the files' contents and `names`; read anew only where a file's place, size or times have changed."""
    listing = hashlib.sha256()
    for file, name in zip(files, names, strict=True):
        found = file.stat()
        listing.update(repr((str(file.resolve()), name, found.st_size, found.st_mtime_ns, found.st_ctime_ns)).encode())
    known = cache_directory() / "digests" / listing.hexdigest()
    if not known.exists():
        total = hashlib.sha256()
        for file, name in zip(files, names, strict=True):
            with file.open("rb") as stream:
                total.update(f"{name}\n{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
        write_whole(known, total.hexdigest())
    return known.read_text()


def hash_values(values: np.ndarray) -> str:
    """64 bits of the SHA-1 of an array's bytes."""
    return hashlib.sha1(np.ascontiguousarray(values).data, usedforsecurity=False).hexdigest()[:16]


def _check_room(folder: Path, num_bytes: int, unit: str) -> None:
    place = folder.parent
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if num_bytes > free:
        raise ValueError(
            f"the decoded {unit} take {num_bytes / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB free; free space "
            "there, store them smaller, or set GROUNDWORK_CACHE to another folder"
        )


def _write(
    decode: Callable[[int], tuple[np.ndarray, tuple[int, ...]]],
    count: int,
    shape: tuple[int, ...],
    dtype: str,
    num_notes: int,
    unit: str,
    folder: Path,
) -> None:
    values = np.lib.format.open_memmap(folder / "values.npy", mode="w+", dtype=dtype, shape=(count, *shape))
    notes = np.zeros((count, num_notes), np.int64)
    hashes = np.zeros(count, "S16")
    problems: dict[int, str] = {}

    def fill(first: int) -> int:
        chunk = range(first, min(first + _CHUNK, count))
        for index in chunk:
            try:
                found, told = decode(index)
            except ValueError as error:
                problems[index] = str(error)
                continue
            values[(index, *map(slice, found.shape))] = found
            notes[index], hashes[index] = told, hash_values(found).encode()
        return len(chunk)

    with progress("decoding", count, unit) as advance, ThreadPoolExecutor(os.cpu_count()) as threads:
        for done in threads.map(fill, range(0, count, _CHUNK)):
            advance(done)
    values.flush()
    np.save(folder / "notes.npy", notes)
    np.save(folder / "hashes.npy", hashes)
    (folder / "problems.json").write_text(json.dumps(sorted(problems.items())))


def _read(folder: Path, shape: tuple[int, ...]) -> Decoded:
    try:
        values = np.load(folder / "values.npy", mmap_mode="r").view(np.ndarray)
        notes, hashes = np.load(folder / "notes.npy"), np.load(folder / "hashes.npy")
        problems = dict(json.loads((folder / "problems.json").read_text()))
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"the cache {folder} is damaged; delete that folder and start again") from error
    if values.shape != shape or not len(notes) == len(hashes) == shape[0]:
        raise ValueError(f"the cache {folder} is damaged; delete that folder and start again")
    return Decoded(values, notes, hashes.astype(str).tolist(), problems)
