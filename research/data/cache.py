"""The folder of what is made once and kept: tokens, tokenizers, decoded pictures and sound, embedded records."""

from __future__ import annotations

import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_STALE_SECONDS = 24 * 3600  # what a crash left unfinished is removed after this long without a write
_LINE_SECONDS = 5  # between progress lines where there is no terminal


def cache_directory() -> Path:
    """$GROUNDWORK_CACHE, else ~/.cache/groundwork."""
    return Path(os.environ.get("GROUNDWORK_CACHE") or "~/.cache/groundwork").expanduser()


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all: several processes may write the same."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise ValueError(
            f"the cache {path.parent} cannot be written ({error.strerror or error}); free space there or set "
            "GROUNDWORK_CACHE to another folder"
        ) from error


def make_folder(final: Path, write: Callable[[Path], None]) -> None:
    """Makes a folder of files by `write(folder)`: it exists complete or not at all. Of racing processes the first wins.

    It is written beside `final` and renamed.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(final.parent)
    temporary = final.parent / f".{final.name}.{uuid.uuid4().hex}.tmp"
    temporary.mkdir()
    try:
        write(temporary)
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        try:
            temporary.rename(final)
        except OSError:
            if not final.exists():
                raise
        else:
            _sync(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # after the rename nothing is there


@contextmanager
def progress(doing: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of units done: a bar on a terminal, else a line every few seconds."""
    if sys.stderr.isatty():
        columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda count: bar.advance(task, count)
        return
    done, last = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= _LINE_SECONDS:
            last = time.monotonic()
            print(f"{doing}: {done:,} of {total:,} {unit}", file=sys.stderr, flush=True)

    yield advance


def _remove_stale(directory: Path) -> None:
    """Removes what processes that were killed left unfinished long ago."""
    for folder in directory.glob(".*.tmp"):
        try:
            last = max(place.stat().st_mtime for place in (folder, *folder.iterdir()))
        except FileNotFoundError:  # its owner has just finished
            continue
        if time.time() - last > _STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
