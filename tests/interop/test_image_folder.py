"""Published image models as folders: read, written, opened as a start, and refused in words."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from research.batch import Spec
from research.build import resolve
from research.conversion import convert, verify, write_published
from research.interop import read_image_folder, write_image_folder
from research.models import ALL_MODELS
from research.models.convnet import ConvNetConfig
from research.predict import main as predict
from research.trained import Trained, open_trained
from research.training_door import run_training
from tests.interop.test_image_rules import SMALL_RESNET, SMALL_VIT, drawn
from tests.pages import ROOT

PIXELS = dict(pixel_mean=(0.4, 0.6), pixel_std=(0.2, 0.3))
MODELS = {
    "vit": (dataclasses.replace(SMALL_VIT, **PIXELS), "first"),
    "resnet": (ConvNetConfig(**SMALL_RESNET, widths=(4, 6), **PIXELS), "mean"),
}
NAMES = ("cat", "dog", "owl")


def published(folder, name, *, task="classification", channels=2):
    config, pooling = MODELS[name]
    config = dataclasses.replace(config, num_channels=channels)
    if channels != 2:
        config = dataclasses.replace(config, pixel_mean=(0.5,), pixel_std=(0.5,))
    head = dict(name="classification", num_classes=3, pooling=pooling)
    variables = drawn(config, head)
    size = 6 if name == "vit" else 48
    label_names = NAMES if task == "classification" else ()
    more = dict(size=size, label_names=label_names)
    write_image_folder(folder, model=config, head=head, task=task, variables=variables, **more)
    return config, variables


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_comes_back_as_it_was(tmp_path, name):
    config, variables = published(tmp_path, name)
    found = read_image_folder(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, dict(found.variables), variables)
    assert found.label_names == list(NAMES) and found.task == "classification"
    assert found.model["pixel_mean"] == config.pixel_mean and found.model["pixel_std"] == config.pixel_std
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert settings["image_processor_type"] == "ViTImageProcessor" and settings["size"]["height"] == found.size


@pytest.mark.parametrize("name", MODELS)
def test_a_published_folder_becomes_a_run_and_a_folder_again(tmp_path, name):
    published(tmp_path / "given", name)
    convert(tmp_path / "given", tmp_path / "run", say=lambda line: None)
    convert(tmp_path / "run", tmp_path / "back", say=lambda line: None)
    first, second = (read_image_folder(tmp_path / place) for place in ("given", "back"))
    jax.tree.map(np.testing.assert_array_equal, dict(first.variables), dict(second.variables))
    files = [
        {
            file: json.loads((tmp_path / place / file).read_text())
            for file in ("config.json", "preprocessor_config.json")
        }
        for place in ("given", "back")
    ]
    assert files[0] == files[1]


@pytest.mark.slow
def test_a_published_classifier_labels_pictures(tmp_path, capsys):
    published(tmp_path / "given", "resnet", channels=3)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    assert predict([f"--workdir={tmp_path / 'given'}", str(tmp_path / "a.png")]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["label"] in NAMES and sum(line["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_finetuning_starts_from_a_published_folder(tmp_path):
    _, variables = published(tmp_path / "given", "vit", task="features", channels=1)
    page = f"--config={ROOT / 'configs/finetune/image_classification.py'}:tiny"
    flags = ["--config.mesh.devices=1", "--config.log.tensorboard=false", "--config.num_steps=2"]
    flags += ["--config.evaluation.every=0", "--config.evaluation.floors=false", "--config.tuning.freeze_backbone=true"]
    flags += ["--config.optimizer.schedule.warmup_steps=0", "--config.optimizer.schedule.name=constant"]
    run_training(
        "finetune", [page, *flags, f"--workdir={tmp_path / 'run'}", f"--config.init_from={tmp_path / 'given'}"]
    )
    trained = open_trained(tmp_path / "run")
    assert trained.spec.image_size == 6 and trained.about["head"]["num_classes"] == 10
    jax.tree.map(np.testing.assert_array_equal, dict(trained.params["backbone"]), variables["params"]["backbone"])


def test_what_cannot_be_read_is_refused(tmp_path):
    published(tmp_path, "vit")
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    for changes, message in (
        (dict(size={"height": 9, "width": 9}), "config.json says image_size=6, its preprocessor 9"),
        (dict(do_rescale=False), "do_rescale=False"),
        (dict(image_mean=None), ""),
    ):
        changed = {key: value for key, value in (settings | changes).items() if value is not None}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message or "lacks 'image_mean'"):
            read_image_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="nothing says which pixels its model saw"):
        read_image_folder(tmp_path)
    config = ConvNetConfig(**SMALL_RESNET, widths=(4, 6), stem="cifar")
    head = dict(name="classification", num_classes=3, pooling="mean")
    with pytest.raises(ValueError, match="stem='cifar', wanted 'imagenet'"):
        write_image_folder(tmp_path, model=config, head=head, task="classification", variables={}, size=8)


def test_a_model_of_sounds_has_no_published_layout(tmp_path):
    tower = dict(name="mlp", width=4)
    given = dict(sample_rate=8000, audio_length=1600, num_mels=8, tower=tower)
    model = resolve(dict(name="spectrogram", **given), ALL_MODELS, kind="model", image_size=0, num_channels=0)
    about = {"model": model, "head": {}, "objective": {}, "tokenizer": ""}
    trained = Trained(None, {}, None, Spec(sample_rate=8000, audio_length=1600), about, 0, None)
    with pytest.raises(ValueError, match="no published family has a spectrogram model"):
        write_published(tmp_path / "out", trained)


@pytest.mark.parity
@pytest.mark.parametrize("task", ["classification", "features"])
@pytest.mark.parametrize("name", MODELS)
def test_verify_compares_both_sides(tmp_path, name, task):
    pytest.importorskip("transformers", reason="parity needs the extra hf: pip install -e '.[hf]'")
    published(tmp_path, name, task=task)
    lines = []
    assert verify(tmp_path, open_trained(tmp_path), say=lines.append) == 0
    assert lines[-1] == "equal to 1e-05"
