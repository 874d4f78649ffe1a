"""The folder of what is made once and kept: tokens, tokenizers, embedded records."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


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
