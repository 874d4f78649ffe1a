"""Several labels, a number, and answers, end to end: finetuned, scored beside their floors, evaluated, predicted."""

import json
import math
import random

import pytest

from research.evaluate import main as evaluate
from research.predict import main as predict
from research.training_door import run_training
from tests.pages import ROOT, small_page

pytestmark = pytest.mark.slow

LETTERS, WORDS = "abcdefghij", {"a": "ace", "b": "beef", "c": "caged"}
NAMES = ("a", "b", "c")


def record(draw):
    """Four random words, hardly one of them twice: counts of words tell nothing, letters tell all."""
    words = ["".join(draw.choice(LETTERS) for _ in range(3)) for _ in range(4)]
    text = " ".join(words)
    first = draw.choice(NAMES)
    return {
        "text": text,
        "labels": [name for name in NAMES if name in text],
        **{name: int(name in text) for name in NAMES},
        "value": 1000.0 + 10.0 * text.count("a"),
        "prompt": first + text[1:],
        "answer": WORDS[first],
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    draw, place = random.Random(5), tmp_path_factory.mktemp("corpus")
    for name, rows in (("train", 480), ("test", 61)):
        with (place / f"{name}.jsonl").open("w") as file:
            for _ in range(rows):
                file.write(json.dumps(record(draw)) + "\n")
    return place


@pytest.fixture(scope="module")
def pretrained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for objective in ("masked_lm", "causal_lm"):
        changes = dict(num_steps=3, evaluation__samples="()", model__dropout=0.0, data__length=32)
        page = small_page(corpus / "train.jsonl", objective, **changes)
        run_training("pretrain", [*page, f"--workdir={folder / objective}"])
    return folder


def finetune(corpus, pretrained, page, origin, name="", **more):
    """The workdir of a run, and what its result.json holds."""
    keys = {
        "data.path": corpus / "train.jsonl",
        "data.test_path": corpus / "test.jsonl",
        "init_from": pretrained / origin,
        "data.length": 32,
        "num_steps": 150,
        "batch_size": 32,
        "log.tensorboard": "false",
        "log.every": 50,
        "mesh.devices": 1,
        "evaluation.every": 0,
    }
    keys |= {key.replace("__", "."): value for key, value in more.items()}
    workdir = pretrained / (name or page)
    flags = [f"--config.{key}={value}" for key, value in keys.items()]
    run_training("finetune", [f"--config={ROOT / 'configs/finetune'}/{page}.py:tiny", f"--workdir={workdir}", *flags])
    return workdir, json.loads((workdir / "result.json").read_text())


def answers(capsys, workdir, *arguments):
    capsys.readouterr()
    predict([f"--workdir={workdir}", *arguments])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def evaluated(capsys, workdir):
    capsys.readouterr()
    evaluate([f"--workdir={workdir}", "--no_floors"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


PLAIN = dict(head__dropout=0.0, objective__token_dropout=0.0, optimizer__adam_rate=1e-2, optimizer__peak_rate=1e-2)


def test_all_labels_of_a_text_are_learned_and_told(corpus, pretrained, capsys):
    workdir, result = finetune(corpus, pretrained, "multi_label", "masked_lm", **PLAIN)
    for floor in ("commonest_set", "tfidf"):
        assert result["test/accuracy"] > result[f"floor/test/{floor}_accuracy"] + 0.1
        assert result["test/micro_f1"] > result[f"floor/test/{floor}_micro_f1"]
    assert set(result["test/per_class"]) == set(NAMES)
    assert evaluated(capsys, workdir)["test/loss"] == pytest.approx(result["test/loss"], rel=1e-5)
    first, second = answers(capsys, workdir, "aaa bbb ccc abc", "ddd eee fff ggg")
    assert first["labels"] == list(NAMES) and second["labels"] == []
    assert first["probabilities"].keys() == set(NAMES) and max(second["probabilities"].values()) < 0.5
    assert "By class: test" in (workdir / "report.html").read_text()


def test_one_column_of_0_and_1_is_a_yes_or_no(corpus, pretrained, capsys):
    more = PLAIN | dict(data__label_fields="a,", objective__positive_weight="balanced")
    workdir, result = finetune(corpus, pretrained, "multi_label", "masked_lm", "one_label", **more)
    assert result["test/f1"] > result["floor/test/tfidf_f1"]
    assert "test/micro_f1" not in result
    first, second = answers(capsys, workdir, "aaa aaa bbb ccc", "ddd eee fff ggg")
    assert first["labels"] == ["a"] and second["labels"] == []


def test_a_number_is_learned_in_its_own_units(corpus, pretrained, capsys):
    more = PLAIN | dict(data__label_field="value")
    workdir, result = finetune(corpus, pretrained, "regression", "masked_lm", **more)
    for floor in ("training_mean", "tfidf_ridge"):
        assert result["test/mse"] < 0.7 * result[f"floor/test/{floor}_mse"]
    assert result["test/pearson"] > 0.7
    again = evaluated(capsys, workdir)  # from the checkpoint: it knows the units
    for measure in ("loss", "mse", "r2"):
        assert again[f"test/{measure}"] == pytest.approx(result[f"test/{measure}"], rel=1e-4)
    few, many = answers(capsys, workdir, "ddd eee fff ggg", "aad aea afa gaa")
    assert 985 < few["value"] < 1020 < many["value"] < 1100
    assert few.keys() == {"input", "value", "cut"}


def test_answers_are_learned_and_given(corpus, pretrained, capsys):
    more = dict(optimizer__peak_rate=1e-2, num_steps=200, evaluation__samples="add jjj fab,")
    workdir, result = finetune(corpus, pretrained, "prompt_answer", "causal_lm", **more)
    assert result["test/answer_accuracy"] > result["floor/test/commonest_answer_accuracy"] + 0.2
    assert result["test/loss"] < result["floor/test/unigram"]
    assert result["test/perplexity"] == pytest.approx(math.exp(result["test/loss"]))
    assert not any("bits_per_byte" in key for key in result)
    assert evaluated(capsys, workdir)["test/answer_accuracy"] == result["test/answer_accuracy"]

    # What greedy generation writes is right as often as the teacher-forced score says.
    tests = [json.loads(line) for line in (corpus / "test.jsonl").read_text().splitlines()]
    flags = ["--task=generate", "--temperature=0", "--max_tokens=7"]
    found = answers(capsys, workdir, *flags, f"--input={corpus / 'test.jsonl'}")
    right = [given["answer"] == true["answer"] for given, true in zip(found, tests, strict=True)]
    assert sum(right) / len(right) == pytest.approx(result["test/answer_accuracy"])
    assert [given["input"] for given in found] == [true["prompt"] for true in tests]
    assert all(given["output"] == f"{given['input']}\n{given['answer']}" for given in found)
    (sample,) = json.loads((workdir / "samples.json").read_text())
    assert sample["output"] == f"add jjj fab\n{sample['answer']}"


@pytest.mark.parametrize(
    ("page", "origin", "measure"),
    [("prompt_answer", "causal_lm", "answer_accuracy"), ("regression", "masked_lm", "r2")],
)
def test_evidence_is_measured_by_the_task_s_own_figure(corpus, pretrained, monkeypatch, page, origin, measure):
    """The floors beside it are that figure's: of answers, not of single tokens."""
    floors = {"floor/test/first_answer_accuracy": 0.5, "floor/test/first_accuracy": 0.4, "floor/test/first_r2": 0.3}
    result = floors | {"wall_seconds": 1.0, "test/accuracy": 0.9, f"test/{measure}": 0.8}
    monkeypatch.setattr("research.evidence._result", lambda *arguments: result)
    more = dict(evidence__seeds=2, evidence__budgets="(0,)")
    more |= dict(data__label_field="value") if page == "regression" else {}
    workdir = finetune(corpus, pretrained, page, origin, f"evidence_{page}", **more)[0]
    found = json.loads((workdir / "result.json").read_text())["evidence"]
    assert found["metric"] == f"test/{measure}"
    (budget,) = found["budgets"]
    assert budget["pretrained"]["mean"] == 0.8
    beside = {name: floor["mean"] for name, floor in budget["floors"].items()}
    assert beside == {"first": floors[f"floor/test/first_{measure}"]}


def test_single_tokens_of_answers_stand_beside_no_floor_of_whole_ones():
    from research.evidence import _summary

    result = {"floor/test/commonest_answer_accuracy": 0.5, "wall_seconds": 1.0}
    result |= {"test/accuracy": 0.9, "test/answer_accuracy": 0.8}
    found = {arm: [result, result] for arm in ("pretrained", "scratch")}
    assert _summary(found, "test/accuracy", labels=7, test_share=0.0)["floors"] == {}
    assert set(_summary(found, "test/answer_accuracy", labels=7, test_share=0.0)["floors"]) == {"commonest"}
