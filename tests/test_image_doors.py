"""The doors on images: pretraining without labels, resuming with batch statistics, finetuning from it, evaluating."""

import json

import jax
import numpy as np
import pytest

from research.evaluate import main as evaluate
from research.training.restore import read_params, read_variables
from research.training_door import run_training
from tests.pages import ROOT

SIMCLR = [
    f"--config={ROOT / 'configs/pretrain/image_simclr.py'}:tiny",
    "--config.mesh.data=1",
    "--config.log.tensorboard=false",
]
CLASSIFY = [f"--config={ROOT / 'configs/pretrain/image_classification.py'}:tiny", "--config.log.tensorboard=false"]


@pytest.fixture(scope="module")
def simclr(tmp_path_factory):
    """A run of 20 steps, whole, and one that was stopped at 10."""
    folder = tmp_path_factory.mktemp("simclr")
    page = [*SIMCLR, "--config.optimizer.schedule.name=constant", "--config.optimizer.schedule.warmup_steps=0"]
    for name, stops in (("whole", (20,)), ("broken", (10, 20))):
        for steps in stops:
            run_training("pretrain", [*page, f"--workdir={folder / name}", f"--config.num_steps={steps}"])
    return folder


def test_a_stopped_run_with_batch_statistics_equals_the_unbroken_one(simclr):
    places = [simclr / name / "checkpoints" for name in ("whole", "broken")]
    for first, second in (
        [read_params(place, 20) for place in places],
        [read_variables(place, 20, "batch_stats") for place in places],
    ):
        assert jax.tree.leaves(first)
        assert all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


def test_vectors_are_scored_beside_pixels_and_edges(simclr):
    result = json.loads((simclr / "whole" / "result.json").read_text())
    assert 0.0 < result["val/knn_accuracy"] <= 1.0
    assert {"val/probe_accuracy", "val/rankme", "val/uniformity", "val/collapse"} <= result.keys()
    assert result["floor/val/pixel_knn_accuracy"] > 0.8  # digits are easy by their pixels
    assert {"floor/val/hog_knn_accuracy", "floor/val/hog_probe_accuracy"} <= result.keys()
    lines = [json.loads(line) for line in (simclr / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val/knn_accuracy" in line] == [10, 20]
    assert evaluate([f"--workdir={simclr / 'whole'}"]) == 0


def test_a_frozen_backbone_and_its_statistics_stay_and_a_new_head_learns(simclr, tmp_path):
    pretrained, workdir = simclr / "whole", tmp_path / "run"
    page = f"--config={ROOT / 'configs/finetune/image_classification.py'}:tiny"
    flags = ["--config.mesh.data=1", "--config.log.tensorboard=false", "--config.tuning.freeze_backbone=true"]
    run_training("finetune", [page, *flags, f"--workdir={workdir}", f"--config.init_from={pretrained}"])
    given, found = (read_params(place / "checkpoints", 20) for place in (pretrained, workdir))
    assert all(map(np.array_equal, jax.tree.leaves(given["backbone"]), jax.tree.leaves(found["backbone"])))
    before, after = (read_variables(place / "checkpoints", 20, "batch_stats") for place in (pretrained, workdir))
    assert all(map(np.array_equal, jax.tree.leaves(before["backbone"]), jax.tree.leaves(after["backbone"])))
    assert found["head"]["classifier"]["kernel"].shape == (16, 10)
    assert np.abs(found["head"]["classifier"]["bias"]).max() > 0.0
    assert evaluate([f"--workdir={workdir}"]) == 0


@pytest.mark.parametrize(
    "page, changes, message",
    [
        (SIMCLR, ["--config.accumulate=2"], "would take batch norm's statistics from microbatches"),
        (CLASSIFY, ["--config.accumulate=2", "--config.objective.mixup=0.2"], "would change this objective"),
        (SIMCLR, ["--config.data.size=0"], "size"),
        (SIMCLR, ["--config.objective.augmentation.flip_probability=2"], "augmentation.flip_probability=2"),
        (SIMCLR, ["--config.objective.augmentation.hue=0.1"], "needs 3 channels"),
        (SIMCLR, ["--config.batch_size=1"], "batch_size=1"),
    ],
)
def test_mistakes_are_named_before_work_starts(tmp_path, page, changes, message):
    with pytest.raises(ValueError, match=message):
        run_training("pretrain", [*page, *changes, f"--workdir={tmp_path / 'run'}"])
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_collapsing_run_is_named(tmp_path, capsys):
    """A rate of no sense with a bound on nothing: every image ends at the same vector."""
    run_training(
        "pretrain",
        [
            *SIMCLR,
            f"--workdir={tmp_path / 'run'}",
            "--config.objective.temperature=1000000",
            "--config.optimizer.weight_decay=300",
            "--config.optimizer.peak_rate=0.003",
            "--config.evaluation.floors=false",
            "--config.model.norm=group",
            "--config.model.num_groups=2",
            "--config.num_steps=20",
        ],
    )
    assert "COLLAPSE at step 10" in capsys.readouterr().out
