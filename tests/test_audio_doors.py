"""The doors on sounds, and masked patches: pretraining, finetuning from it, evaluating, and what is refused."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from research.evaluate import main as evaluate
from research.inspect import main as inspect
from research.predict import main as predict
from research.training.restore import read_params, read_variables
from research.training_door import run_training
from tests.media_files import wav
from tests.pages import ROOT

FLAGS = ["--config.mesh.devices=1", "--config.log.tensorboard=false"]
SIMCLR = [f"--config={ROOT / 'configs/pretrain/audio_simclr.py'}:tiny", *FLAGS]
CLASSIFY = [f"--config={ROOT / 'configs/finetune/audio_classification.py'}:tiny", *FLAGS]
MASKED = [f"--config={ROOT / 'configs/pretrain/audio_masked.py'}:tiny", *FLAGS]
MAE = [f"--config={ROOT / 'configs/pretrain/image_mae.py'}:tiny", *FLAGS]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Sixty clips of two tones by three speakers, up to an eighth of a second long."""
    draw = np.random.default_rng(0)
    labels = np.arange(60, dtype=np.uint8) % 2
    lengths = draw.integers(500, 1001, 60)
    waves = [
        6000.0 * np.sin((600.0 + 900.0 * label) * np.pi * np.arange(length) / 8000.0) + 600.0 * draw.normal(size=length)
        for label, length in zip(labels, lengths, strict=True)
    ]
    place = tmp_path_factory.mktemp("recordings") / "tones.npz"
    told = {"label": labels, "speaker": np.arange(60, dtype=np.uint8) // 20, "sample_rate": np.int64(8000)}
    told["speaker_names"] = np.array(["ann", "bob", "cid"])
    np.savez(place, audio=np.concatenate(waves).astype(np.int16), offsets=np.cumsum([0, *lengths]), **told)
    left_out = ['--config.data.select="(speaker!=cid,)"', '--config.data.test_select="(speaker=cid,)"']
    return [f"--config.data.path={place}", *(flag.replace('"', "") for flag in left_out)]


@pytest.fixture(scope="module")
def simclr(recordings, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sounds") / "run"
    run_training("pretrain", [*SIMCLR, *recordings, f"--workdir={workdir}"])
    return workdir


@pytest.mark.slow
def test_vectors_of_sounds_are_scored_beside_cepstra(simclr):
    result = json.loads((simclr / "result.json").read_text())
    assert {"test/probe_accuracy", "test/rankme", "test/collapse"} <= result.keys()
    assert {"test/few_shot_5_accuracy", "test/logistic_probe_accuracy", "test/eer_label"} <= result.keys()
    assert "Nearest neighbours" in (simclr / "report.html").read_text()
    assert 0.0 < result["test/knn_accuracy"] <= 1.0
    assert result["floor/test/mfcc_svm_accuracy"] > 0.9  # tones are easy
    assert evaluate([f"--workdir={simclr}"]) == 0


def test_sounds_are_shown_before_a_run(recordings, capsys):
    assert inspect([*SIMCLR, *recordings]) == 0
    shown = capsys.readouterr().out
    assert "train: examples by label" in shown and "8,000 Hz" in shown and "row 15: example 15, 0." in shown


@pytest.mark.slow
def test_a_sheet_of_spectrograms_shows_what_the_step_sees(recordings, tmp_path):
    assert inspect([*SIMCLR, *recordings, f"--workdir={tmp_path}"]) == 0
    found = json.loads((tmp_path / "inspect.json").read_text())["splits"]["test"]
    assert found["rows"] == 20 and 0.06 < found["seconds"]["min"] <= found["seconds"]["max"] <= 0.125
    assert found["loudness"] == pytest.approx(20 * np.log10(6000 / 2**0.5 / 2**15), abs=1.0)
    sheet = np.asarray(Image.open(tmp_path / "batch.png"))
    assert sheet.shape[0] % 3 == 2 and (sheet[2:18] != sheet[68:84]).any()  # spectrograms, and two views of them


@pytest.mark.slow
def test_sounds_become_vectors_and_are_found_again(simclr, recordings, tmp_path, capsys):
    with np.load(recordings[0].split("=")[1]) as held:
        audio, offsets = held["audio"], held["offsets"]
    clips = [audio[offsets[row] : offsets[row + 1]] for row in range(6)]
    for row, clip in enumerate(clips):
        (tmp_path / f"{row}.wav").write_bytes(wav(clip))
    workdir = f"--workdir={simclr}"
    assert predict([workdir, str(tmp_path / "3.wav"), str(tmp_path / "5.wav")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(line["embedding"]) for line in lines] == [16, 16]
    for index, name in ((str(tmp_path), "3.wav"), (recordings[0].split("=")[1], "row 4")):
        asked = [workdir, "--task=search", f"--index={index}", "--top=2", str(tmp_path / "3.wav")]
        for _ in range(2):  # the second time from the index
            assert predict(asked) == 0
            (first, second) = json.loads(capsys.readouterr().out)["found"]
            assert first["similarity"] == pytest.approx(1.0, abs=1e-5) and second["similarity"] <= first["similarity"]
            assert first["file"].endswith(name)
    (tmp_path / "6.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match="6.wav"):
        predict([workdir, str(tmp_path / "6.wav")])
    with pytest.raises(ValueError, match="looks for recordings like yours"):
        predict([workdir, "--task=search", str(tmp_path / "3.wav")])


@pytest.mark.slow
def test_a_classifier_of_sounds_starts_from_it_and_reads_as_it_did(simclr, recordings, tmp_path):
    workdir = tmp_path / "run"
    run_training(
        "finetune",
        [
            *CLASSIFY,
            *recordings,
            f"--workdir={workdir}",
            f"--config.init_from={simclr}",
            "--config.tuning.freeze_backbone=true",
        ],
    )
    given, found = (read_params(place / "checkpoints", 20) for place in (simclr, workdir))
    assert all(map(np.array_equal, jax.tree.leaves(given["backbone"]), jax.tree.leaves(found["backbone"])))
    before, after = (read_variables(place / "checkpoints", 20, "batch_stats") for place in (simclr, workdir))
    assert all(map(np.array_equal, jax.tree.leaves(before["backbone"]), jax.tree.leaves(after["backbone"])))
    result = json.loads((workdir / "result.json").read_text())
    assert {"test/accuracy", "floor/test/mfcc_svm_accuracy", "floor/test/commonest_accuracy"} <= result.keys()
    assert evaluate([f"--workdir={workdir}"]) == 0
    assert predict([f"--workdir={workdir}", recordings[0].split("=")[1]]) == 0  # the whole file, labelled
    with pytest.raises(ValueError, match="reads 1000 samples at 8000 Hz; leave data.sample_rate"):
        run_training(
            "finetune",
            [
                *CLASSIFY,
                *recordings,
                f"--workdir={tmp_path / 'other'}",
                f"--config.init_from={simclr}",
                "--config.data.sample_rate=4000",
            ],
        )


@pytest.mark.slow
def test_masked_patches_of_images_are_told_better_than_at_the_start(tmp_path):
    run_training("pretrain", [*MAE, f"--workdir={tmp_path / 'run'}", "--config.num_steps=40"])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["val/loss"] for line in lines if "val/loss" in line]
    assert losses[-1] < losses[0]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"val/knn_accuracy", "val/probe_accuracy", "floor/val/pixel_knn_accuracy"} <= result.keys()
    assert evaluate([f"--workdir={tmp_path / 'run'}"]) == 0


@pytest.mark.slow
def test_masked_patches_of_sounds_are_told_better_than_at_the_start(recordings, tmp_path):
    run_training("pretrain", [*MASKED, *recordings, f"--workdir={tmp_path / 'run'}", "--config.num_steps=40"])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["val/loss"] for line in lines if "val/loss" in line]
    assert losses[-1] < losses[0]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"test/knn_accuracy", "test/eer_label", "floor/test/mfcc_svm_accuracy"} <= result.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--config.batch_size=1"], "batch_size=1"),
        (["--config.model.num_mels=400"], "makes filters that fall between"),
        (["--config.model.name=cnn"], "sounds are read by model.name=spectrogram"),
        (["--config.objective.augmentation.name=simclr"], "is for images and the data are sounds"),
        (["--config.objective.augmentation.mel_mask_bands=17"], "mel_mask_bands=17 is more than the 16 bands"),
    ],
)
def test_mistakes_are_named_before_work_starts(recordings, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run_training("pretrain", [*SIMCLR, *recordings, *changes, f"--workdir={tmp_path / 'run'}"])
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--config.objective.rate=1.0"], "objective.rate=1.0"),
        (["--config.model.name=cnn"], "encodes a part of the patches"),
        (["--config.head.decoder_width=18"], "sincos positions need a multiple of 4"),
    ],
)
def test_mistakes_of_masked_patches_are_named_before_work_starts(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run_training("pretrain", [*MAE, *changes, f"--workdir={tmp_path / 'run'}"])
    assert not (tmp_path / "run" / "checkpoints").exists()
