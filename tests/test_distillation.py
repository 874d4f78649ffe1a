"""A teacher's soft labels: the loss against a plain reference, the rows they stand beside, and what is refused."""

import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.experiment import complete, load_page, open_experiment
from research.trained import open_trained
from research.training_door import run_training
from research.types import Keys
from tests.pages import ROOT, small_page
from tests.small import packed_batch, small_objective

KEYS = Keys(noise=jax.random.key(0), dropout=jax.random.key(1))


def log_softmax(values):
    values = values - values.max(axis=1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def soft_loss(objective, variables, batch, train=True):
    loss = objective.loss(variables, batch, rng=KEYS, step=jnp.int32(0), train=train)
    return {name: (share, mean.total / mean.weight) for name, (share, mean) in loss.terms.items()}


def test_the_soft_term_is_that_of_hinton_in_float64():
    batch = {key: jnp.asarray(value) for key, value in packed_batch(rows=5).items()}
    batch["soft_labels"] = jnp.asarray(log_softmax(np.random.default_rng(2).normal(size=(5, 3))), jnp.float32)
    objective = small_objective("classification", soft_weight=0.7, temperature=3.0)
    variables = objective.init(jax.random.key(4), batch)
    found = soft_loss(objective, variables, batch)
    logits = np.asarray(objective.logits(variables, batch), np.float64)
    teacher = log_softmax(np.asarray(batch["soft_labels"], np.float64) / 3.0)
    student = log_softmax(logits / 3.0)
    wanted = 9.0 * (np.exp(teacher) * (teacher - student)).sum(axis=1).mean()
    assert found["soft"][0] == 0.7 and found["loss"][0] == pytest.approx(0.3)
    np.testing.assert_allclose(found["soft"][1], wanted, rtol=2e-5)
    np.testing.assert_allclose(
        found["loss"][1], -log_softmax(logits)[np.arange(5), np.asarray(batch["label"])].mean(), rtol=2e-6
    )
    assert list(soft_loss(objective, variables, batch, train=False)) == ["loss"]


def test_a_student_that_is_the_teacher_has_no_soft_gradient():
    batch = {key: jnp.asarray(value) for key, value in packed_batch(rows=5).items()}
    objective = small_objective("classification", soft_weight=1.0)
    variables = objective.init(jax.random.key(4), batch)
    batch["soft_labels"] = jax.nn.log_softmax(objective.logits(variables, batch))
    grads = jax.grad(lambda params: soft_loss(objective, {"params": params}, batch)["soft"][1])(variables["params"])
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) < 1e-6


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A text model, another whose tokens differ, and the first one finetuned to tell two kinds of text apart."""
    place, draw = tmp_path_factory.mktemp("distillation"), random.Random(1)
    with (place / "rows.jsonl").open("w") as file:
        for index in range(40):
            words = [draw.choice([["sun", "day"], ["moon", "dark"]][index % 2] + ["tree"]) for _ in range(4)]
            file.write(json.dumps({"text": " ".join([*words, str(index)]), "label": ["a", "b"][index % 2]}) + "\n")
    (place / "others.jsonl").write_text('{"text": "zebra quiz"}\n{"text": "jovial fax"}\n' * 20)
    for name in ("rows", "others"):
        page = small_page(place / f"{name}.jsonl", "masked_lm", num_steps=2, evaluation__samples="()")
        run_training("pretrain", [*page, f"--workdir={place / name}"])
    run_training("finetune", [*arguments(place, init_from=place / "rows"), f"--workdir={place / 'teacher'}"])
    return place


def arguments(place, **changes):
    keys = {"data.path": place / "rows.jsonl", "data.length": 16, "num_steps": 4, "batch_size": 8, "mesh.devices": 1}
    keys |= {"log.tensorboard": "false", "evaluation.floors": "false"}
    keys |= {key.replace("__", "."): value for key, value in changes.items()}
    page = f"--config={ROOT / 'configs/finetune/text_classification.py'}:tiny"
    return [page, *(f"--config.{key}={value}" for key, value in keys.items())]


def opened(place, **changes):
    page, *rest = arguments(place, **({"init_from": place / "rows"} | changes))
    overrides = [tuple(flag.removeprefix("--config.").split("=", 1)) for flag in rest]
    return open_experiment(complete(load_page(page.removeprefix("--config="), overrides)), say=lambda line: None)


@pytest.mark.slow
def test_each_training_row_has_its_teachers_probabilities(runs):
    found = opened(runs, teacher=runs / "teacher", objective__soft_weight=0.5).dataset
    plain = opened(runs).dataset
    rows = found.splits["train"].examples.rows(np.array([3, 0, 7]))
    trained = open_trained(runs / "teacher")
    part = plain.splits["train"].examples.rows(np.array([3, 0, 7]))
    batch = {key: jnp.asarray(values) for key, values in part.items()}
    logits = trained.objective.logits({"params": trained.params}, batch)
    np.testing.assert_allclose(rows["soft_labels"], jax.nn.log_softmax(logits), atol=1e-6)
    np.testing.assert_array_equal(found.splits["train"].examples[3]["soft_labels"], rows["soft_labels"][0])
    assert "soft_labels" not in found.splits["val"].examples[0]
    assert found.facts["fingerprint"] != plain.facts["fingerprint"]


@pytest.mark.slow
def test_a_smaller_student_learns_from_its_teacher(runs, tmp_path):
    changes = {"weights": "scratch", "model__name": "modern", "model__width": 8, "model__depth": 1}
    changes |= {"model__num_heads": 1, "teacher": runs / "teacher", "objective__soft_weight": 0.5}
    run_training(
        "finetune", [*arguments(runs, init_from=runs / "rows", **changes), f"--workdir={tmp_path / 'student'}"]
    )
    student = open_trained(tmp_path / "student")
    assert student.about["model"]["width"] == 8 and student.about["model"]["depth"] == 1
    lines = map(json.loads, (tmp_path / "student" / "metrics.jsonl").read_text().splitlines())
    assert any("train/soft" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "teacher"}, "teacher and objective.soft_weight belong together"),
        ({"objective__soft_weight": 0.5}, "teacher and objective.soft_weight belong together"),
        ({"objective__soft_weight": 1.5, "teacher": "teacher"}, "wanted a share from 0 to 1"),
        ({"objective__soft_weight": 0.5, "teacher": "rows"}, "is a masked_lm; give a finetuned classifier"),
        ({"objective__soft_weight": 0.5, "teacher": "teacher", "init_from": "others"}, "reads other tokens"),
        ({"model__name": "modern"}, "set weights=scratch for another model with that run's tokenizer"),
    ],
)
def test_what_cannot_teach_is_refused(runs, changes, message):
    places = {key: runs / value for key, value in changes.items() if key in ("teacher", "init_from")}
    with pytest.raises(ValueError, match=message):
        opened(runs, **(changes | places))
