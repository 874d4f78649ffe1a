"""What LoRA has trained, alone: adapters and head in one small file, beside what is said of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.interop.tensor_files import NAME, read_json, read_tensors, write_json, write_tensors

_SAID = "adapters.json"


def holds_adapters(folder: Path) -> bool:
    return (Path(folder) / _SAID).is_file()


def write_adapters(folder: Path, params: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Writes `params`, nested dicts of arrays, as `model.safetensors`, and `said`, any JSON, as `adapters.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    write_tensors(folder, {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves})
    write_json(folder / _SAID, said)


def read_adapters(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `write_adapters` was given. Raises ValueError where a file is missing, damaged, or holds something else."""
    said = read_json(folder / _SAID)
    if lacking := [key for key in ("base", "backbone", "about", "step") if key not in said]:
        raise ValueError(f"{folder / _SAID} lacks {', '.join(lacking)}; copy the whole folder that the run wrote")
    params: dict[str, Any] = {}
    for name, tensor in read_tensors(folder).items():
        *parents, last = name.split("/")
        place = params
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = tensor
    if "adapters" not in params:
        raise ValueError(f"{folder / NAME} holds no adapters; copy the whole folder that the run wrote")
    return said, params


def fingerprint(params: Any) -> str:
    """SHA-256 of every array of a tree with its name, shape and type."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
