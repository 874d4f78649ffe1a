"""What a page may say beside data, model, objective and optimizer: how a run logs, saves, evaluates, tunes, proves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from research.metrics import more_is_better


@dataclass(frozen=True)
class Logging:
    """A line every `every` steps; with `audit` the ids of the examples of every step are kept in WORKDIR/audit."""

    every: int = 20
    tensorboard: bool = True
    audit: bool = False


@dataclass(frozen=True)
class Saving:
    """Checkpoints every `every` steps (0: one at the end); `metric` ranks the best ones that are kept.

    The metric is a figure of the validation split, such as val/loss or val/f1; what is none is refused before the first
    step, with those that there are. `mode` is what is best, its minimum or its maximum; left out it follows from the
    metric.
    """

    every: int = 0
    keep_latest: int = 2
    keep_best: int = 1
    metric: str = "val/loss"
    mode: Literal["", "min", "max"] = ""
    fall_back: bool = False  # go back to the previous complete checkpoint where the newest is damaged

    @property
    def best(self) -> Literal["min", "max"]:
        return self.mode or ("max" if more_is_better(self.metric) else "min")


@dataclass(frozen=True)
class Evaluating:
    """The validation split, whole, every `every` steps (0: only at the end); floors and samples at the end.

    With `patience` training ends once so many evaluations in a row have not bettered `checkpoint.metric`, and the best
    step is what the run gives. `robustness` scores perturbed copies of the test split (of the validation split where
    there is none) too, and `forgetting` measures on that many validation rows of the pretraining run how its loss has
    changed. With a `zero_shot_field`, one of data.slice_fields, pictures are classified by texts at the end: each value
    of the field is a class, and stands for the braces of every one of the `templates`.
    """

    every: int = 0
    patience: int = 0
    batch_size: int = 0  # 0: the training batch size
    floors: bool = True
    samples: tuple[str, ...] = ()  # texts to fill or to continue at the end
    robustness: bool = False
    forgetting: int = 0
    zero_shot_field: str = ""
    templates: tuple[str, ...] = ("{}",)

    def __post_init__(self) -> None:
        wrong = [text for text in self.templates if text.count("{}") != 1]
        if wrong or not self.templates:
            raise ValueError(
                f"evaluation.templates={self.templates}: wanted texts with {{}} where the class goes, such as 'a {{}}'"
            )
        if self.forgetting < 0:
            raise ValueError(f"evaluation.forgetting={self.forgetting}: wanted a number of rows, 0 for none")


@dataclass(frozen=True)
class Tuning:
    """What finetuning changes, and how fast: rates fall by `layer_decay` from each layer to the one below it.

    With a `lora_rank` the backbone is frozen, and low-rank updates of the `lora_targets` are trained beside the head.
    A `linear_probe` takes no step: the head is solved for in closed form (`evaluation/probes.py`).
    """

    freeze_backbone: bool = False
    freeze_layers: int = 0
    layer_decay: float = 1.0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_targets: tuple[str, ...] = ("query", "value")
    linear_probe: bool = False

    def __post_init__(self) -> None:
        if self.linear_probe and (self.lora_rank or self.multiplies):
            raise ValueError("tuning.linear_probe trains nothing but a head, in closed form; leave the other keys out")
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
    `metric` is the task's measure on the test split, or on the validation split where there is no test split: accuracy,
    f1 (spans, answers, several tags), r2, recall_at_1. The twin from scratch trains all its parameters, at one rate:
    `tuning` is about a pretrained start, and only its linear_probe is the twin's too.

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
