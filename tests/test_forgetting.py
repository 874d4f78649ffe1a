"""What finetuning forgets: the loss of the run that it starts from, measured again on the same rows."""

import json

import jax
import numpy as np
import pytest

from research.conversion import convert
from research.evaluate import main as evaluate
from research.experiment import complete, load_page, open_experiment
from research.forgetting import open_forgetting
from research.training.sharding import MeshShape, make_layout
from research.training_door import run_training
from tests.pages import ROOT, small_page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def origin(corpus, tmp_path_factory):
    """A small masked language model, and its data."""
    folder = tmp_path_factory.mktemp("origin")
    (folder / "texts.jsonl").write_text(corpus.read_text())
    keys = {"num_steps": 3, "evaluation__samples": "()", "model__name": "bert", "data__tokenizer__name": "wordpiece"}
    keys |= {"head__transform": "true", "head__bias": "true"}
    run_training("pretrain", [*small_page(folder / "texts.jsonl", "masked_lm", **keys), f"--workdir={folder / 'run'}"])
    return folder


def arguments(corpus, init_from, **more):
    keys = {"data.path": corpus, "data.length": 16, "init_from": init_from, "num_steps": 4, "mesh.devices": 1}
    keys |= {"log.tensorboard": "false", "optimizer.schedule.warmup_steps": 1, "data.valid_fraction": 0.2}
    return keys | {key.replace("__", "."): str(value) for key, value in more.items()}


def opened(corpus, init_from, **more):
    page = f"{ROOT / 'configs/finetune/text_classification.py'}:tiny"
    overrides = [(key, str(value)) for key, value in arguments(corpus, init_from, **more).items()]
    return open_experiment(complete(load_page(page, overrides)), say=lambda line: None)


def test_before_is_the_loss_of_the_run_itself(corpus, origin):
    experiment = opened(corpus, origin / "run")
    result = json.loads((origin / "run" / "result.json").read_text())
    whole = open_forgetting(experiment, 10**6)
    assert whole is not None
    backbone = experiment.origin.params["backbone"]
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * np.sign(leaf), backbone)
    found = whole.measure({"backbone": moved, "head": {}}, make_layout(MeshShape(devices=1)))
    assert found["forgetting/before"] == pytest.approx(result["val/loss"], abs=1e-6)
    assert found["forgetting/after"] != pytest.approx(found["forgetting/before"], abs=1e-3)

    few = open_forgetting(experiment, 3)
    assert few is not None and open_forgetting(experiment, 0) is None
    rows, all_rows = (each.data.splits["val"].examples for each in (few, whole))
    assert len(rows) == 3 < len(all_rows) == found["forgetting/rows"]
    np.testing.assert_array_equal(rows[2]["tokens"], all_rows[2]["tokens"])
    with pytest.raises(IndexError):
        rows[3]


def test_what_cannot_be_forgotten_is_refused_before_any_work(corpus, origin, tmp_path):
    workdir = tmp_path / "run"

    def said(init_from, **more):
        keys = arguments(corpus, init_from, evaluation__forgetting=5) | more
        page = f"--config={ROOT / 'configs/finetune/text_classification.py'}:tiny"
        with pytest.raises(ValueError) as caught:
            run_training("finetune", [page, f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in keys.items())])
        assert not workdir.exists()
        return str(caught.value)

    assert "forgetting=-1: wanted a number of rows" in said(origin / "run", **{"evaluation.forgetting": "-1"})
    assert "starts from scratch has nothing to forget" in said(origin / "run", weights="scratch")
    convert(origin / "run", tmp_path / "published")
    assert "holds published weights, without the data" in said(tmp_path / "published")
    texts = (origin / "texts.jsonl").read_text()
    (origin / "texts.jsonl").write_text(texts + texts.splitlines()[0] + "\n")
    assert "have changed since it was trained" in said(origin / "run")
    (origin / "texts.jsonl").unlink()
    assert "cannot be read again" in said(origin / "run")
    (origin / "texts.jsonl").write_text(texts)


@pytest.mark.parametrize("tuning", ["freeze_backbone", "lora_rank"])
def test_a_finetuned_run_says_what_it_is_worth(corpus, origin, tmp_path, tuning, capsys):
    """Robustness, a second test set, slices and forgetting, all in one result and one report."""
    rows = [json.loads(line) | {"source": f"s{n % 2}"} for n, line in enumerate(corpus.read_text().splitlines())]
    for name, some in (("train", rows[:40]), ("test", rows[40:52]), ("shift", rows[52:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    keys = arguments(
        tmp_path / "train.jsonl",
        origin / "run",
        data__test_path=tmp_path / "test.jsonl",
        data__shift_path=tmp_path / "shift.jsonl",
        data__slice_fields="(source,)",
        evaluation__robustness="true",
        evaluation__forgetting=1000,
    )
    more = {"freeze_backbone": {"tuning.freeze_backbone": "true"}, "lora_rank": {"tuning.lora_rank": "2"}}[tuning]
    keys |= more | {"optimizer.name": "adamw", "optimizer.peak_rate": "0.05"}
    page = f"--config={ROOT / 'configs/finetune/text_classification.py'}:tiny"
    workdir = tmp_path / "run"
    run_training(
        "finetune", [page, f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in keys.items())]
    )
    result = json.loads((workdir / "result.json").read_text())
    before = json.loads((origin / "run" / "result.json").read_text())["val/loss"]
    assert result["forgetting/before"] == pytest.approx(before, abs=1e-6)
    same = result["forgetting/after"] == result["forgetting/before"]
    assert same == (tuning == "freeze_backbone")
    assert result["shift/drop"] == pytest.approx(result["test/accuracy"] - result["shift/accuracy"])
    for kind in ("typos", "lower_case", "upper_case", "first_half", "dropped_words"):
        figures = result[f"robustness/test/{kind}"]
        assert figures["drop"] == pytest.approx(result["test/accuracy"] - figures["accuracy"])
        assert figures["tfidf_drop"] == pytest.approx(result["floor/test/tfidf_accuracy"] - figures["tfidf_accuracy"])
    for split, size in (("test", 12), ("shift", 8)):
        for groups in result[f"{split}/slices"].values():
            assert sum(group["rows"] for group in groups.values()) == size
            mean = sum(group["rows"] * group["accuracy"] for group in groups.values()) / size
            assert mean == pytest.approx(result[f"{split}/accuracy"])
        assert set(result[f"{split}/slices"]) == {"label", "length", "source"}
    page = (workdir / "report.html").read_text()
    for title in ("How robust is it?", "Where is it right? test", "Where is it right? shift", "What has it forgotten?"):
        assert title in page

    capsys.readouterr()
    evaluate([f"--workdir={workdir}"])
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    for key, value in again.items():
        if key.startswith(("robustness/", "shift/drop", "test/slices")):
            assert value == result[key]
    with pytest.raises(ValueError, match="measured where finetuning ends"):
        evaluate([f"--workdir={workdir}", "--config.evaluation.forgetting=5"])
