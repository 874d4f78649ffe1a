"""What a family of published models is: its config.json, its tensors, its heads."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from research.interop.rules import Rule
from research.models.transformer import TransformerConfig

Settings = Mapping[str, Any]  # a config.json
Head = Mapping[str, Any]  # a head's block, complete
Config = TypeVar("Config")  # what a model of the family is


@dataclass(frozen=True)
class Task:
    """What a published model is for: the name of its head's block, and what its config.json says of it."""

    head: str
    labelled: bool = False  # id2label names what the head gives
    problem: str = ""  # `problem_type`, which parts the tasks of one architecture


TASKS = {
    "features": Task("embedding"),
    "masked_lm": Task("language"),
    "causal_lm": Task("language"),
    "classification": Task("classification", labelled=True, problem="single_label_classification"),
    "multi_label": Task("classification", labelled=True, problem="multi_label_classification"),
    "regression": Task("classification", labelled=True, problem="regression"),
    "tagging": Task("tagging", labelled=True),
    "question_answering": Task("spans"),
}


@dataclass(frozen=True)
class Family(Generic[Config]):
    """One `model_type`, whose models are configured by a `config`.

    `read` turns a config.json into a model block (without dtypes); `write` is its inverse, given the special ids of the
    tokenizer (none for images); `misfit` says in words why a `config` is none of this family, or "". `read_head` gives
    the head's block that a task's architecture has; `head_misfit` says why a head's block is none for a task, or "".
    The rules of `backbone` and `head` name tensors as they are where a head stands beside the backbone, whose names
    begin with `prefix` then.
    """

    model_type: str
    prefix: str
    tasks: Mapping[str, str]  # task: architecture
    read: Callable[[Settings], dict[str, Any]]
    write: Callable[[Config, Mapping[str, int]], dict[str, Any]]
    misfit: Callable[[Config], str]
    backbone: Callable[[Config, Settings], Sequence[Rule]]
    read_head: Callable[[str, Settings], dict[str, Any]]
    head_misfit: Callable[[str, Head], str]
    head: Callable[[str, Config, Head], Sequence[Rule]]
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)  # other architectures, and their task here
    unused: Sequence[str] = ()  # patterns of tensors that say nothing: buffers, heads that the architecture leaves out
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)  # endings of old files, and today's
    config: type = TransformerConfig

    def refuses(self, model: Any) -> str:
        """Why a model of any configuration is none of this family, or ""."""
        if not isinstance(model, self.config):
            return f"a {self.config.__name__}, not a {type(model).__name__}"
        return self.misfit(model)

    def architecture_of(self, settings: Settings) -> str:
        """The architecture of a config.json, that of bare features where it names none."""
        return (settings.get("architectures") or [self.tasks["features"]])[0]

    def task_of(self, settings: Settings) -> str:
        """The task of a config.json; "" where its architecture, or its `problem_type` for this, is none of `tasks`."""
        architecture = self.architecture_of(settings)
        found = [task for task, name in self.tasks.items() if name == architecture]
        if any(TASKS[task].problem for task in found):
            found = [task for task in found if TASKS[task].problem == problem_type(settings)]
        return found[0] if found else self.aliases.get(architecture, "")


def rules_of(
    family: Family[Any], task: str, model: Any, head: Head, settings: Settings, *, beside_head: bool = True
) -> Sequence[Rule]:
    """The rules of a model, with the names of a file where a head stands beside the backbone, or of one alone."""
    rules = [*family.backbone(model, settings), *family.head(task, model, head)]
    if beside_head:
        return rules
    return [dataclasses.replace(rule, theirs=rule.theirs.removeprefix(family.prefix)) for rule in rules]


def leave_unused(
    tensors: Mapping[str, np.ndarray], rules: Sequence[Rule], family: Family[Any], *, depth: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The tensors without those that say nothing in this family, and the names of these."""
    wanted = {name for rule in rules for name in rule.names(depth)}
    patterns = [re.compile(pattern) for pattern in family.unused]
    unused = [name for name in tensors if name not in wanted and any(pattern.search(name) for pattern in patterns)]
    return {name: array for name, array in tensors.items() if name not in unused}, unused


def differences(model: Any, wanted: Mapping[str, Any]) -> str:
    """`key=value, wanted value` for each field of the model that is not as wanted; values may be tuples of choices."""
    found = []
    for key, choices in wanted.items():
        choices = choices if isinstance(choices, tuple) else (choices,)
        value = getattr(model, key)
        if value not in choices:
            found.append(f"{key}={value!r}, wanted {' or '.join(map(repr, choices))}")
    return "; ".join(found)


def head_differences(head: Head, wanted: Mapping[str, Any]) -> str:
    """As `differences`, for a head's block; what the block does not say is as its constructor has it."""
    found = [f"{key}={head[key]!r}, wanted {value!r}" for key, value in wanted.items() if head.get(key, value) != value]
    return "; ".join(found)


def need(settings: Settings, key: str, *allowed: Any) -> None:
    """Raises ValueError where config.json asks for what is not supported here; absent means the first of `allowed`."""
    value = settings.get(key, allowed[0])
    if value not in allowed:
        choices = " or ".join(map(repr, allowed))
        raise ValueError(f"config.json says {key}={value!r}; here it can be {choices}")


def activation(settings: Settings, key: str, names: Mapping[str, str]) -> str:
    """Our name of an activation."""
    value = settings.get(key)
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"config.json says {key}={value!r}; here it can be {' or '.join(map(repr, names))}")
    return names[value]


def problem_type(settings: Settings) -> str:
    """What a sequence classification model learns; where config.json leaves it open, one label is a number to tell.

    Raises:
      ValueError: several numbers to tell.
    """
    num_labels = len(class_names(settings))
    named = settings.get("problem_type") or ("regression" if num_labels == 1 else "single_label_classification")
    if named == "regression" and num_labels > 1:
        raise ValueError(f"config.json says problem_type='regression' with {num_labels} labels; here it can have 1")
    return named


def class_names(settings: Settings) -> list[str]:
    """The label names of a classification config.json, by number."""
    named = settings.get("id2label") or {str(i): f"LABEL_{i}" for i in range(settings.get("num_labels", 2))}
    return [named[key] for key in sorted(named, key=int)]
