"""Published weights where a run's could stand: as the start of finetuning and of pretraining, and in predict."""

import json
import random

import jax
import numpy as np
import pytest

from research.conversion import convert, write_published
from research.evaluator import evaluate_trained
from research.interop import read_folder
from research.predict import main as predict
from research.trained import open_trained
from research.training_door import run_training
from tests.drawn import FAMILIES, LENGTH, draw
from tests.pages import ROOT

COMMON = {
    "mesh.devices": 1,
    "log.tensorboard": "false",
    "evaluation.floors": "false",
    "evaluation.samples": "()",
    "num_steps": 2,
    "data.length": LENGTH,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "bert"
    write_published(folder, draw(*FAMILIES["bert"]))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    draw_word = random.Random(5)
    place = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with place.open("w") as file:
        for index in range(60):
            words = [f"w{draw_word.randint(5, 39)}" for _ in range(6)]
            record = {"text": " ".join(words), "pair": " ".join(reversed(words)), "label": ["no", "yes"][index % 2]}
            file.write(json.dumps(record) + "\n")
    return place


def run(door, page, workdir, **keys):
    changes = COMMON | {key.replace("__", "."): value for key, value in keys.items()}
    arguments = [f"--config.{key}={value}" for key, value in changes.items()]
    run_training(door, [f"--config={ROOT / page}", f"--workdir={workdir}", *arguments])
    return open_trained(workdir)


def backbone(params):
    return {str(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params["backbone"])}


@pytest.mark.slow
def test_finetuning_starts_from_the_published_weights_and_its_twin_does_not(folder, corpus, tmp_path):
    given = backbone(read_folder(folder).params)
    keys = dict(init_from=folder, data__path=corpus, optimizer__peak_rate=1e-9, optimizer__schedule__warmup_steps=0)
    keys |= dict(optimizer__adam_rate=1e-9)
    page = "configs/finetune/text_classification.py:tiny"
    started = backbone(run("finetune", page, tmp_path / "started", **keys).params)
    twin = backbone(run("finetune", page, tmp_path / "twin", weights="scratch", **keys).params)
    assert started.keys() == twin.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_allclose(started[name], array, atol=1e-6)
    table = next(name for name in given if "embed" in name)
    assert np.abs(twin[table] - given[table]).max() > 0.01


def test_a_classifier_of_pairs_is_published_with_its_labels(folder, corpus, tmp_path, capsys):
    page = "configs/finetune/text_classification.py:tiny"
    keys = dict(data__path=corpus, data__pair_field="pair", head__pooling="first", head__pooler="true")
    keys |= dict(optimizer__schedule__warmup_steps=0)
    run("finetune", page, tmp_path / "run", init_from=folder, **keys)
    convert(tmp_path / "run", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["architectures"] == ["BertForSequenceClassification"]
    assert settings["id2label"] == {"0": "no", "1": "yes"}
    capsys.readouterr()
    for place in (tmp_path / "run", tmp_path / "out"):
        predict([f"--workdir={place}", "w5 w6 w7"] if place.name == "out" else [f"--workdir={place}", "w5 w6\tw7"])
        answer = json.loads(capsys.readouterr().out)
        assert set(answer["probabilities"]) == {"no", "yes"}


def test_pretraining_goes_on_with_the_published_head(folder, corpus, tmp_path):
    keys = dict(init_from=folder, data__path=corpus, data__valid_fraction=0.2, optimizer__peak_rate=1e-9)
    page = tmp_path / "page.py"
    page.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(variant=''):\n"
        "    return ConfigDict(dict(data=dict(name='text'), objective=dict(name='masked_lm'), batch_size=8,\n"
        "        optimizer=dict(name='adamw', schedule=dict(name='constant')), num_steps=2))\n"
    )
    continued = run("pretrain", page, tmp_path / "continued", **keys)
    assert continued.about["head"]["transform"]
    given = read_folder(folder).params["head"]
    np.testing.assert_allclose(continued.params["head"]["transform"]["kernel"], given["transform"]["kernel"], atol=1e-6)


def test_evaluate_wants_a_run(folder):
    with pytest.raises(ValueError, match="holds no run but published weights"):
        evaluate_trained(folder, [], step=None, floors=False)


def test_predict_fills_masks_with_published_weights(folder, capsys):
    predict([f"--workdir={folder}", "w5 <mask> w7"])
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["masks"]) == 1 and sum(guess["probability"] for guess in answer["masks"][0]) <= 1.0
