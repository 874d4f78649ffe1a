"""A published CLIP as a folder: read, written, opened as a start and in predict, and refused in words."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from research.conversion import convert, verify
from research.interop import read_pair_folder, write_pair_folder
from research.predict import main as predict
from research.trained import open_trained
from research.training_door import run_training
from tests.drawn import tokenizer
from tests.models.plain import drawn_variables
from tests.models.test_dual_encoder import CLIP, config
from tests.pages import ROOT

PIXELS = dict(num_channels=3, pixel_mean=(0.4, 0.5, 0.6), pixel_std=(0.2, 0.3, 0.4))
SIZE, LENGTH, VOCABULARY = 6, 7, 37
MODEL = CLIP | dict(image=CLIP["image"] | PIXELS)
IDS = dict(pad_token_id=0, bos_token_id=2, eos_token_id=3)
TOKENS = dict(pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>")
QUIET = ["--config.mesh.devices=1", "--config.log.tensorboard=false", "--config.evaluation.floors=false"]
QUIET += ["--config.evaluation.every=0", "--config.num_steps=2", "--config.batch_size=8"]


def published(folder, **changes):
    """A folder with a CLIP of random weights; its model and its parameters."""
    model = config(**(MODEL | changes))
    ones, image = jnp.ones((1, LENGTH), jnp.int32), jnp.ones((1, SIZE, SIZE, 3))
    where = dict(positions=ones, segment_ids=ones)
    params = drawn_variables(model.module(), image, ones, **where)["params"]
    table = np.array(params["text"]["embed"]["embedding"])
    table[VOCABULARY:] = 0.0  # rows that pad the vocabulary are no part of the model
    params["text"]["embed"]["embedding"] = table
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    given = dict(tokenizer=tokenizer(VOCABULARY), ids=IDS, tokens=TOKENS, size=SIZE)
    assert write_pair_folder(folder, model=model, params=params, **given) == "CLIPModel"
    return model, params


def pictures(folder, count=24):
    """Pictures with captions of the tokenizer's words."""
    folder.mkdir()
    draw = np.random.default_rng(1)
    lines = []
    for index in range(count):
        Image.fromarray(draw.integers(0, 256, (9, 8, 3)).astype(np.uint8)).save(folder / f"{index}.png")
        lines.append({"file": f"{index}.png", "text": f"w{5 + index % 20} w{6 + index // 2}"})
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "captions.jsonl"


def test_a_folder_comes_back_as_it_was(tmp_path):
    model, params = published(tmp_path)
    found = read_pair_folder(tmp_path)
    assert (found.size, found.unused) == (SIZE, [])
    assert found.model["image"]["pixel_mean"] == model.image_tower.pixel_mean
    jax.tree.map(np.testing.assert_array_equal, dict(found.params), dict(params))
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert settings["size"] == {"shortest_edge": SIZE} and settings["crop_size"]["height"] == SIZE


def test_a_folder_becomes_a_run_and_a_folder_again(tmp_path):
    published(tmp_path / "given")
    convert(tmp_path / "given", tmp_path / "run", say=lambda line: None)
    convert(tmp_path / "run", tmp_path / "back", say=lambda line: None)
    first, second = (read_pair_folder(tmp_path / place) for place in ("given", "back"))
    jax.tree.map(np.testing.assert_array_equal, dict(first.params), dict(second.params))
    for file in ("config.json", "preprocessor_config.json", "tokenizer.json"):
        given, back = (json.loads((tmp_path / place / file).read_text()) for place in ("given", "back"))
        scale = "logit_scale_init_value"
        assert given.pop(scale, 0.0) == pytest.approx(back.pop(scale, 0.0), rel=1e-12)
        assert given == back


def test_predict_embeds_texts_and_finds_pictures_by_them(tmp_path, capsys):
    published(tmp_path / "clip")
    pictures(tmp_path / "pictures", count=4)
    assert predict([f"--workdir={tmp_path / 'clip'}", "--task=embed", "w5 w6"]) == 0
    vector = json.loads(capsys.readouterr().out)["embedding"]
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    index = f"--index={tmp_path / 'pictures'}"
    assert predict([f"--workdir={tmp_path / 'clip'}", "--task=search", index, "w5 w6"]) == 0
    assert ".png" in capsys.readouterr().out


@pytest.mark.slow
def test_pretraining_goes_on_from_a_folder(tmp_path):
    _, params = published(tmp_path / "clip")
    page = f"--config={ROOT / 'configs/pretrain/image_text_clip.py'}:continue"
    keys = [f"--config.data.path={pictures(tmp_path / 'pictures')}", f"--config.data.length={LENGTH}"]
    keys += ["--config.data.valid_fraction=0.4", "--config.optimizer.schedule.warmup_steps=0"]
    workdir = f"--workdir={tmp_path / 'run'}"
    run_training("pretrain", [page, *QUIET, *keys, workdir, f"--config.init_from={tmp_path / 'clip'}"])
    found = open_trained(tmp_path / "run").params
    largest = jax.tree.map(lambda one, other: float(np.abs(one - other).max()), dict(found), dict(params))
    assert 0.0 < max(jax.tree.leaves(largest)) < 1e-3  # two small steps away


@pytest.mark.slow
def test_its_image_tower_starts_a_classifier(tmp_path):
    _, params = published(tmp_path / "clip")
    page = f"--config={ROOT / 'configs/finetune/image_classification.py'}:tiny"
    keys = [
        "--config.optimizer.schedule.warmup_steps=0",
        "--config.tuning.freeze_backbone=true",
        f"--workdir={tmp_path / 'run'}",
    ]
    run_training("finetune", [page, *QUIET, *keys, f"--config.init_from={tmp_path / 'clip'}"])
    found = open_trained(tmp_path / "run").params["backbone"]
    jax.tree.map(np.testing.assert_array_equal, dict(found), dict(params["image"]))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"architectures": ["CLIPVisionModelWithProjection"]}, "of clip CLIPModel is"),
        ("preprocessor_config.json", {"crop_size": 5}, "config.json says image_size=6, its preprocessor 5"),
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("preprocessor_config.json", None, "has no preprocessor_config.json"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, file, changes, message):
    published(tmp_path)
    if changes is None:
        (tmp_path / file).unlink()
    else:
        settings = json.loads((tmp_path / file).read_text())
        (tmp_path / file).write_text(json.dumps(settings | changes))
    with pytest.raises(ValueError, match=message):
        open_trained(tmp_path)


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(tmp_path):
    published(tmp_path)
    (tmp_path / "tokenizer.json").write_text(tokenizer(VOCABULARY + 1))
    with pytest.raises(ValueError, match="has 38 tokens, the model only 37"):
        open_trained(tmp_path)


def test_what_is_no_clip_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no published family has such a dual encoder .*image_pooling='mean'"):
        published(tmp_path, image_pooling="mean")


@pytest.mark.parity
def test_verify_finds_transformers_equal(tmp_path):
    pytest.importorskip("torch", reason="parity needs the extra hf: pip install -e '.[hf]'")
    pytest.importorskip("transformers", reason="parity needs the extra hf: pip install -e '.[hf]'")
    published(tmp_path / "clip")
    lines = []
    assert verify(tmp_path / "clip", open_trained(tmp_path / "clip"), say=lines.append) == 0
    assert [line.split(":")[0] for line in lines[:3]] == ["images", "texts", "logits"]
