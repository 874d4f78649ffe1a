"""A trained model, opened: a run's checkpoint, or a folder of published weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from tokenizers import Tokenizer

from research.batch import Spec
from research.build import build, resolve
from research.data.prompt_answer import SEPARATOR
from research.data.tokenizers import facts, from_json
from research.inference.text_model import TextModel
from research.interop import (
    fingerprint,
    holds_adapters,
    holds_images,
    holds_pairs,
    is_published,
    read_adapters,
    read_folder,
    read_image_folder,
    read_pair_folder,
)
from research.models import ALL_MODELS, HEADS, PAIR_MODELS, join
from research.objectives import OBJECTIVES
from research.objectives.low_rank import LowRank
from research.training.restore import read_about, read_params, read_variables
from research.training.step_folder import chosen_step, complete_steps
from research.types import Objective

# What a published model reads, by its task, as a data block names it; running text for the others.
_DATA = {
    "classification": "text_classification",
    "multi_label": "text_multi_label",
    "regression": "text_regression",
    "tagging": "tagging",
    "question_answering": "question_answering",
}


@dataclass(frozen=True)
class Trained:
    """A trained model, ready to use; `about` is what its checkpoint says (model, head, objective, data blocks).

    `objective` is None for a published model without a head, which gives vectors only.
    """

    model: Any  # a `Model`, or one of images
    params: Any
    objective: Objective | None
    spec: Spec
    about: Mapping[str, Any]
    step: int
    tokenizer: Tokenizer | None
    unused: Sequence[str] = ()  # tensors of a published file that the model has no place for
    model_state: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # batch statistics, teacher, queue

    @property
    def variables(self) -> dict[str, Any]:
        """What the objective's functions take."""
        return {"params": self.params, **self.model_state}

    @property
    def trained_here(self) -> bool:
        """Whether this is of a run, which has read data; published weights were trained elsewhere."""
        return "path" in self.about["data"]

    def to_start(self, head: Mapping[str, Any], *, frozen: bool) -> dict[str, Any]:
        """The variables that a run with this head block starts from; where the backbone is `frozen` (LoRA) it is given
        apart."""
        params = dict(self.params)
        if self.about["head"] != head:
            params.pop("head", None)  # a tied head without bias has no parameters
        statistics = self.model_state.get("batch_stats", {})
        statistics = {part: tree for part, tree in statistics.items() if part in params}
        given = {"params": params} | ({"batch_stats": statistics} if statistics else {})
        return given | ({"frozen": {"backbone": params.pop("backbone")}} if frozen else {})


def tower_of(trained: Trained, side: Literal["image", "text"]) -> Trained:
    """One tower of a model of two, as a backbone without a head; its pooling and projection stay behind."""
    model = trained.about["model"][side]
    sizes = ("length",) if side == "text" else ("image_size", "num_channels")
    about: dict[str, Any] = {
        **trained.about,
        "model": model,
        "head": {},
        "objective": {},
        "tokenizer": trained.about["tokenizer"] if side == "text" else "",
        "label_names": [],
        "spec": {key: trained.about["spec"][key] for key in sizes},
    }
    found = assemble(about, {"backbone": trained.params[side]}, trained.step)
    statistics = trained.model_state.get("batch_stats", {})
    state = {"batch_stats": {"backbone": statistics[side]}} if side in statistics else {}
    return dataclasses.replace(found, about=about | {"head": {"name": ""}}, model_state=state)


def open_trained(place: Path, *, step: int | None = None) -> Trained:
    """The checkpoint that a run ended with (its newest but for early stopping), that of `step`, or published weights;
    or the folder of adapters that a LoRA run wrote, with the model that it began from.

    Raises:
      ValueError: nothing of these kinds there, no complete checkpoint, or a damaged one.
    """
    place = Path(place)
    if holds_adapters(place):
        return _open_adapters(place, step)
    directory = place / "checkpoints"
    if not directory.is_dir() and (is_published(place) or _looks_like_a_name(place)):
        return _open_published(place)
    steps = complete_steps(directory) if directory.is_dir() else []
    if not steps:
        raise ValueError(f"{place} holds no complete checkpoint; give the --workdir of a run that has saved one")
    chosen = chosen_step(directory) if step is None else step
    if chosen not in steps:
        raise ValueError(f"{place} has no checkpoint {chosen}; it has {', '.join(map(str, steps))}")
    about = read_about(directory, chosen)
    params, state = read_params(directory, chosen), read_variables(directory, chosen)
    frozen = state.pop("frozen", {})
    if about.get("lora"):
        trained = assemble(about, {}, chosen)
        assert trained.objective is not None
        adapted = LowRank(trained.objective, **about["lora"])
        params = adapted.merged({"params": params, "frozen": frozen})
    trained = assemble(about, jax.tree.map(jnp.asarray, params), chosen)
    return dataclasses.replace(trained, model_state=state)


def text_model(model: Any, params: Any, spec: Spec, about: Mapping[str, Any]) -> TextModel:
    """What the rooms of inference take."""
    return TextModel(model, params, about["tokenizer"], spec, about["model"]["length"])


def separator(about: Mapping[str, Any]) -> str | None:
    """What stands between a prompt and its answer; None where the model was not trained on prompts."""
    data = about["data"]
    return data.get("separator", SEPARATOR) if data.get("name") == "prompt_answer" else None


def assemble(about: Mapping[str, Any], params: Any, step: int) -> Trained:
    """A model from what its checkpoint says of it (`about`) and its parameters."""
    backbone = build(about["model"], ALL_MODELS, kind="model")
    model = join(backbone, build(about["head"], HEADS, kind="head") if about["head"] else None)
    tokenizer = from_json(about["tokenizer"]) if about["tokenizer"] else None
    known = facts(tokenizer) if tokenizer else {}
    targets = {key: about[key] for key in ("target_mean", "target_scale") if key in about}
    facts_of_data = about.get("spec", {"length": about["data"].get("length", 0)})
    spec = Spec(label_names=tuple(about["label_names"]), **facts_of_data, **targets, **known)
    objective = None
    if about["objective"]:
        objective = build(about["objective"], OBJECTIVES, kind="objective", model=model, **spec.offers())
    return Trained(model, params, objective, spec, about, step, tokenizer)


def _open_adapters(folder: Path, step: int | None) -> Trained:
    said, params = read_adapters(folder)
    if step not in (None, said["step"]):
        raise ValueError(f"{folder} holds the adapters of step {said['step']}, not of {step}; leave --step out")
    advice = f'put it there, or write its place as "base" into {folder}/adapters.json'
    try:
        base = open_trained(Path(said["base"]))
    except ValueError as error:
        raise ValueError(
            f"{folder} holds adapters of {said['base']}, which cannot be opened ({error}); {advice}"
        ) from error
    place = folder / "tokenizer.json"
    about: dict[str, Any] = said["about"] | {"tokenizer": place.read_text(encoding="utf-8") if place.is_file() else ""}
    empty = assemble(about, {}, said["step"])
    assert empty.objective is not None
    if base.about["model"]["name"] in PAIR_MODELS:
        base = tower_of(base, "image" if empty.spec.image_size else "text")
    dtype = about["model"]["param_dtype"]
    frozen = {"backbone": jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), base.params["backbone"])}
    if fingerprint(frozen["backbone"]) != said["backbone"]:
        raise ValueError(f"{folder} holds adapters of other weights than {said['base']} has now; {advice}")
    params = LowRank(empty.objective, **about["lora"]).merged(
        {"params": jax.tree.map(jnp.asarray, params), "frozen": frozen}
    )
    return assemble(about, params, said["step"])


def _open_published_images(folder: Path) -> Trained:
    published = read_image_folder(folder)
    types = {"dtype": "float32", "param_dtype": "float32"}
    model = resolve(dict(published.model), ALL_MODELS, kind="model", **types)
    width = build(model, ALL_MODELS, kind="model").width
    spec = {"length": 0, "image_size": published.size, "num_channels": model["num_channels"]}
    about = {
        "model": model,
        "head": resolve(dict(published.head), HEADS, kind="head", **types, width=width),
        "objective": {"name": "classification"} if published.task == "classification" else {},
        "tokenizer": "",
        "data": {"name": "image_classification", "size": published.size, "channels": model["num_channels"]},
        "label_names": list(published.label_names),
        "spec": spec,
    }
    variables = jax.tree.map(jnp.asarray, dict(published.variables))
    trained = assemble(about, variables.pop("params"), 0)
    return dataclasses.replace(trained, unused=published.unused, model_state=variables)


def _open_published_pairs(folder: Path) -> Trained:
    published = read_pair_folder(folder)
    types = {"dtype": "float32", "param_dtype": str(jax.tree.leaves(published.params)[0].dtype)}
    model = resolve(dict(published.model), ALL_MODELS, kind="model", **types)
    size, channels = published.size, model["image"]["num_channels"]
    length = model["text"]["length"]
    about = {
        "model": model,
        "head": {},
        "objective": {"name": "clip"},
        "tokenizer": published.tokenizer,
        "data": {"name": "image_text", "size": size, "channels": channels, "length": length},
        "label_names": [],
        "spec": {"length": length, "image_size": size, "num_channels": channels},
    }
    _check_vocabulary(folder, published.tokenizer, model["text"]["vocab_size"])
    trained = assemble(about, jax.tree.map(jnp.asarray, dict(published.params)), 0)
    return dataclasses.replace(trained, unused=published.unused)


def _open_published(folder: Path) -> Trained:
    if folder.is_dir() and holds_images(folder):
        return _open_published_images(folder)
    if folder.is_dir() and holds_pairs(folder):
        return _open_published_pairs(folder)
    published = read_folder(folder)
    model, head = dict(published.model), dict(published.head)
    types = {"dtype": "float32", "param_dtype": str(jax.tree.leaves(published.params)[0].dtype)}
    offered = types | {key: model[key] for key in ("vocab_size", "length", "width")}
    about = {
        "model": resolve(model, ALL_MODELS, kind="model", **types),
        "head": resolve(head, HEADS, kind="head", **offered),
        "objective": {"name": published.task} if published.task in OBJECTIVES else {},
        "tokenizer": published.tokenizer,
        "data": {"name": _DATA.get(published.task, "text"), "length": model["length"]},
        "label_names": list(published.label_names),
    }
    _check_vocabulary(folder, published.tokenizer, model["vocab_size"])
    trained = assemble(about, jax.tree.map(jnp.asarray, published.params), 0)
    return dataclasses.replace(trained, unused=published.unused)


def _check_vocabulary(folder: Path, tokenizer: str, vocab_size: int) -> None:
    found = facts(from_json(tokenizer))["vocab_size"]
    if found > vocab_size:
        raise ValueError(
            f"{folder}: its tokenizer.json has {found} tokens, the model only {vocab_size}; put the model's own "
            "tokenizer there"
        )


def _looks_like_a_name(place: Path) -> bool:
    """`google-bert/bert-base-uncased`, or a name of one part that is nothing here."""
    return not place.exists() and not place.is_absolute() and len(place.parts) <= 2
