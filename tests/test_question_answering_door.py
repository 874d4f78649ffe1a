"""Question answering end to end: finetuned, scored beside its floors, used by predict, and refused by convert."""

import json
import math
import random
import re

import pytest

from research.conversion import convert
from research.inspect import main as inspect
from research.predict import main as predict
from research.predict import read_threshold
from research.training_door import run_training
from tests.pages import ROOT, small_page

KINDS = {
    "who is there": ["anna", "boris", "carla", "david", "emma"],
    "where is it": ["rome", "oslo", "bern", "riga", "kiel", "lyon"],
    "when was it": ["monday", "tuesday", "friday", "sunday"],
    "what is seen": ["a red fox", "the old cat", "two dogs", "one bird"],
}


def record(draw):
    """A text that answers three of four questions, one of which is asked; or, once in five times, the fourth."""
    kinds = draw.sample(list(KINDS), 4)
    told = [draw.choice(KINDS[kind]) for kind in kinds[:3]]
    context = " ; ".join(told)
    asked = draw.choice(range(3)) if draw.random() < 0.8 else 3
    record = {"question": kinds[asked], "context": context, "answers": told[asked : asked + 1]}
    return record | {"text": f"{kinds[asked]} {context}"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    draw, place = random.Random(5), tmp_path_factory.mktemp("corpus")
    for name, rows in (("train", 600), ("test", 60)):
        (place / f"{name}.jsonl").write_text("\n".join(json.dumps(record(draw)) for _ in range(rows)))
    return place


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    changes = {"data.tokenizer.name": "wordpiece", "model.name": "bert", "model.dropout": 0.0, "model.width": 32}
    changes |= {"data.length": 20}
    page = small_page(corpus / "train.jsonl", "masked_lm", num_steps=3, evaluation__samples="()")
    more = [f"--config.{key}={value}" for key, value in changes.items()]
    run_training("pretrain", [*page, *more, f"--workdir={folder / 'mlm'}"])
    keys = {
        "data.path": corpus / "train.jsonl",
        "data.test_path": corpus / "test.jsonl",
        "init_from": folder / "mlm",
        "num_steps": 300,
        "batch_size": 32,
        "data.length": 20,
        "data.max_question": 3,
        "data.stride": 4,
        "optimizer.adam_rate": 3e-3,
        "optimizer.peak_rate": 1e-2,
        "head.dropout": 0.0,
        "evaluation.every": 0,
        "log.every": 100,
        "log.tensorboard": "false",
        "mesh.devices": 1,
    }
    arguments = [f"--config.{key}={value}" for key, value in keys.items()]
    page = f"--config={ROOT / 'configs/finetune/question_answering.py'}:tiny"
    run_training("finetune", [page, f"--workdir={folder / 'answers'}", *arguments])
    return folder / "answers"


@pytest.mark.slow
def test_it_learns_and_stands_beside_its_floors(trained):
    result = json.loads((trained / "result.json").read_text())
    for split in ("val", "test"):
        floor = max(result[f"floor/{split}/sliding_window_em"], result[f"floor/{split}/silence_em"])
        assert result[f"{split}/em"] > 0.9 > 0.5 > floor
        assert result[f"{split}/f1"] >= result[f"{split}/em"]
        assert result[f"{split}/has_answer_em"] > 0.8 and result[f"{split}/no_answer_em"] > 0.8
    assert result["val/no_answer_threshold"] == result["test/no_answer_threshold"]


@pytest.mark.slow
def test_predict_gives_the_answer_its_place_or_nothing(trained, capsys, tmp_path):
    context = "lyon ; two dogs ; emma"
    asked = ["where is it", "what is seen", "who is there", "when was it"]
    capsys.readouterr()
    predict([f"--workdir={trained}", *(f"{question}\t{context}" for question in asked)])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["answer"] for each in found] == ["lyon", "two dogs", "emma", ""]
    for question, each in zip(asked, found, strict=True):
        assert each["input"] == [question, context] and 0.5 < each["probability"] <= 1.0
        assert context[each["start"] : each["end"]] == each["answer"]
    path = tmp_path / "asked.jsonl"
    path.write_text("\n".join(json.dumps({"question": question, "context": context}) for question in asked))
    predict([f"--workdir={trained}", f"--input={path}", "--batch_size=3"])
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["answer"] for each in again] == [each["answer"] for each in found]
    assert [each["probability"] for each in again] == pytest.approx([each["probability"] for each in found], rel=1e-4)


@pytest.mark.slow
def test_published_it_answers_as_before_but_for_the_threshold(trained, capsys, tmp_path):
    convert(trained, tmp_path / "out")
    asked = [f"{question}\tlyon ; two dogs ; emma" for question in ("where is it", "what is seen", "who is there")]
    answers = []
    for place in (trained, tmp_path / "out"):
        capsys.readouterr()
        predict([f"--workdir={place}", *asked])
        answers.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert [each["answer"] for each in answers[1]] == ["lyon", "two dogs", "emma"]
    for first, second in zip(*answers, strict=True):
        assert second.pop("probability") == pytest.approx(first.pop("probability"), rel=1e-5)
        assert second == first


@pytest.mark.slow
def test_a_long_context_is_read_by_windows(trained, capsys):
    context = "; ".join(["; ; ; ; ;"] * 9) + " lyon ; two dogs ; emma " + "; ".join(["; ; ; ; ;"] * 9)
    capsys.readouterr()
    predict([f"--workdir={trained}", f"where is it\t{context}"])
    (found,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert found["answer"] == context[found["start"] : found["end"]] == "lyon"


@pytest.mark.slow
def test_without_a_threshold_something_is_always_said(trained, capsys, tmp_path):
    assert read_threshold(trained) < math.inf
    assert read_threshold(tmp_path) == math.inf
    (tmp_path / "result.json").write_text("{}")
    assert read_threshold(tmp_path) == math.inf


@pytest.mark.slow
def test_mistakes_are_named(trained):
    with pytest.raises(ValueError, match="trained on pairs; write the first text, a tab, and the second"):
        predict([f"--workdir={trained}", "where is it"])
    with pytest.raises(ValueError, match="use --task=answer"):
        predict([f"--workdir={trained}", "--task=classify", "a\tb"])


@pytest.mark.slow
def test_inspect_and_the_report_show_questions(trained, corpus, capsys):
    page = f"--config={ROOT / 'configs/finetune/question_answering.py'}:tiny"
    keys = {"data.length": 20, "data.path": corpus / "train.jsonl", "init_from": trained.parent / "mlm"}
    inspect([page, "--rows=8", *(f"--config.{key}={value}" for key, value in keys.items())])
    shown = capsys.readouterr().out
    for question, answers in KINDS.items():
        for answer in answers:
            row = re.search(rf"answer '{answer}'\n.*\n.*<bos> (.*?) <eos> (.*) <eos>", shown)
            assert row is None or (row[1] == question and answer in row[2])
    assert shown.count("->  answer '") == 8 and "->  answer ''" in shown
    assert "floor: silence" in (trained / "report.html").read_text()
