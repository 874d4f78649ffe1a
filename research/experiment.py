"""The hall: a page's blocks become data, model and objective; `run.py` beside it trains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import jax

from research import config, provenance
from research.batch import Dataset, Spec
from research.build import Block, build, check, parameters, resolve
from research.data import DATA
from research.distillation import with_soft_labels
from research.models import ALL_MODELS, HEADS, PAIR_MODELS, join
from research.objectives import OBJECTIVES
from research.objectives.low_rank import LowRank
from research.settings import Evaluating, Evidence, Logging, Saving, Tuning
from research.trained import Trained, open_trained, tower_of
from research.training.devices import native_dtype
from research.training.optimizer import OPTIMIZERS
from research.training.sharding import MeshShape
from research.types import Objective

Nested = Mapping[str, Any]

# What a trained model must know of the data that it has read.
SIZES = ("length", "image_size", "num_channels", "sample_rate", "audio_length")


@dataclass(frozen=True)
class Page:
    """Every key of a page. Blocks without a default belong on it."""

    data: Annotated[Nested, Block("data", DATA)]
    objective: Annotated[Nested, Block("objective", OBJECTIVES)]
    optimizer: Annotated[Nested, Block("optimizer", OPTIMIZERS)]
    num_steps: int
    batch_size: int
    model: Annotated[Nested, Block("model", ALL_MODELS)] = field(default_factory=dict)
    head: Annotated[Nested, Block("head", HEADS)] = field(default_factory=dict)
    seed: int = 0
    accumulate: int = 1
    ema_decay: float = 0.0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    matmul_dtype: Literal["", "bfloat16"] = ""  # bfloat16: factors of matrix products are rounded, sums are float32
    init_from: str = ""
    teacher: str = ""  # a finetuned classifier, whose soft labels count with objective.soft_weight
    then: str = ""  # what to try next, printed at the end; {workdir} is this run's
    weights: Literal["pretrained", "scratch"] = "pretrained"
    evidence: Annotated[Nested, Block("evidence", {"": Evidence})] = field(default_factory=dict)
    tuning: Annotated[Nested, Block("tuning", {"": Tuning})] = field(default_factory=dict)
    mesh: Annotated[Nested, Block("mesh", {"": MeshShape})] = field(default_factory=dict)
    log: Annotated[Nested, Block("log", {"": Logging})] = field(default_factory=dict)
    checkpoint: Annotated[Nested, Block("checkpoint", {"": Saving})] = field(default_factory=dict)
    evaluation: Annotated[Nested, Block("evaluation", {"": Evaluating})] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: wanted 1 or more")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size={self.batch_size} does not divide into accumulate={self.accumulate} microbatches; "
                f"use a multiple of {self.accumulate}"
            )


PAGE = {"": Page}


@dataclass(frozen=True)
class Experiment:
    """Everything that a page builds, before anything runs."""

    page: Page
    as_read: dict[str, Any]
    dataset: Dataset
    objective: Objective
    about: dict[str, Any]
    flops_per_example: float
    origin: Trained | None


def load_page(argument: str, overrides: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The checked page of FILE[:variant], with overrides; the head's name follows from the objective's."""
    return config.load_page(argument, overrides, PAGE, prepare=_name_head)


def complete(page: Mapping[str, Any]) -> dict[str, Any]:
    """The page with the defaults of its own keys written out, as it is kept and compared; blocks stay as they are."""
    return {item.name: getattr(Page(**page), item.name) for item in fields(Page)}


def open_experiment(as_read: dict[str, Any], *, say: Callable[[str], None] = print) -> Experiment:
    """Data, model and objective of a page; starts from `init_from` where the page names a run.

    Raises:
      ValueError: anything on the page, or in the data, that cannot work.
    """
    check(as_read, PAGE, kind="", offered=config.OFFERED)
    page = Page(**as_read)
    origin = open_trained(Path(page.init_from)) if page.init_from else None
    data = dict(page.data)
    if origin is not None:
        if page.model and page.weights == "pretrained":
            raise ValueError(
                "the page has a model block and init_from, which brings its own; remove one of the two, or set "
                "weights=scratch for another model with that run's tokenizer"
            )
        if origin.about["model"]["name"] in PAIR_MODELS and OBJECTIVES[page.objective["name"]].head:
            origin = tower_of(origin, "image" if "size" in parameters(DATA[data["name"]]) else "text")
        data = read_alike(data, origin, page.init_from)
    elif not page.model:
        raise ValueError(
            "model is missing; set it on the page, or start from a finished run with --config.init_from=DIR"
        )
    dataset = build(data, DATA, kind="data")
    for line in provenance.describe_data(dataset):
        say(line)
    _check_target(page, dataset)
    objective, about = build_objective(page, dataset.spec, None if page.model else origin)
    if bool(page.teacher) != bool(page.objective.get("soft_weight")):
        raise ValueError("teacher and objective.soft_weight belong together; set both, or neither")
    if page.teacher:
        dataset = with_soft_labels(dataset, Path(page.teacher), batch_size=page.batch_size)
    spec = dataset.spec
    length = spec.length
    backbone = build(about["model"], ALL_MODELS, kind="model")
    room = about["model"].get("text", about["model"]).get("length", 0)  # of two towers, that of texts
    if length > room > 0:
        raise ValueError(
            f"data.length={length} is longer than the model's {room} positions; use data.length={room} or less"
        )
    about |= {"tokenizer": dataset.tokenizer, "data": data, "label_names": list(dataset.spec.label_names)}
    about |= {"target_mean": spec.target_mean, "target_scale": spec.target_scale}
    about |= {"spec": {key: getattr(spec, key) for key in SIZES}}
    flops = flops_per_example(objective, backbone, spec, about["head"].get("name", ""))
    return Experiment(page, as_read, dataset, objective, about, flops, origin)


def build_objective(page: Page, spec: Spec, origin: Trained | None) -> tuple[Objective, dict[str, Any]]:
    """The objective with its model, and the resolved blocks that describe both."""
    kind = OBJECTIVES[page.objective["name"]]
    types = {key: getattr(page, key) for key in ("param_dtype", "matmul_dtype")}
    types |= {"dtype": compute_dtype(page.dtype)}
    offers = spec.offers() | types
    if origin is None:
        model = resolve(page.model, ALL_MODELS, kind="model", **(offers | {"causal": kind.causal}))
    else:
        model = _in_types(origin.about["model"], types)
        if spec.image_size and origin.spec.image_size != spec.image_size:
            raise ValueError(
                f"data.size={spec.image_size}: the model of {page.init_from} reads images of {origin.spec.image_size} "
                "pixels a side; leave data.size out, or set it to that"
            )
        sounds, known = ((each.sample_rate, each.audio_length) for each in (spec, origin.spec))
        if all(sounds) and all(known) and sounds != known:
            raise ValueError(
                f"data.sample_rate={sounds[0]} with {sounds[1]} samples a clip: the model of {page.init_from} reads "
                f"{known[1]} samples at {known[0]} Hz; leave data.sample_rate and data.seconds out, or set them to that"
            )
        if origin.spec.vocab_size != spec.vocab_size:
            raise ValueError(
                f"the tokenizer has {spec.vocab_size} tokens, that of {page.init_from} {origin.spec.vocab_size}; "
                "use that run's tokenizer.json"
            )
    _check_head(page, kind.head, model["name"])
    backbone = build(model, ALL_MODELS, kind="model")
    if bool(spec.sample_rate) != hasattr(backbone, "sample_rate"):
        raise ValueError(
            f"model.name={model['name']} and data.name={page.data['name']}: sounds are read by model.name=spectrogram "
            "(with an image model as model.tower), and by it nothing else; change one of the two"
        )
    if kind.causal and not backbone.causal:
        raise ValueError(
            f"objective.name={page.objective['name']} predicts each token from those before it, and the model of "
            f"{page.init_from or 'the page'} reads both ways; take one that is causal, such as a causal_lm run"
        )
    head, made = {}, None
    if kind.head:
        head_block = dict(page.head)
        if origin is not None and head_block == {"name": origin.about["head"]["name"]}:
            head_block = dict(origin.about["head"])
        # A tokenizer may have fewer tokens than the model.
        of_model = {"width": backbone.width, "vocab_size": model.get("vocab_size", 0)}
        head = resolve(head_block, HEADS, kind="head", **(offers | of_model))
        made = build(head, HEADS, kind="head")
    tuning: Tuning = build(page.tuning, {"": Tuning}, kind="tuning")
    joined = join(backbone, made, frozen=tuning.freeze_backbone)
    objective = build(page.objective, OBJECTIVES, kind="objective", model=joined, **offers)
    about = {"model": model, "head": head, "objective": dict(page.objective)}
    if tuning.lora_rank:
        lora = {"rank": tuning.lora_rank, "alpha": tuning.lora_alpha, "targets": tuning.lora_targets}
        return LowRank(objective, **lora), about | {"lora": lora}
    return objective, about


def compute_dtype(wanted: str) -> str:
    """`auto` is bfloat16 where every device computes in it natively, else float32."""
    if wanted != "auto":
        return wanted
    device = jax.devices()[0]
    return native_dtype(device.platform, str(getattr(device, "compute_capability", "") or ""))


def read_alike(data: dict[str, Any], origin: Trained, init_from: str) -> dict[str, Any]:
    """The data block with what the model that is started from has read: its tokenizer, or sizes of images or sounds."""
    takes = parameters(DATA[data["name"]])
    if "tokenizer" in takes:
        data["tokenizer"] = {"name": "file", "path": str(Path(init_from) / "tokenizer.json")}
    return {key: value for key, value in sizes_as_read(origin.spec).items() if key in takes} | data


def sizes_as_read(spec: Spec) -> dict[str, Any]:
    """Arguments of a data block that gives images, or sounds, of the size of these."""
    if spec.image_size:
        return {"size": spec.image_size, "channels": spec.num_channels}
    if spec.sample_rate:
        return {"sample_rate": spec.sample_rate, "seconds": spec.audio_length / spec.sample_rate}
    return {}


def _in_types(block: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """A model's block, and those of its towers, in other number types."""
    takes = parameters(ALL_MODELS[block["name"]])
    towers = {key: _in_types(value, types) for key, value in block.items() if isinstance(value, Mapping)}
    return {**block, **{key: value for key, value in types.items() if key in takes}, **towers}


def _check_head(page: Page, head: str, model: str) -> None:
    """Raises ValueError where the objective and the model do not go together: two towers have no head."""
    name = page.objective["name"]
    if bool(head) == (model in PAIR_MODELS):
        wanted = "a model of one tower, with a head" if head else f"two towers, such as {', '.join(PAIR_MODELS)}"
        raise ValueError(f"objective.name={name} wants {wanted}; model.name is {model}: change one of the two")
    if not head and page.head:
        raise ValueError(f"objective.name={name} has no head; leave the head block out")
    if not head and page.tuning:
        raise ValueError(
            f"objective.name={name}: tuning is of a backbone under a head; leave it out, or lock a tower by model.lock"
        )


def flops_per_example(objective: Objective, backbone: Any, spec: Spec, head: str) -> float:
    """Forward and backward; of the heads that of language alone is counted."""
    if not head:
        return float(backbone.num_flops(spec.image_size, spec.length))
    inner = objective.objective if isinstance(objective, LowRank) else objective
    num_views = getattr(inner, "num_views", 1)
    if spec.image_size or spec.sample_rate:
        visible = getattr(inner, "visible_share", 1.0)
        part = {"share": visible} if visible < 1.0 else {}
        return float(num_views * backbone.num_flops(spec.image_size or spec.audio_length, **part))
    share = getattr(inner, "rate", 1.0) if getattr(inner, "gather", False) else 1.0
    head_flops = 6.0 * backbone.width * spec.vocab_size if head == "language" else 0.0
    return num_views * spec.length * (backbone.num_flops(spec.length) + share * head_flops)


def _check_target(page: Page, dataset: Dataset) -> None:
    """Raises ValueError where rows lack what the objective learns from, or mark what it does not look at."""
    row, name = dataset.splits["train"].examples[0], page.objective["name"]
    wanted = getattr(OBJECTIVES[name], "target", "tokens")
    wanted = (wanted,) if isinstance(wanted, str) else wanted
    if not any(key in row for key in wanted):
        raise ValueError(
            f"objective.name={name} learns from {' or '.join(map(repr, wanted))}, which data.name={page.data['name']} "
            "does not give; change one of the two"
        )
    if "loss_mask" in row and name != "causal_lm":
        raise ValueError(f"data.name={page.data['name']} is for objective.name=causal_lm, not {name}; change one")


def _name_head(page: dict[str, Any]) -> None:
    objective = page.get("objective")
    if isinstance(objective, dict) and objective.get("name") in OBJECTIVES:
        name = OBJECTIVES[objective["name"]].head
        if name:
            page.setdefault("head", {}).setdefault("name", name)
