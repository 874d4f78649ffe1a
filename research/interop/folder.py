"""Folders of published models in the layout of Hugging Face transformers: read, and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.interop.family import TASKS, Family, Head, class_names, leave_unused, rules_of
from research.interop.hf_bert import bert, roberta
from research.interop.hf_gpt2 import gpt2
from research.interop.hf_llama import llama
from research.interop.pooling import read_pooling, write_pooling
from research.interop.rules import give_all, take_all
from research.interop.tensor_files import read_json, read_tensors, write_json, write_tensors
from research.interop.tokenizer_files import read_tokenizer, write_tokenizer
from research.models import MODELS
from research.models.transformer import TransformerConfig

FAMILIES: dict[str, Family] = {family.model_type: family for family in (bert, roberta, gpt2, llama)}


@dataclass(frozen=True)
class Published:
    """A model as it was published: `model` and `head` are blocks, `task` is what its head is for.

    `params` are numpy arrays; `unused` names the tensors of the file that the model has no place for.
    """

    model: Mapping[str, Any]
    head: Mapping[str, Any]
    task: str  # of `TASKS`
    params: Mapping[str, Any]
    tokenizer: str  # contents of tokenizer.json
    label_names: Sequence[str]
    unused: Sequence[str]


def is_published(folder: Path) -> bool:
    """Whether a folder holds a published model (and not a run of this project)."""
    place = Path(folder) / "config.json"
    return place.is_file() and "model_type" in read_json(place)


def read_folder(folder: Path) -> Published:
    """Reads config.json, the tensors and tokenizer.json of a local folder.

    Raises:
      ValueError: no such folder, a model that is none of `FAMILIES`, tensors that do not fit it, no tokenizer.json.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is no folder here; give the workdir of a run, or fetch published weights first: "
            f"hf download {folder} --local-dir models/{folder.name}"
        )
    settings = read_json(folder / "config.json")
    family, task = _recognise(settings, folder)
    try:
        block, head = family.read(settings), family.read_head(task, settings)
    except KeyError as error:
        raise ValueError(f"{folder / 'config.json'} lacks {error}; save the model again") from error
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    model = MODELS[block["name"]](**{key: value for key, value in block.items() if key != "name"})
    if task == "features":
        head |= read_pooling(folder)
    if misfit := family.head_misfit(task, head):
        raise ValueError(f"{folder}: its head cannot be had here ({misfit})")

    tensors = _renamed(read_tensors(folder), family)
    if task == "features" and head.get("pooler") and not any(name.endswith("pooler.dense.weight") for name in tensors):
        head |= dict(pooler=False)  # saved without one
    beside_head = any(name.startswith(family.prefix) for name in tensors)
    rules = rules_of(family, task, model, head, settings, beside_head=beside_head)
    used, unused = leave_unused(tensors, rules, family, depth=model.depth)
    params = take_all(used, rules, depth=model.depth, where=str(folder))
    names = class_names(settings) if TASKS[task].labelled else []
    return Published(block, head, task, params, read_tokenizer(folder), names, unused)


def write_folder(
    folder: Path,
    *,
    model: TransformerConfig,
    name: str,
    head: Head,
    task: str,
    params: Mapping[str, Any],
    tokenizer: str,
    ids: Mapping[str, int],
    tokens: Mapping[str, str],
    label_names: Sequence[str] = (),
    target_mean: float = 0.0,
    target_scale: float = 1.0,
    keep_frame: bool = True,
) -> str:
    """Writes a model so that `transformers` opens it; returns the architecture.

    `name` is the model block's; `ids` and `tokens` are the special tokens by transformers' names (`pad_token_id`,
    `pad_token`). A regression whose head gives numbers less `target_mean` and in units of `target_scale` is written so
    that it gives them as they are, and then in float32: bfloat16 would round the mean. With `keep_frame` the
    tokenizer's file goes on to write what it writes around texts; else it is made to write what training did.

    Raises:
      ValueError: no family of `FAMILIES` has such a model or such a head.
    """
    family = _choose(model, name)
    if task not in family.tasks:
        raise ValueError(f"{family.model_type} has no {task} model; it has {', '.join(sorted(family.tasks))}")
    if target_mean and not any("head/classifier/bias" in rule.ours for rule in family.head(task, model, head)):
        raise ValueError(
            f"{family.tasks[task]} has no bias for target_mean={target_mean:.6g}, so that it cannot give numbers in "
            "their own units; a regression on BERT or RoBERTa can be written"
        )
    if misfit := family.head_misfit(task, head):
        raise ValueError(f"{family.tasks[task]} has another head ({misfit}); train with that head to export it")
    if (target_mean, target_scale) != (0.0, 1.0):
        params = _in_own_units(params, target_mean, target_scale)
    settings = {"architectures": [family.tasks[task]], **family.write(model, ids)}
    settings["tie_word_embeddings"] = bool(head.get("tied", True))
    settings["dtype"] = str(np.asarray(params["backbone"]["embed"]["embedding"]).dtype)
    settings |= _label_settings(task, head, label_names)
    rules = rules_of(family, task, model, head, settings, beside_head=task != "features")
    tensors = give_all(params, rules, depth=model.depth)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, tensors)
    if task == "features":
        write_pooling(folder, head, width=model.width)
    write_json(folder / "config.json", settings)
    end, several_types = TASKS[task].head != "language", model.num_token_types > 1
    write_tokenizer(
        folder,
        tokenizer,
        end=end,
        ids=ids,
        tokens=tokens,
        length=model.length,
        several_types=several_types,
        keep_frame=keep_frame,
    )
    return family.tasks[task]


def _recognise(settings: Mapping[str, Any], folder: Path) -> tuple[Family, str]:
    kind = settings.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(f"{folder}: model_type={kind!r} is not read here; it can be {', '.join(sorted(FAMILIES))}")
    family = FAMILIES[kind]
    try:
        task = family.task_of(settings)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    if not task:
        known = ", ".join(sorted({*family.tasks.values(), *family.aliases}))
        problem = f" with problem_type={settings['problem_type']!r}" if settings.get("problem_type") else ""
        raise ValueError(
            f"{folder}: architecture {family.architecture_of(settings)}{problem} is not read here; of {kind} these "
            f"are: {known}"
        )
    return family, task


def _choose(model: TransformerConfig, name: str) -> Family:
    named = [FAMILIES[name]] if name in FAMILIES else []
    reasons = {}
    for family in [*named, *FAMILIES.values()]:
        reasons[family.model_type] = family.refuses(model)
        if not reasons[family.model_type]:
            return family
    listed = "; ".join(f"{kind} has {reason}" for kind, reason in reasons.items())
    raise ValueError(f"no published family has such a transformer ({listed})")


def _label_settings(task: str, head: Head, label_names: Sequence[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {"problem_type": TASKS[task].problem} if TASKS[task].problem else {}
    if label_names:
        settings["id2label"] = {str(i): label for i, label in enumerate(label_names)}
        settings["label2id"] = {label: i for i, label in enumerate(label_names)}
        settings["classifier_dropout"] = head["dropout"]
    return settings


def _in_own_units(params: Mapping[str, Any], mean: float, scale: float) -> dict[str, Any]:
    """The parameters, in float32, of a head whose last linear map gives `mean` + `scale` times what it gave."""

    def single(leaf: Any) -> np.ndarray:
        return np.asarray(leaf).astype(np.float32)

    last = {key: scale * np.asarray(leaf).astype(np.float64) for key, leaf in params["head"]["classifier"].items()}
    if "bias" in last:
        last["bias"] = last["bias"] + mean
    return jax.tree.map(single, {**params, "head": {**params["head"], "classifier": last}})


def _renamed(tensors: Mapping[str, np.ndarray], family: Family) -> dict[str, np.ndarray]:
    found = {}
    for name, array in tensors.items():
        for old, new in family.renamed.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        found[name] = array
    return found
