"""Dual encoders in a folder of published weights: config.json, safetensors, tokenizer.json, how pixels are prepared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from research.interop.family import leave_unused
from research.interop.hf_clip import clip
from research.interop.preprocessor import Preprocessing, read_preprocessing, write_preprocessing
from research.interop.rules import give_variables, take_variables
from research.interop.tensor_files import read_json, read_tensors, write_json, write_tensors
from research.interop.tokenizer_files import read_tokenizer, write_tokenizer
from research.models import PAIR_MODELS


@dataclass(frozen=True)
class PublishedPairs:
    """A dual encoder as it was published: `model` is a block, `params` are numpy arrays.

    `size` is the side in pixels of the images that it was trained on; `unused` names tensors without a place here.
    """

    model: Mapping[str, Any]
    params: Mapping[str, Any]
    tokenizer: str  # contents of tokenizer.json
    size: int
    unused: Sequence[str]


def holds_pairs(folder: Path) -> bool:
    """Whether a folder of published weights is of a model with two towers."""
    return read_json(Path(folder) / "config.json").get("model_type") == clip.model_type


def read_pair_folder(folder: Path) -> PublishedPairs:
    """Reads config.json, the tensors, tokenizer.json and preprocessor_config.json.

    Raises:
      ValueError: one tower alone, or what cannot be had here; tensors that do not fit; a file that is not there.
    """
    settings = read_json(folder / "config.json")
    if not clip.task_of(settings):
        raise ValueError(
            f"{folder}: architecture {clip.architecture_of(settings)} is not read here; of clip CLIPModel is"
        )
    try:
        block = clip.read(settings)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    pixels = read_preprocessing(folder)
    size = block["image"]["image_size"]
    if size != pixels.image_size:
        raise ValueError(
            f"{folder}: config.json says image_size={size}, its preprocessor {pixels.image_size}; make them equal"
        )
    block["image"] |= dict(pixel_mean=pixels.mean, pixel_std=pixels.std)
    model = PAIR_MODELS[block["name"]](**{key: value for key, value in block.items() if key != "name"})
    rules = clip.backbone(model, settings)
    used, unused = leave_unused(read_tensors(folder), rules, clip, depth=0)
    params = take_variables(used, rules, depth=0, where=str(folder))["params"]
    return PublishedPairs(block, params, read_tokenizer(folder), size, unused)


def write_pair_folder(
    folder: Path,
    *,
    model: Any,
    params: Mapping[str, Any],
    tokenizer: str,
    ids: Mapping[str, int],
    tokens: Mapping[str, str],
    size: int,
) -> str:
    """Writes a dual encoder so that `transformers` opens it; returns the architecture.

    `ids` and `tokens` are the special tokens by transformers' names (`pad_token_id`, `pad_token`); where there is none
    to fill rows with, the end token does, as in CLIP. Images are made squares here by their shorter side and the
    middle, which is what the folder says.

    Raises:
      ValueError: it is no CLIP.
    """
    if misfit := clip.refuses(model):
        raise ValueError(f"no published family has such a dual encoder (clip has {misfit})")
    if "eos_token" in tokens:
        tokens = {"pad_token": tokens["eos_token"], **tokens}
        ids = {"pad_token_id": ids["eos_token_id"], **ids}
    settings = {"architectures": [clip.tasks["features"]], **clip.write(model, ids)}
    tensors = give_variables({"params": params}, clip.backbone(model, settings), depth=0)
    settings["dtype"] = str(tensors["text_projection.weight"].dtype)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, tensors)
    tower = model.image_tower
    mean, std = (
        tuple(np.broadcast_to(values, (tower.num_channels,)).tolist()) for values in (tower.pixel_mean, tower.pixel_std)
    )
    write_preprocessing(folder, Preprocessing(size=size, crop=size, mean=mean, std=std))
    write_json(folder / "config.json", settings)
    write_tokenizer(folder, tokenizer, end=True, ids=ids, tokens=tokens, length=model.text_tower.length)
    return clip.tasks["features"]
