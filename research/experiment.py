"""The hall: a page's blocks become data, model and objective; `run.py` beside it trains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import jax

from research import config, provenance
from research.batch import Dataset, Spec
from research.build import Block, build, check, resolve
from research.data import DATA
from research.models import HEADS, MODELS, Model
from research.objectives import OBJECTIVES
from research.objectives.low_rank import LowRank
from research.trained import Trained, open_trained
from research.training.optimizer import OPTIMIZERS
from research.training.sharding import make_mesh
from research.types import Objective

Nested = Mapping[str, Any]


@dataclass(frozen=True)
class Logging:
    every: int = 20
    tensorboard: bool = True


@dataclass(frozen=True)
class Saving:
    """Checkpoints every `every` steps (0: one at the end); `metric` ranks the best ones that are kept."""

    every: int = 0
    keep_latest: int = 2
    keep_best: int = 1
    metric: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    fall_back: bool = False  # go back to the previous complete checkpoint where the newest is damaged


@dataclass(frozen=True)
class Evaluating:
    """The validation split, whole, every `every` steps (0: only at the end); floors and samples at the end.

    `robustness` scores perturbed copies of the test split (of the validation split where there is none) too, and
    `forgetting` measures on that many validation rows of the pretraining run how its loss has changed.
    """

    every: int = 0
    batch_size: int = 0  # 0: the training batch size
    floors: bool = True
    samples: tuple[str, ...] = ()  # texts to fill or to continue at the end
    robustness: bool = False
    forgetting: int = 0

    def __post_init__(self) -> None:
        if self.forgetting < 0:
            raise ValueError(f"evaluation.forgetting={self.forgetting}: wanted a number of rows, 0 for none")


@dataclass(frozen=True)
class Tuning:
    """What finetuning changes, and how fast: rates fall by `layer_decay` from each layer to the one below it.

    With a `lora_rank` the backbone is frozen, and low-rank updates of the `lora_targets` are trained beside the head.
    """

    freeze_backbone: bool = False
    freeze_layers: int = 0
    layer_decay: float = 1.0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_targets: tuple[str, ...] = ("query", "value")

    def __post_init__(self) -> None:
        if self.lora_rank and (self.freeze_backbone or self.freeze_layers or self.layer_decay != 1.0):
            raise ValueError(
                "tuning.lora_rank trains adapters in place of the backbone's own parameters; leave freeze_backbone, "
                "freeze_layers and layer_decay out"
            )

    @property
    def multiplies(self) -> bool:
        """Whether some parameters learn at another rate than the rest."""
        return bool(self.freeze_backbone or self.freeze_layers or self.layer_decay != 1.0)


@dataclass(frozen=True)
class Evidence:
    """Whether pretraining helped: `seeds` runs of the pretrained start and of its twin, for each budget of labels.

    A budget of 0 is all labels; with a share s of them a run takes num_steps · sqrt(s) steps, at least `least_steps`.
    `metric` is test/accuracy, or val/accuracy where there is no test split.

    Without a test split, `folds` of the training records take turns as one, in place of the seeds: a pair of runs each.
    As folds share most of their training data, intervals are those of the corrected resampled t-test (Nadeau and Bengio
    2003): see `evaluation/evidence.py`.
    """

    seeds: int = 3
    folds: int = 0
    budgets: tuple[int, ...] = (0,)
    least_steps: int = 40
    metric: str = ""

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ValueError(f"evidence.seeds={self.seeds}: an interval needs 2 or more")
        if self.folds and self.folds < 2:
            raise ValueError(f"evidence.folds={self.folds}: wanted 2 or more, 0 for none")
        if not self.budgets or min(self.budgets) < 0:
            raise ValueError(f"evidence.budgets={self.budgets}: wanted numbers of labels, 0 for all")


@dataclass(frozen=True)
class Page:
    """Every key of a page. Blocks without a default belong on it."""

    data: Annotated[Nested, Block("data", DATA)]
    objective: Annotated[Nested, Block("objective", OBJECTIVES)]
    optimizer: Annotated[Nested, Block("optimizer", OPTIMIZERS)]
    num_steps: int
    batch_size: int
    model: Annotated[Nested, Block("model", MODELS)] = field(default_factory=dict)
    head: Annotated[Nested, Block("head", HEADS)] = field(default_factory=dict)
    seed: int = 0
    accumulate: int = 1
    ema_decay: float = 0.0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    init_from: str = ""
    then: str = ""  # what to try next, printed at the end; {workdir} is this run's
    weights: Literal["pretrained", "scratch"] = "pretrained"
    evidence: Annotated[Nested, Block("evidence", {"": Evidence})] = field(default_factory=dict)
    tuning: Annotated[Nested, Block("tuning", {"": Tuning})] = field(default_factory=dict)
    mesh: Annotated[Nested, Block("mesh", {"": make_mesh})] = field(default_factory=dict)
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
        if page.model:
            raise ValueError("the page has a model block and init_from, which brings its own; remove one of the two")
        data["tokenizer"] = {"name": "file", "path": str(Path(page.init_from) / "tokenizer.json")}
    elif not page.model:
        raise ValueError(
            "model is missing; set it on the page, or start from a finished run with --config.init_from=DIR"
        )
    dataset = build(data, DATA, kind="data")
    for line in provenance.describe_data(dataset):
        say(line)
    objective, about = build_objective(page, dataset.spec, origin)
    length = dataset.spec.length
    backbone = build(about["model"], MODELS, kind="model")
    if length > about["model"]["length"] > 0:
        raise ValueError(
            f"data.length={length} is longer than the model's {about['model']['length']} positions; "
            f"use data.length={about['model']['length']} or less"
        )
    about |= {"tokenizer": dataset.tokenizer, "data": data, "label_names": list(dataset.spec.label_names)}
    head_flops = 6.0 * backbone.width * dataset.spec.vocab_size if about["head"]["name"] == "language" else 0.0
    inner = objective.objective if isinstance(objective, LowRank) else objective
    share = getattr(inner, "rate", 1.0) if getattr(inner, "gather", False) else 1.0
    flops = length * (backbone.num_flops(length) + share * head_flops)
    return Experiment(page, as_read, dataset, objective, about, flops, origin)


def build_objective(page: Page, spec: Spec, origin: Trained | None) -> tuple[Objective, dict[str, Any]]:
    """The objective with its model, and the resolved blocks that describe both."""
    kind = OBJECTIVES[page.objective["name"]]
    offers = spec.offers() | {"dtype": compute_dtype(page.dtype), "param_dtype": page.param_dtype}
    if origin is None:
        model = resolve(page.model, MODELS, kind="model", **(offers | {"causal": kind.causal}))
    else:
        model = {**origin.about["model"], **{key: offers[key] for key in ("dtype", "param_dtype")}}
        if origin.spec.vocab_size != spec.vocab_size:
            raise ValueError(
                f"the tokenizer has {spec.vocab_size} tokens, that of {page.init_from} {origin.spec.vocab_size}; "
                "use that run's tokenizer.json"
            )
    backbone = build(model, MODELS, kind="model")
    head_block = dict(page.head)
    if origin is not None and head_block == {"name": origin.about["head"]["name"]}:
        head_block = dict(origin.about["head"])
    of_model = {"width": backbone.width, "vocab_size": model["vocab_size"]}  # a tokenizer may have fewer tokens
    head = resolve(head_block, HEADS, kind="head", **(offers | of_model))
    joined = Model(backbone.module(), build(head, HEADS, kind="head"))
    objective = build(page.objective, OBJECTIVES, kind="objective", model=joined, **offers)
    about = {"model": model, "head": head, "objective": dict(page.objective)}
    tuning: Tuning = build(page.tuning, {"": Tuning}, kind="tuning")
    if tuning.lora_rank:
        lora = {"rank": tuning.lora_rank, "alpha": tuning.lora_alpha, "targets": tuning.lora_targets}
        return LowRank(objective, **lora), about | {"lora": lora}
    return objective, about


def compute_dtype(wanted: str) -> str:
    """`auto` is bfloat16 where every device computes in it natively, else float32."""
    if wanted != "auto":
        return wanted
    device = jax.devices()[0]
    if device.platform == "tpu":
        return "bfloat16"
    capability = float(getattr(device, "compute_capability", 0) or 0) if device.platform == "gpu" else 0.0
    return "bfloat16" if capability >= 8.0 else "float32"


def _name_head(page: dict[str, Any]) -> None:
    objective = page.get("objective")
    if isinstance(objective, dict) and objective.get("name") in OBJECTIVES:
        head = page.setdefault("head", {})
        head.setdefault("name", OBJECTIVES[objective["name"]].head)
