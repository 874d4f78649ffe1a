"""Image models in a folder of published weights: config.json, safetensors, and how pixels are prepared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from research.interop.family import Family, Head, class_names, leave_unused, rules_of
from research.interop.hf_resnet import resnet
from research.interop.hf_vit import vit
from research.interop.preprocessor import read_pixels, write_pixels
from research.interop.rules import give_variables, take_variables
from research.interop.tensor_files import read_json, read_tensors, write_json, write_tensors
from research.models import IMAGE_MODELS

IMAGE_FAMILIES: dict[str, Family[Any]] = {family.model_type: family for family in (vit, resnet)}


@dataclass(frozen=True)
class PublishedImages:
    """An image model as it was published: `model` and `head` are blocks, `variables` numpy arrays by collection.

    `size` is the side in pixels of the images that it was trained on; `unused` names tensors without a place here.
    """

    model: Mapping[str, Any]
    head: Mapping[str, Any]
    task: str  # "features" or "classification"
    variables: Mapping[str, Any]
    size: int
    label_names: Sequence[str]
    unused: Sequence[str]


def holds_images(folder: Path) -> bool:
    """Whether a folder of published weights is of an image family."""
    return read_json(Path(folder) / "config.json").get("model_type") in IMAGE_FAMILIES


def read_image_folder(folder: Path) -> PublishedImages:
    """Reads config.json, the tensors and preprocessor_config.json.

    Raises:
      ValueError: an architecture that is not read here, tensors that do not fit it, or nothing that says which pixels
        the model saw.
    """
    settings = read_json(folder / "config.json")
    family = IMAGE_FAMILIES[settings["model_type"]]
    task = family.task_of(settings)
    if not task:
        known = ", ".join(sorted(family.tasks.values()))
        raise ValueError(
            f"{folder}: architecture {family.architecture_of(settings)} is not read here; these are: {known}"
        )
    try:
        block, head = family.read(settings), family.read_head(task, settings)
    except KeyError as error:
        raise ValueError(f"{folder / 'config.json'} lacks {error}; save the model again") from error
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    size, mean, std = read_pixels(folder)
    if block.get("image_size", size) != size:
        raise ValueError(
            f"{folder}: config.json says image_size={block['image_size']}, its preprocessor {size}; make them equal"
        )
    block |= dict(pixel_mean=mean, pixel_std=std)
    model = IMAGE_MODELS[block["name"]](**{key: value for key, value in block.items() if key != "name"})
    tensors = read_tensors(folder)
    if head.get("pooler") and not any(name.endswith("pooler.dense.weight") for name in tensors):
        head |= dict(pooler=False)  # saved without one
    beside_head = any(name.startswith(family.prefix) for name in tensors)
    rules = rules_of(family, task, model, head, settings, beside_head=beside_head)
    used, unused = leave_unused(tensors, rules, family, depth=model.depth)
    variables = take_variables(used, rules, depth=model.depth, where=str(folder))
    names = class_names(settings) if task == "classification" else []
    return PublishedImages(block, head, task, variables, size, names, unused)


def write_image_folder(
    folder: Path,
    *,
    model: Any,
    head: Head,
    task: str,
    variables: Mapping[str, Any],
    size: int,
    label_names: Sequence[str] = (),
) -> str:
    """Writes an image model so that `transformers` opens it; returns the architecture.

    What is no classifier is written without its head.

    Raises:
      ValueError: no family of `IMAGE_FAMILIES` has such a model or such a head.
    """
    reasons = {kind: family.refuses(model) for kind, family in IMAGE_FAMILIES.items()}
    fitting = [kind for kind, reason in reasons.items() if not reason]
    if not fitting:
        listed = "; ".join(f"{kind} has {reason}" for kind, reason in reasons.items())
        raise ValueError(f"no published family has such an image model ({listed})")
    family = IMAGE_FAMILIES[fitting[0]]
    if task != "classification":
        task, head = "features", {"name": "embedding", "pooler": False}
    if misfit := family.head_misfit(task, head):
        raise ValueError(f"{family.tasks[task]} has another head ({misfit}); train with that head to export it")
    settings: dict[str, Any] = {"architectures": [family.tasks[task]], **family.write(model, {})}
    if task == "classification":
        settings["id2label"] = {str(index): name for index, name in enumerate(label_names)}
        settings["label2id"] = {name: index for index, name in enumerate(label_names)}
    rules = rules_of(family, task, model, head, settings, beside_head=task != "features")
    tensors = give_variables(variables, rules, depth=model.depth)
    settings["dtype"] = str(next(array.dtype for array in tensors.values() if array.dtype.kind != "i"))
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, tensors)
    channels = model.num_channels
    mean, std = (np.broadcast_to(values, (channels,)).tolist() for values in (model.pixel_mean, model.pixel_std))
    write_pixels(folder, size=size, mean=mean, std=std)
    write_json(folder / "config.json", settings)
    return family.tasks[task]
