"""The doors on images: pretraining without labels, resuming with batch statistics, finetuning from it, evaluating."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from research.data import embedded_images
from research.evaluate import main as evaluate
from research.evaluator import evaluate_trained
from research.inspect import main as inspect
from research.predict import main as predict
from research.training.restore import read_params, read_variables
from research.training_door import run_training
from tests.pages import ROOT

SIMCLR = [
    f"--config={ROOT / 'configs/pretrain/image_simclr.py'}:tiny",
    "--config.mesh.devices=1",
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


@pytest.mark.slow
def test_a_stopped_run_with_batch_statistics_equals_the_unbroken_one(simclr):
    places = [simclr / name / "checkpoints" for name in ("whole", "broken")]
    for first, second in (
        [read_params(place, 20) for place in places],
        [read_variables(place, 20, "batch_stats") for place in places],
    ):
        assert jax.tree.leaves(first)
        assert all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


@pytest.mark.slow
def test_vectors_are_scored_beside_pixels_and_edges(simclr):
    result = json.loads((simclr / "whole" / "result.json").read_text())
    assert 0.0 < result["val/knn_accuracy"] <= 1.0
    assert {"val/probe_accuracy", "val/rankme", "val/uniformity", "val/collapse"} <= result.keys()
    assert result["floor/val/pixel_knn_accuracy"] > 0.8  # digits are easy by their pixels
    assert {"floor/val/hog_knn_accuracy", "floor/val/hog_probe_accuracy"} <= result.keys()
    lines = [json.loads(line) for line in (simclr / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val/knn_accuracy" in line] == [10, 20]
    assert "COLLAPSE" not in (simclr / "whole" / "log.txt").read_text()  # a healthy run, beside the one below
    assert {"val/few_shot_5_accuracy", "val/logistic_probe_accuracy", "val/map_purity_label"} <= result.keys()
    page_of_run = (simclr / "whole" / "report.html").read_text()
    assert "Nearest neighbours" in page_of_run and len(page_of_run) < 3_000_000
    assert evaluate([f"--workdir={simclr / 'whole'}"]) == 0


@pytest.mark.slow
def test_a_frozen_backbone_and_its_statistics_stay_and_a_new_head_learns(simclr, tmp_path):
    pretrained, workdir = simclr / "whole", tmp_path / "run"
    page = f"--config={ROOT / 'configs/finetune/image_classification.py'}:tiny"
    flags = ["--config.mesh.devices=1", "--config.log.tensorboard=false", "--config.tuning.freeze_backbone=true"]
    run_training("finetune", [page, *flags, f"--workdir={workdir}", f"--config.init_from={pretrained}"])
    given, found = (read_params(place / "checkpoints", 20) for place in (pretrained, workdir))
    assert all(map(np.array_equal, jax.tree.leaves(given["backbone"]), jax.tree.leaves(found["backbone"])))
    before, after = (read_variables(place / "checkpoints", 20, "batch_stats") for place in (pretrained, workdir))
    assert all(map(np.array_equal, jax.tree.leaves(before["backbone"]), jax.tree.leaves(after["backbone"])))
    assert found["head"]["classifier"]["kernel"].shape == (16, 10)
    assert np.abs(found["head"]["classifier"]["bias"]).max() > 0.0
    assert evaluate([f"--workdir={workdir}"]) == 0


def test_pictures_are_shown_before_a_run(tmp_path, capsys):
    assert inspect([*SIMCLR[:2], f"--workdir={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "train: examples by label" in shown and "row 15: example 15, pixels 0 to 255" in shown
    found = json.loads((tmp_path / "inspect.json").read_text())
    assert found["splits"]["train"]["shape"] == [8, 8, 1] and found["splits"]["train"]["rows"] == 970
    sheet = np.asarray(Image.open(tmp_path / "batch.png"))
    assert sheet.shape == (3 * 66 + 2, 16 * 66 + 2, 3)  # the images, and two views of them
    assert (sheet[2:66] != sheet[68:132]).any()


@pytest.mark.slow
def test_pictures_become_vectors_and_are_found_again(simclr, tmp_path, capsys):
    images = embedded_images.arrays("digits", "test")["images"][:6, :, :, 0]
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    workdir = f"--workdir={simclr / 'whole'}"
    assert predict([workdir, str(tmp_path / "3.png"), str(tmp_path / "5.png")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(line["embedding"]) for line in lines] == [16, 16]
    for _ in range(2):  # the second time from the index
        assert predict([workdir, "--task=search", f"--index={tmp_path}", "--top=2", str(tmp_path / "3.png")]) == 0
        line = json.loads(capsys.readouterr().out)
        assert line["found"][0]["file"] == str(tmp_path / "3.png") and len(line["found"]) == 2
        assert line["found"][0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert len(list((simclr / "whole" / "index").iterdir())) == 1
    (tmp_path / "6.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="6.png"):
        predict([workdir, str(tmp_path / "6.png")])
    with pytest.raises(ValueError, match="name one"):
        predict([workdir, "--task=search", str(tmp_path / "3.png")])


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


@pytest.mark.slow
def test_the_best_step_comes_with_its_own_batch_statistics(tmp_path, capsys):
    """The rate grows so much that training gets worse, and the best step is not the last."""
    flags = ["--config.evaluation.every=4", "--config.evaluation.patience=2", "--config.evaluation.floors=false"]
    flags += ["--config.checkpoint.every=4", "--config.checkpoint.metric=val/loss", "--config.num_steps=40"]
    flags += ["--config.optimizer.peak_rate=1.0", "--config.optimizer.schedule.warmup_steps=39"]
    flags += ["--config.optimizer.schedule.name=constant", "--config.optimizer.clip_norm=0.0"]
    run_training("pretrain", [*SIMCLR, *flags, f"--workdir={tmp_path}"])
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert f"the best was step {result['step']}" in said
    last = max(json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert result["step"] < last
    found = evaluate_trained(tmp_path, [], step=None, floors=False)
    assert found["step"] == result["step"]
    for key in ("val/loss", "val/rankme", "val/knn_accuracy"):
        assert found[key] == pytest.approx(result[key], rel=1e-5)


@pytest.mark.slow
def test_a_student_learns_from_a_teacher_of_images(simclr, tmp_path):
    page = f"--config={ROOT / 'configs/finetune/image_classification.py'}:tiny"
    flags = ["--config.mesh.devices=1", "--config.log.tensorboard=false", "--config.evaluation.floors=false"]
    run_training(
        "finetune", [page, *flags, f"--workdir={tmp_path / 'teacher'}", f"--config.init_from={simclr / 'whole'}"]
    )
    student = [*CLASSIFY, *flags, f"--config.teacher={tmp_path / 'teacher'}", "--config.objective.soft_weight=1.0"]
    student += ["--config.data.valid_path=", "--config.data.test_path="]
    run_training("pretrain", [*student, f"--workdir={tmp_path / 'student'}"])
    lines = [json.loads(line) for line in (tmp_path / "student" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["train/soft"] < lines[0]["train/soft"]
    with pytest.raises(ValueError, match="'image_size': 8.*'image_size': 10"):
        run_training("pretrain", [*student, "--config.data.size=10", f"--workdir={tmp_path / 'other'}"])


@pytest.mark.slow
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
