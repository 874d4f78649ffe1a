"""`finetune` with evidence: every arm once, the same again after an interruption, and a table that adds up."""

import json
import random
import shutil

import pytest

from research.training_door import run_training
from tests.pages import ROOT, small_page

WORDS = {"yes": ["sun", "light", "day"], "no": ["moon", "dark", "night"]}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    draw, place = random.Random(7), tmp_path_factory.mktemp("corpus")
    for name, rows in (("train", 60), ("test", 20)):
        with (place / f"{name}.jsonl").open("w") as file:
            for index in range(rows):
                label = ["yes", "no"][index % 2]
                words = [draw.choice(WORDS[label] + ["stone", "tree"]) for _ in range(4)]
                file.write(json.dumps({"text": " ".join([*words, str(index), name]), "label": label}) + "\n")
    return place


@pytest.fixture(scope="module")
def pretrained(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pretrained") / "run"
    page = small_page(corpus / "train.jsonl", "masked_lm", num_steps=3, evaluation__samples="()")
    run_training("pretrain", [*page, f"--workdir={workdir}"])
    return workdir


def arguments(corpus, pretrained, workdir, **more):
    keys = {
        "data.path": corpus / "train.jsonl",
        "data.test_path": corpus / "test.jsonl",
        "data.valid_fraction": 0.2,
        "data.length": 16,
        "init_from": pretrained,
        "num_steps": 8,
        "optimizer.schedule.warmup_steps": 2,
        "log.tensorboard": "false",
        "mesh.data": 1,
        "evidence.seeds": 2,
        "evidence.budgets": "(12,)",
        "evidence.least_steps": 3,
    }
    keys |= {key.replace("__", "."): value for key, value in more.items()}
    page = f"--config={ROOT / 'configs/finetune/text_classification.py'}:tiny"
    return [page, f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in keys.items())]


@pytest.mark.slow
def test_every_arm_runs_once_and_the_table_adds_up(corpus, pretrained, tmp_path, capsys):
    workdir = tmp_path / "evidence"
    run_training("finetune", arguments(corpus, pretrained, workdir))
    runs = sorted(path.name for path in (workdir / "runs").iterdir())
    assert len(runs) == 4 and runs[0] == "12-labels-pretrained-0"
    result = json.loads((workdir / "result.json").read_text())["evidence"]
    (few,) = result["budgets"]
    assert few["labels"] == 12
    for arm in ("pretrained", "scratch"):
        folders = [workdir / "runs" / f"12-labels-{arm}-{seed}" for seed in range(2)]
        single = [json.loads((folder / "result.json").read_text()) for folder in folders]
        assert few[arm]["runs"] == [run["test/accuracy"] for run in single]
    assert len(few["floors"]["tfidf"]["runs"]) == 2
    assert "Did pretraining help?" in (workdir / "report.html").read_text()
    assert "test/accuracy in percent" in capsys.readouterr().out

    pages = [json.loads((workdir / "runs" / name / "config.json").read_text()) for name in runs]
    first, second, twin, _ = pages
    assert first["data"] == twin["data"] != second["data"]
    assert first["num_steps"] == 4 and first["optimizer"]["schedule"]["warmup_steps"] == 1
    counts = json.loads((workdir / "runs" / runs[0] / "run.json").read_text())["data"]["train"]
    assert counts["rows"] == sum(counts["labels"].values()) == 12
    assert min(counts["labels"].values()) >= 5  # as in the training part, of which a fifth is for validation

    # The same command again: only what is missing is trained.
    shutil.rmtree(workdir / "runs" / runs[-1])
    kept = (workdir / "runs" / runs[0] / "result.json").stat().st_mtime_ns
    run_training("finetune", arguments(corpus, pretrained, workdir))
    assert (workdir / "runs" / runs[0] / "result.json").stat().st_mtime_ns == kept
    assert json.loads((workdir / "result.json").read_text())["evidence"]["budgets"][0]["scratch"] == few["scratch"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evidence__seeds": 1}, "evidence.seeds=1: an interval needs 2 or more"),
        ({"evidence__budgets": "(1,)"}, "1 labels cannot be had of 48 training rows of 2 classes"),
        ({"evidence__metric": "beauty"}, "evidence.metric='beauty': there is no beauty split; the data have val, test"),
    ],
)
def test_evidence_that_cannot_be_had_is_refused(corpus, pretrained, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run_training("finetune", arguments(corpus, pretrained, tmp_path / "x", **changes))
