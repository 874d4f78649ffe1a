"""The doors from end to end on small runs: what they leave behind is what they say."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from research.evaluate import main as evaluate
from research.trained import open_trained
from research.training.restore import read_params
from research.training_door import run_training
from tests.pages import ROOT, small_page

FINETUNE = f"--config={ROOT / 'configs/finetune/text_classification.py'}:tiny"


def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def params(workdir, step):
    return read_params(workdir / "checkpoints", step)


def same(first, second):
    return all(map(np.array_equal, *map(jax.tree.leaves, (first, second))))


@pytest.fixture(scope="module")
def pretrained(corpus, tmp_path_factory):
    """A masked language model whose parameters are averaged, and the same without averaging; each step is kept."""
    folder = tmp_path_factory.mktemp("doors")
    for name, decay in (("averaged", 0.5), ("last", 0.0)):
        page = small_page(corpus, "masked_lm", num_steps=2, checkpoint__every=1, ema_decay=decay, model__dropout=0.0)
        run_training("pretrain", [*page, f"--workdir={folder / name}"])
    return folder


@pytest.fixture(scope="module")
def finetune(corpus, pretrained):
    """Finetunes for three steps with some keys changed; returns the workdir."""

    def run(name, **changes):
        keys = {"data.path": corpus, "data.length": 16, "num_steps": 3, "init_from": pretrained / "last"}
        keys |= {"log.tensorboard": "false", "evaluation.floors": "false", "mesh.devices": 1}
        keys |= {key.replace("__", "."): value for key, value in changes.items()}
        workdir = pretrained / name
        run_training(
            "finetune", [FINETUNE, f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in keys.items())]
        )
        return workdir

    return run


@pytest.mark.parametrize("name", ["averaged", "last"])
def test_evaluate_gives_the_figures_of_the_run(pretrained, capsys, name):
    capsys.readouterr()
    assert evaluate([f"--workdir={pretrained / name}", "--no_floors"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    wanted = result(pretrained / name)
    assert found["val/loss"] == pytest.approx(wanted["val/loss"], rel=1e-6)
    assert found["val/accuracy"] == wanted["val/accuracy"]


def test_evaluate_takes_an_earlier_step_and_other_data(pretrained, corpus, tmp_path, capsys):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"text": "four trees and a river"}) + "\n")
    found = []
    for more in ([], ["--step=1"], [f"--config.data.valid_path={other}"]):
        capsys.readouterr()
        assert evaluate([f"--workdir={pretrained / 'last'}", "--no_floors", *more]) == 0
        found.append(json.loads(capsys.readouterr().out.splitlines()[-1])["val/loss"])
    assert len(set(found)) == 3


def test_averaged_parameters_are_what_is_kept_to_be_used(pretrained):
    first, second = (params(pretrained / "averaged", step) for step in (1, 2))
    trained = params(pretrained / "last", 2)
    for before, after, now in zip(*map(jax.tree.leaves, (first, second, trained)), strict=True):
        np.testing.assert_allclose(after, 0.5 * before + 0.5 * now, rtol=1e-6, atol=1e-8)
    assert not same(second, trained)
    assert same(open_trained(pretrained / "averaged").params, second)


def test_a_frozen_backbone_keeps_every_bit_and_its_head_learns(finetune, pretrained):
    origin = params(pretrained / "last", 2)
    tuned = params(finetune("frozen", tuning__freeze_backbone=True), 3)
    assert same(tuned["backbone"], origin["backbone"])
    assert any(leaf.any() for leaf in jax.tree.leaves(tuned["head"]))


def test_the_first_layers_can_be_frozen(finetune, pretrained):
    origin = params(pretrained / "last", 2)["backbone"]
    tuned = params(finetune("first", tuning__freeze_layers=1), 3)["backbone"]
    kernels = [tree["layers"]["mlp"]["up"]["kernel"] for tree in (origin, tuned)]
    assert np.array_equal(kernels[0][0], kernels[1][0])
    assert not np.array_equal(kernels[0][1], kernels[1][1])
    assert same(origin["embed"], tuned["embed"])


def test_the_twin_from_scratch_starts_elsewhere(finetune, pretrained):
    """At a rate of zero nothing moves: the one keeps the pretrained backbone, the other has a fresh one."""
    kept = {
        weights: finetune(weights, weights=weights, optimizer__peak_rate=0.0, optimizer__adam_rate=0.0)
        for weights in ("pretrained", "scratch")
    }
    start, scratch = (params(kept[weights], 3) for weights in ("pretrained", "scratch"))
    assert same(start["backbone"], params(pretrained / "last", 2)["backbone"])
    assert not same(start["backbone"], scratch["backbone"])
