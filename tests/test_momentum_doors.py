"""The doors on MoCo and SimCSE: resuming with a queue and a teacher, scores without labels, and what is refused."""

import json

import jax
import numpy as np
import pytest

from research.evaluate import main as evaluate
from research.training.restore import read_params, read_variables
from research.training_door import run_training
from tests.pages import ROOT

QUIET = ["--config.mesh.devices=1", "--config.log.tensorboard=false"]
MOCO = [f"--config={ROOT / 'configs/pretrain/image_moco.py'}:tiny", *QUIET]
SIMCSE = [f"--config={ROOT / 'configs/pretrain/text_simcse.py'}:tiny", *QUIET]


def evaluated(workdir, capsys):
    capsys.readouterr()
    assert evaluate([f"--workdir={workdir}", "--no_floors"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_a_stopped_run_with_queue_and_teacher_equals_the_unbroken_one(tmp_path, capsys):
    page = [*MOCO, "--config.optimizer.schedule.name=constant", "--config.optimizer.schedule.warmup_steps=0"]
    page += ["--config.evaluation.floors=false", "--config.evaluation.every=0"]
    for name, stops in (("whole", (6,)), ("broken", (3, 6))):  # the queue has room for four batches
        for steps in stops:
            run_training("pretrain", [*page, f"--workdir={tmp_path / name}", f"--config.num_steps={steps}"])
    places = [tmp_path / name / "checkpoints" for name in ("whole", "broken")]
    variables = [read_variables(place, 6) for place in places]
    assert variables[0].keys() == {"batch_stats", "teacher", "queue"}
    assert variables[0]["teacher"].keys() == {"params", "batch_stats"}
    assert int(variables[0]["queue"]["cursor"]) == 6 * 16 % 64
    for first, second in (variables, [read_params(place, 6) for place in places]):
        assert jax.tree.leaves(first)
        assert all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))
    result = json.loads((tmp_path / "broken" / "result.json").read_text())
    found = evaluated(tmp_path / "broken", capsys)  # which needs queue and teacher for the loss
    for key in ("val/loss", "val/knn_accuracy", "val/rankme"):
        assert found[key] == pytest.approx(result[key], rel=1e-5)


@pytest.mark.slow
def test_texts_are_compared_with_their_neighbours_and_the_floor_without_a_label_in_training(tmp_path, capsys):
    run_training("pretrain", [*SIMCSE, f"--workdir={tmp_path / 'run'}", "--config.num_steps=4"])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"val/knn_accuracy", "val/probe_accuracy", "val/rankme", "val/uniformity", "val/collapse"} <= result.keys()
    assert result["floor/val/tfidf_accuracy"] > 0.3
    assert evaluated(tmp_path / "run", capsys)["val/loss"] == pytest.approx(result["val/loss"], rel=1e-5)


@pytest.mark.slow
def test_texts_without_labels_are_scored_by_their_vectors_alone(tmp_path, corpus):
    page = [*SIMCSE, "--config.data.name=text", "--config.data.packing=alone", f"--config.data.path={corpus}"]
    page += ["--config.data.valid_path=", "--config.data.valid_fraction=0.2", "--config.num_steps=4"]
    run_training("pretrain", [*page, f"--workdir={tmp_path / 'run'}"])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"val/loss", "val/rankme", "val/uniformity", "val/collapse"} <= result.keys()
    assert not [key for key in result if "knn" in key or key.startswith("floor/")]


@pytest.mark.parametrize(
    ("page", "changes", "message"),
    [
        (
            MOCO,
            ["--config.objective.queue_size=40"],
            "objective.queue_size=40 does not hold whole batches of batch_size=16",
        ),
        (MOCO, ["--config.accumulate=2", "--config.head.norm=true"], "would take batch norm's statistics"),
        (SIMCSE, ["--config.model.dropout=0.0"], "model.dropout=0: both views"),
        (SIMCSE, ["--config.data.name=text"], "set data.packing=alone"),
        (SIMCSE, ["--config.evaluation.robustness=true"], "simcse gives vectors"),
    ],
)
def test_mistakes_are_named_before_work_starts(tmp_path, page, changes, message):
    with pytest.raises(ValueError, match=message):
        run_training("pretrain", [*page, *changes, f"--workdir={tmp_path / 'run'}"])
    assert not (tmp_path / "run" / "checkpoints").exists()
