"""`finetune` with evidence: every arm once, the same again after an interruption, and a table that adds up."""

import json
import random
import shutil

import numpy as np
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
        "mesh.devices": 1,
        "evidence.seeds": 2,
        "evidence.budgets": "(12,)",
        "evidence.least_steps": 3,
        "tuning.layer_decay": 0.5,
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
    assert first["tuning"] == {"layer_decay": 0.5} and twin["tuning"] == {}  # a random start has nothing to keep
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


@pytest.mark.slow
def test_folds_take_the_place_of_seeds_and_of_the_test_split(corpus, pretrained, tmp_path, capsys):
    workdir = tmp_path / "folds"
    more = {"evidence__folds": 2, "data__test_path": "", "evaluation__robustness": "true", "evaluation__forgetting": 3}
    run_training("finetune", arguments(corpus, pretrained, workdir, **more))
    runs = {path.name: path for path in (workdir / "runs").iterdir()}
    assert sorted(runs) == [f"12-labels-{arm}-fold-{fold}" for arm in ("pretrained", "scratch") for fold in (0, 1)]
    pages = {name: json.loads((path / "config.json").read_text()) for name, path in runs.items()}
    assert [page["data"]["fold"] for _, page in sorted(pages.items())] == [0, 1, 0, 1]
    results = {name: json.loads((path / "result.json").read_text()) for name, path in runs.items()}
    evidence = json.loads((workdir / "result.json").read_text())["evidence"]
    (few,) = evidence["budgets"]
    assert evidence["metric"] == "test/accuracy" and evidence["folds"] == 2 and "seeds" not in evidence
    assert few["pretrained"]["runs"] == [results[f"12-labels-pretrained-fold-{i}"]["test/accuracy"] for i in (0, 1)]
    difference = few["paired_difference"]
    wanted = 12.706 * ((1 / 2 + 30 / 12) * np.var(difference["runs"], ddof=1)) ** 0.5  # 30 test rows, 12 labels
    assert difference["interval95"] == pytest.approx(wanted, rel=1e-4)
    for kind in ("typos", "upper_case"):
        for arm in ("pretrained", "scratch"):
            drops = [results[f"12-labels-{arm}-fold-{i}"][f"robustness/test/{kind}"]["drop"] for i in (0, 1)]
            assert few["robustness"][kind][arm]["runs"] == drops
    assert len(few["forgetting"]["runs"]) == 2 and "forgetting/after" not in results["12-labels-scratch-fold-0"]
    page = (workdir / "report.html").read_text()
    assert "over 2 folds" in page and "Under perturbation" in page
    assert "Nadeau and Bengio 2003" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evidence__folds": 1}, "evidence.folds=1: wanted 2 or more, 0 for none"),
        ({"evidence__folds": 3}, "evidence.folds=3 makes test splits of the training data, and data.test_path="),
        ({"evidence__folds": 99, "data__test_path": ""}, "folds=99: .* has 60 records"),
        ({"evidence__folds": 3, "data__test_path": "", "data__folds": 3}, "leave data.folds and data.fold out"),
        (
            {"evidence__folds": 3, "data__test_path": "", "evidence__metric": "val/accuracy"},
            "evidence.metric='val/accuracy': folds are scored as test splits; use a figure of test",
        ),
        ({"evidence__seeds": 1}, "evidence.seeds=1: an interval needs 2 or more"),
        ({"evidence__budgets": "(1,)"}, "1 labels cannot be had of 48 training rows of 2 classes"),
        ({"evidence__metric": "beauty"}, "evidence.metric='beauty': there is no beauty split; the data have val, test"),
    ],
)
def test_evidence_that_cannot_be_had_is_refused(corpus, pretrained, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run_training("finetune", arguments(corpus, pretrained, tmp_path / "x", **changes))
