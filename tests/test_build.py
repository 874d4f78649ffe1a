"""Blocks into objects: what is refused, in which words, and what an override may name."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import flax.linen as nn
import pytest

from research.build import Block, build, check, nearest, override, parameters, resolve


def constant(*, num_steps: int):
    return ("constant", num_steps)


def cosine(*, num_steps: int, warmup_steps: int = 3, final: float = 0.0):
    return ("cosine", num_steps, warmup_steps, final)


SCHEDULES = {"constant": constant, "cosine": cosine}
ScheduleBlock = Annotated[Mapping, Block("schedule", SCHEDULES)]
COSINE = {"name": "cosine", "warmup_steps": 7}


def sgd(*, peak_rate: float, num_steps: int, schedule: ScheduleBlock = COSINE, momentum: float | None = 0.9):
    return peak_rate, build(schedule, SCHEDULES, kind="schedule", num_steps=num_steps), momentum


def adam(
    *, peak_rate: float, num_steps: int, schedule: ScheduleBlock = COSINE, betas: tuple[float, float] = (0.9, 0.999)
):
    return peak_rate, build(schedule, SCHEDULES, kind="schedule", num_steps=num_steps), betas


OPTIMIZERS = {"sgd": sgd, "adam": adam, "heavy": functools.partial(sgd, momentum=0.99)}


@dataclass(frozen=True)
class Saving:
    every: int = 0
    keep: bool = True
    label: str = ""
    mode: Literal["min", "max"] = "min"
    level: Literal[1, 2] = 1
    sizes: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    limit: int | None = None
    hint: str | None = None
    fields: Sequence[str] = ()
    weights: dict[str, float] = field(default_factory=dict)


class Perceptron(nn.Module):
    width: int
    sizes: tuple[int, ...] = (5, 7)
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width, use_bias=self.bias)(x)


MODELS = {"perceptron": Perceptron}


@dataclass(frozen=True)
class Page:
    optimizer: Annotated[Mapping, Block("optimizer", OPTIMIZERS)]
    num_steps: int
    model: Annotated[Mapping, Block("model", MODELS)] = field(default_factory=dict)
    saving: Annotated[Mapping, Block("saving", {"": Saving})] = field(default_factory=dict)


PAGE = {"": Page}
FITTING = {"optimizer": {"name": "sgd", "peak_rate": 0.1}, "num_steps": 11}


def overridden(key, text, page=FITTING):
    page = json.loads(json.dumps(page))
    override(page, PAGE, key=key, text=text)
    return page


# Building.


def test_build_calls_the_named_constructor_with_what_it_takes():
    built = build({"name": "sgd", "peak_rate": 0.5}, OPTIMIZERS, kind="optimizer", num_steps=11, vocab_size=13)
    assert built == (0.5, ("cosine", 11, 7, 0.0), 0.9)


def test_block_wins_over_what_is_offered():
    assert build({"name": "constant", "num_steps": 5}, SCHEDULES, kind="schedule", num_steps=11) == ("constant", 5)


def test_partial_constructor_keeps_its_argument_unless_the_block_says_otherwise():
    block = {"name": "heavy", "peak_rate": 0.5}
    assert build(block, OPTIMIZERS, kind="optimizer", num_steps=11)[2] == 0.99
    assert build(block | {"momentum": None}, OPTIMIZERS, kind="optimizer", num_steps=11)[2] is None
    assert build(block | {"momentum": 0.5}, OPTIMIZERS, kind="optimizer", num_steps=11)[2] == 0.5


def test_block_without_choice_needs_no_name():
    assert build({"every": 5}, {"": Saving}, kind="saving") == Saving(every=5)


def test_linen_module_is_built_and_its_own_fields_are_no_keys():
    model = build({"name": "perceptron", "bias": False}, MODELS, kind="model", width=3)
    assert (model.width, model.bias) == (3, False)
    assert set(parameters(Perceptron)) == {"width", "sizes", "bias"}
    with pytest.raises(ValueError, match="model.parent: no such key"):
        build({"name": "perceptron", "parent": None}, MODELS, kind="model", width=3)


def test_list_from_json_reaches_the_constructor_as_the_tuple_it_wants():
    model = build({"name": "perceptron", "width": 3, "sizes": [2, 3]}, MODELS, kind="model")
    assert model.sizes == (2, 3)
    hash(model)


# Refusing.


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            {"name": "sgdd"},
            r"optimizer\.name='sgdd': no such optimizer; did you mean sgd\? \(there are: adam, heavy, sgd",
        ),
        ({"name": "zzz"}, r"no such optimizer; there are: adam, heavy, sgd"),
        ({"name": ["sgd"]}, r"optimizer\.name=\['sgd'\]: no such optimizer"),
        ({"peak_rate": 0.1}, r"optimizer\.name is missing; choose one of adam, heavy, sgd"),
        ("sgd", r"optimizer='sgd' is not a block"),
        ({"name": "sgd", "peakrate": 1.0}, r"optimizer\.peakrate: no such key; did you mean peak_rate\?"),
        (
            {"name": "sgd"},
            r"optimizer\.peak_rate is missing; set it on the page or with --config\.optimizer\.peak_rate=…",
        ),
        ({"name": "sgd", "peak_rate": "0.1"}, r"optimizer\.peak_rate='0\.1' is str; wanted float"),
        ({"name": "sgd", "peak_rate": True}, r"optimizer\.peak_rate=True is bool; wanted float"),
        ({"name": "sgd", "peak_rate": None}, r"optimizer\.peak_rate=None is NoneType; wanted float"),
        ({"name": "sgd", "peak_rate": 1, "momentum": "x"}, r"momentum='x' is str; wanted float \| None"),
        ({"name": "adam", "peak_rate": 1, "betas": (0.9,)}, r"betas=\(0\.9,\) is tuple; wanted tuple\[float, float\]"),
        ({"name": "sgd", "peak_rate": 1, "schedule": "cosine"}, r"optimizer\.schedule='cosine' is not a block"),
        ({"name": "sgd", "peak_rate": 1, "schedule": None}, r"optimizer\.schedule=None is not a block"),
        (
            {"name": "sgd", "peak_rate": 1, "schedule": {"name": "cosin"}},
            r"schedule\.name='cosin'.*did you mean cosine\?",
        ),
        (
            {"name": "sgd", "peak_rate": 1, "schedule": {"name": "cosine", "warmup": 3}},
            r"optimizer\.schedule\.warmup: no such key; did you mean warmup_steps\?",
        ),
        (
            {"name": "sgd", "peak_rate": 1, "schedule": {"name": "cosine", "warmup_steps": 0.5}},
            r"optimizer\.schedule\.warmup_steps=0\.5 is float; wanted int",
        ),
    ],
)
def test_mistake_in_a_block_is_named_with_its_path_and_the_remedy(block, message):
    with pytest.raises(ValueError, match=message):
        build(block, OPTIMIZERS, kind="optimizer", num_steps=11)


@pytest.mark.parametrize(
    "wrong",
    [
        {"every": True},
        {"every": 1.0},
        {"every": None},
        {"keep": 1},
        {"keep": "true"},
        {"label": None},
        {"label": 3},
        {"mode": "mean"},
        {"level": True},
        {"level": 3},
        {"sizes": 3},
        {"sizes": (1, 2.5)},
        {"sizes": (1, True)},
        {"texts": "abc"},
        {"limit": "3"},
        {"limit": False},
        {"fields": "text"},
        {"weights": [1.0]},
    ],
)
def test_value_of_another_type_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"saving\.{next(iter(wrong))}="):
        build(wrong, {"": Saving}, kind="saving")


@pytest.mark.parametrize(
    "right",
    [
        {"every": 0},
        {"mode": "max"},
        {"level": 2},
        {"sizes": (1, 2)},
        {"sizes": [1, 2]},
        {"texts": ()},
        {"limit": None},
        {"limit": 3},
        {"hint": None},
        {"fields": ["text", "pair"]},
        {"weights": {"a": 1.0}},
    ],
)
def test_value_of_the_wanted_type_is_taken(right):
    build(right, {"": Saving}, kind="saving")


def test_whole_number_is_taken_for_a_float():
    assert build({"name": "sgd", "peak_rate": 1}, OPTIMIZERS, kind="optimizer", num_steps=11)[0] == 1


def test_check_passes_over_what_the_hall_offers_in_nested_blocks_too():
    check(FITTING | {"model": {"name": "perceptron"}}, PAGE, kind="", offered=("num_steps", "width"))
    with pytest.raises(
        ValueError, match=r"^model\.width is missing; set it on the page or with --config\.model\.width=…"
    ):
        check(FITTING | {"model": {"name": "perceptron"}}, PAGE, kind="", offered=("num_steps",))


def test_check_names_keys_of_the_page_without_a_leading_dot():
    with pytest.raises(ValueError, match=r"^optimiser: no such key; did you mean optimizer\?"):
        check(FITTING | {"optimiser": {}}, PAGE, kind="")
    with pytest.raises(ValueError, match=r"^num_steps is missing"):
        check({"optimizer": FITTING["optimizer"] | {"num_steps": 5}}, PAGE, kind="")


# Overriding.


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("num_steps", "1_000", 1000),
        ("optimizer.peak_rate", "3e-4", 3e-4),
        ("optimizer.peak_rate", "1", 1.0),
        ("optimizer.momentum", "None", None),
        ("optimizer.momentum", "0.5", 0.5),
        ("optimizer.schedule.warmup_steps", "5", 5),
        ("saving.keep", "false", False),
        ("saving.keep", "True", True),
        ("saving.label", "7", "7"),
        ("saving.mode", "max", "max"),
        ("saving.level", "2", 2),
        ("saving.sizes", "2,3", (2, 3)),
        ("saving.sizes", "(2, 3)", (2, 3)),
        ("saving.sizes", "[2, 3]", (2, 3)),
        ("saving.sizes", "2", (2,)),
        ("saving.sizes", "()", ()),
        ("saving.texts", "one,two", ("one", "two")),
        ("saving.texts", '["one, two", "3"]', ("one, two", "3")),
        ("saving.texts", "3", ("3",)),
        ("saving.limit", "null", None),
        ("saving.hint", "None", None),
        ("saving.hint", "yes", "yes"),
        ("saving.fields", '["text"]', ("text",)),
        ("saving.texts", "('a', \"b, c\")", ("a", "b, c")),
        ("saving.weights", '{"a": 0.5}', {"a": 0.5}),
    ],
)
def test_override_reads_the_text_as_the_argument_is_typed(key, text, value):
    page = overridden(key, text)
    check(page, PAGE, kind="", offered=("num_steps",))
    for part in key.split("."):
        page = page[part]
    assert page == value and type(page) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("num_steps", "1.5", "--config.num_steps=1.5: wanted int"),
        ("num_steps", "True", "--config.num_steps=True: wanted int"),
        ("saving.keep", "1", "--config.saving.keep=1: wanted bool"),
        ("saving.mode", "mean", "--config.saving.mode=mean: wanted one of min, max"),
        ("saving.sizes", "2,x", r"--config.saving.sizes=2,x: wanted tuple\[int, ...\]"),
        ("saving.weights", "0.5", r"--config.saving.weights=0.5: wanted dict\[str, float\]"),
        ("optimizer.betas", "1", r"--config.optimizer.betas: no such key; there are: momentum, num_steps, "),
        ("optimizer.peakrate", "1", r"--config.optimizer.peakrate: no such key; did you mean peak_rate\?"),
        ("optimiser.peak_rate", "1", r"--config.optimiser.peak_rate: no such key; did you mean optimizer\?"),
        ("optimizer", "adam", r"--config.optimizer is a block of keys; set one of them, .*optimizer.name=…"),
        ("saving", "1", r"--config.saving is a block of keys"),
        ("num_steps.x", "1", r"--config.num_steps.x: num_steps holds one value, not keys"),
        ("optimizer.name", "adm", r"optimizer.name='adm': no such optimizer; did you mean adam\?"),
        ("model.width", "3", r"model.name is missing; choose one of perceptron"),
    ],
)
def test_override_refuses_what_no_constructor_takes(key, text, message):
    with pytest.raises(ValueError, match=message):
        overridden(key, text)


def test_override_leaves_the_page_as_it_was_where_it_refuses():
    page = json.loads(json.dumps(FITTING))
    with pytest.raises(ValueError, match="no such key"):
        override(page, PAGE, key="saving.evry", text="5")
    assert page == FITTING


def test_override_within_a_block_off_the_page_starts_from_the_default_of_that_block():
    page = overridden("optimizer.schedule.final", "0.1")
    assert page["optimizer"]["schedule"] == {"name": "cosine", "warmup_steps": 7, "final": 0.1}
    assert COSINE == {"name": "cosine", "warmup_steps": 7}, "the constructor's default is not written to"


def test_switching_the_name_keeps_only_the_arguments_that_fit():
    page = FITTING | {"optimizer": {"name": "adam", "peak_rate": 0.3, "betas": [0.8, 0.9]}}
    switched = overridden("optimizer.name", "sgd", page)
    assert switched["optimizer"] == {"name": "sgd", "peak_rate": 0.3}
    assert overridden("optimizer.name", "adam", page) == page


def test_switching_the_name_of_a_block_off_the_page_leaves_the_default_of_the_other_choice():
    assert overridden("optimizer.schedule.name", "constant")["optimizer"]["schedule"] == {"name": "constant"}


def test_choosing_the_name_of_an_empty_block_opens_it():
    assert overridden("model.name", "perceptron")["model"] == {"name": "perceptron"}


# Resolving.


@pytest.mark.parametrize(
    ("block", "menu", "kind"),
    [
        ({"name": "sgd", "peak_rate": 0.5}, OPTIMIZERS, "optimizer"),
        ({"name": "heavy", "peak_rate": 0.5, "schedule": {"name": "constant"}}, OPTIMIZERS, "optimizer"),
        ({"name": "adam", "peak_rate": 0.5, "schedule": {"name": "cosine", "final": 0.1}}, OPTIMIZERS, "optimizer"),
        ({"every": 3, "sizes": (2, 3)}, {"": Saving}, "saving"),
        ({"name": "perceptron"}, MODELS, "model"),
    ],
)
def test_resolved_block_survives_json_and_builds_the_same(block, menu, kind):
    offered = {"num_steps": 11, "width": 3, "vocab_size": 13}
    full = json.loads(json.dumps(resolve(block, menu, kind=kind, **offered)))
    assert build(full, menu, kind=kind) == build(block, menu, kind=kind, **offered)
    constructor = menu[block.get("name", "")]
    assert set(full) == set(parameters(constructor)) | ({"name"} if "name" in block else set())


def test_resolved_block_holds_the_defaults_of_nested_blocks():
    full = resolve({"name": "sgd", "peak_rate": 0.5}, OPTIMIZERS, kind="optimizer", num_steps=11)
    assert full["schedule"] == {"name": "cosine", "num_steps": 11, "warmup_steps": 7, "final": 0.0}


def test_default_made_anew_is_a_value():
    assert parameters(Saving)["weights"][1] == {}
    assert parameters(Saving)["weights"][1] is not parameters(Saving)["weights"][1]


def test_nearest_says_nothing_far_fetched():
    assert nearest("peakrate", ["peak_rate", "momentum"]) == "did you mean peak_rate? (there are: momentum, peak_rate)"
    assert nearest("zzz", ["peak_rate"]) == "there are: peak_rate"
