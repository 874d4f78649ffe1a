"""Safetensors of one folder, whole or in shards: read with every fault named, written so that others can read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

NAME = "model.safetensors"
INDEX = NAME + ".index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin")
_SHARD_BYTES = 5 * 10**9  # as transformers cuts them


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of the folder's `model.safetensors`, or of the shards that its index names.

    Raises:
      ValueError: neither is there, a shard is missing or damaged, or the index and the shards differ.
    """
    folder = Path(folder)
    if (folder / INDEX).is_file():
        return _read_shards(folder)
    if not (folder / NAME).is_file():
        pickles = [name for name in _PICKLES if (folder / name).is_file()]
        if pickles:
            raise ValueError(
                f"{folder} has {pickles[0]} and no {NAME}; a pickle can run any code when it is opened, so it is not "
                "read here: save the model again with model.save_pretrained(DIR), which writes safetensors"
            )
        raise ValueError(f"{folder} has no {NAME}; give the folder that model.save_pretrained wrote")
    return _read(folder / NAME)


def write_tensors(folder: Path, tensors: Mapping[str, np.ndarray], *, shard_bytes: int = _SHARD_BYTES) -> None:
    """Writes `model.safetensors`, or shards of at most `shard_bytes` with their index."""
    shards: list[dict[str, np.ndarray]] = [{}]
    for name, tensor in tensors.items():
        size = sum(other.nbytes for other in shards[-1].values())
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = np.asarray(tensor, order="C")  # the library writes other layouts scrambled
    if len(shards) == 1:
        save_file(shards[0], folder / NAME, metadata={"format": "pt"})
        return
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard},
    }
    write_json(folder / INDEX, index)


def write_json(path: Path, contents: Any) -> None:
    path.write_text(json.dumps(contents, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      ValueError: no such file, or something else in it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give the folder of a saved model") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); give the folder of a saved model") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}, wanted a JSON object")
    return found


def _read_shards(folder: Path) -> dict[str, np.ndarray]:
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise ValueError(f"{folder / INDEX} has no weight_map from tensors to files; save the model again")
    files = sorted(set(places.values()))
    if outside := [name for name in files if Path(name).name != name]:
        raise ValueError(f"{folder / INDEX} names files outside its folder ({', '.join(outside)})")
    if absent := [name for name in files if not (folder / name).is_file()]:
        raise ValueError(f"{folder} lacks {', '.join(absent)}, which {INDEX} names; copy the whole folder")
    tensors = {}
    for name in files:
        tensors |= _read(folder / name)
    if lost := sorted(places.keys() - tensors.keys()):
        raise ValueError(f"{folder}: the shards lack {', '.join(lost)}, which {INDEX} names; copy the folder again")
    return tensors


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); copy or download it again") from error
