"""Sentence encoders: how sentence-transformers keeps pooling and normalisation beside a model (`modules.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.interop.tensor_files import read_json, write_json

_MODES = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
_FOLDER = "1_Pooling"


def read_pooling(folder: Path) -> dict[str, Any]:
    """What modules.json says of an embedding head; nothing where the folder has none.

    Raises:
      ValueError: modules other than pooling and normalisation, or a pooling that is not had here.
    """
    place = folder / "modules.json"
    if not place.is_file():
        return {}
    found: dict[str, Any] = {"pooler": False, "normalize": False}
    for module in json.loads(place.read_text(encoding="utf-8")):
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            settings = read_json(folder / module["path"] / "config.json")
            chosen = [mode for mode, on in settings.items() if mode.startswith("pooling_mode_") and on]
            if len(chosen) != 1 or chosen[0] not in _MODES:
                raise ValueError(f"{folder}: pooling by {' and '.join(chosen)}; it can be one of {', '.join(_MODES)}")
            found["pooling"] = _MODES[chosen[0]]
        elif kind == "Normalize":
            found["normalize"] = True
        elif kind != "Transformer":
            raise ValueError(f"{folder}: modules.json has a {kind}; only Transformer, Pooling and Normalize are read")
    return found


def write_pooling(folder: Path, head: Mapping[str, Any], *, width: int) -> None:
    """Writes modules.json for an embedding head; none for BERT's own pooler, which is part of the model.

    Raises:
      ValueError: a pooling that sentence-transformers does not have.
    """
    if head["pooling"] not in _MODES.values():
        raise ValueError(f"head.pooling={head['pooling']} cannot be written; it can be {', '.join(_MODES.values())}")
    if head["pooler"]:
        return
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * head["normalize"]
    places = ["", _FOLDER, "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": places[i], "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    (folder / _FOLDER).mkdir(exist_ok=True)
    modes = {mode: pooling == head["pooling"] for mode, pooling in _MODES.items()}
    write_json(folder / _FOLDER / "config.json", {"word_embedding_dimension": width, **modes})
