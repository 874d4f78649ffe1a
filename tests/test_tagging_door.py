"""Tagging end to end: finetuned, scored beside the most frequent tag, used by predict, published."""

import json
import random

import pytest

from research.conversion import convert
from research.inspect import main as inspect
from research.predict import main as predict
from research.training.step_folder import complete_steps
from research.training_door import run_training
from tests.pages import ROOT, small_page

pytestmark = pytest.mark.slow

KINDS = {"city": ["paris", "rome", "oslo"], "person": ["anna", "boris", "carla"], "": ["goes", "to", "sees", "the"]}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    draw, place = random.Random(5), tmp_path_factory.mktemp("corpus")
    for name, rows in (("train", 120), ("test", 30)):
        with (place / f"{name}.jsonl").open("w") as file:
            for _ in range(rows):
                kinds = [draw.choice(list(KINDS)) for _ in range(5)]
                words = [draw.choice(KINDS[kind]) for kind in kinds]
                tags = [f"B-{kind}" if kind else "O" for kind in kinds]
                file.write(json.dumps({"tokens": words, "tags": tags, "text": " ".join(words)}) + "\n")
    return place


@pytest.fixture(scope="module")
def tagger(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    changes = {"data.tokenizer.name": "wordpiece", "model.name": "bert", "model.dropout": 0.0}
    page = small_page(corpus / "train.jsonl", "masked_lm", num_steps=3, evaluation__samples="()")
    more = [f"--config.{key}={value}" for key, value in changes.items()]
    run_training("pretrain", [*page, *more, f"--workdir={folder / 'mlm'}"])
    keys = {
        "data.path": corpus / "train.jsonl",
        "data.test_path": corpus / "test.jsonl",
        "init_from": folder / "mlm",
        "num_steps": 40,
        "data.length": 16,
        "optimizer.adam_rate": 1e-2,
        "objective.token_dropout": 0.0,
        "head.dropout": 0.0,
        "log.tensorboard": "false",
        "mesh.devices": 1,
        "evaluation.robustness": "true",
        "evaluation.every": 4,
        "checkpoint.every": 4,
        "checkpoint.keep_latest": 1,
        "checkpoint.metric": "val/f1",
    }
    arguments = [f"--config.{key}={value}" for key, value in keys.items()]
    page = f"--config={ROOT / 'configs/finetune/tagging.py'}:tiny"
    run_training("finetune", [page, f"--workdir={folder / 'tags'}", *arguments])
    return folder / "tags"


def test_it_learns_and_stands_beside_its_floor(tagger):
    result = json.loads((tagger / "result.json").read_text())
    assert result["test/accuracy"] > 0.9 and result["test/f1"] > 0.8
    assert result["floor/test/most_frequent_tag_accuracy"] == 1.0  # each word has one tag here
    assert set(result["test/per_class"]) == {"city", "person"}
    figures = result["robustness/test/first_half"]
    assert figures["drop"] == pytest.approx(result["test/accuracy"] - figures["accuracy"])
    assert figures["most_frequent_tag_accuracy"] == 1.0
    assert sum(part["values"] for part in result["test/slices"]["length"].values()) == 30 * 5  # words


def test_checkpoints_are_ranked_by_the_f1_of_spans(tagger):
    lines = [json.loads(line) for line in (tagger / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line["val/f1"] for line in lines if "val/f1" in line}
    assert list(found) == list(range(4, 41, 4)) and found[4] < max(found.values())
    assert found[40] == pytest.approx(json.loads((tagger / "result.json").read_text())["val/f1"], abs=1e-6)
    best = max(found, key=lambda step: (found[step], step))
    assert complete_steps(tagger / "checkpoints") == sorted({best, 40})  # more of it is better: step 4 is not kept


def test_predict_gives_each_word_its_tag_and_the_spans(tagger, capsys):
    predict([f"--workdir={tagger}", "anna goes to oslo", "rome"])
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert [entry["word"] for entry in first["tags"]] == ["anna", "goes", "to", "oslo"]
    assert first["spans"] == [{"text": "anna", "type": "person"}, {"text": "oslo", "type": "city"}]
    assert second["tags"] == [{"word": "rome", "tag": "B-city"}]


def test_a_tagger_is_published(tagger, tmp_path, capsys):
    convert(tagger, tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["architectures"] == ["BertForTokenClassification"]
    capsys.readouterr()
    answers = []
    for place in (tagger, tmp_path / "out"):
        predict([f"--workdir={place}", "anna sees paris"])
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]


def test_inspect_shows_tagged_rows(tagger, corpus, capsys):
    page = f"--config={ROOT / 'configs/finetune/tagging.py'}:tiny"
    init = tagger.parent / "mlm"
    inspect(
        [page, "--config.data.length=16", f"--config.data.path={corpus / 'train.jsonl'}", f"--config.init_from={init}"]
    )
    assert "anna" in capsys.readouterr().out
