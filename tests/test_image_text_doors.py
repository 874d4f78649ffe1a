"""The doors on pictures with texts: pretraining two towers, going on from them, evaluating, and what is refused."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from research.averaging import average
from research.evaluate import main as evaluate
from research.inspect import main as inspect
from research.predict import main as predict
from research.training.restore import read_params
from research.training_door import run_training
from tests.media_files import encoded, pictures, write_folder
from tests.pages import ROOT

SMALL = {
    "data.channels": 3,
    "data.tokenizer.name": "character",
    "mesh.devices": 1,
    "log.tensorboard": "false",
}

SMALL_CONVNET = [
    f"--config.model.image.{key}={value}"
    for key, value in dict(connection="plain", stem="none", widths="[6]", depths="[1]").items()
]


def page(name, path, **changes):
    """The tiny page on pictures in `path`; dots in keys are written as __."""
    keys = SMALL | {"data.path": path} | {key.replace("__", "."): value for key, value in changes.items()}
    given = [f"--config.{key}={value}" for key, value in keys.items()]
    return [f"--config={ROOT / f'configs/pretrain/image_text_{name}.py'}:tiny", *given]


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    """Sixty pictures in two colours, with names."""
    folder = tmp_path_factory.mktemp("pictures")
    images = pictures(60, height=8, width=8) // 4
    images[::2, ..., 0] += 190
    images[1::2, ..., 2] += 190
    write_folder(folder, map(encoded, images), [f"{row}.png" for row in range(60)])
    rows = [
        {
            "file": f"{row}.png",
            "name": f"{'blue' if row % 2 else 'red'} {row // 3}",
            "script": "blue" if row % 2 else "red",
        }
        for row in range(60)
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "captions.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_tiny_page_trains_and_is_evaluated_beside_its_floors(captions, tmp_path, name):
    run = tmp_path / "run"
    run_training("pretrain", [*page(name, captions), f"--workdir={run}"])
    result = json.loads((run / "result.json").read_text())
    for way in ("image_to_text", "text_to_image"):
        assert {f"val/{way}_{figure}" for figure in ("recall_at_1", "recall_at_5", "mean_rank")} <= result.keys()
        assert {f"floor/val/{kind}_{way}_recall_at_5" for kind in ("letters", "chance")} <= result.keys()
    assert {"val/collapse", "val/scale", "val/accuracy", "val/slices"} <= result.keys()
    assert {"val/zero_shot_accuracy", "floor/val/chance_zero_shot_accuracy", "val/map_purity_script"} <= result.keys()
    page_of_run = (run / "report.html").read_text()
    assert "Texts for pictures" in page_of_run and "data:image/png;base64" in page_of_run
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val/image_to_text_recall_at_1" in line] == [10, 20]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < losses[0]
    params = read_params(run / "checkpoints", 20)
    assert ("bias" in params) == (name == "siglip") and {"image", "text", "log_scale"} <= params.keys()
    assert evaluate([f"--workdir={run}"]) == 0

    again = page(name, captions, num_steps=1, optimizer__schedule__warmup_steps=0, evaluation__every=0)
    again = [*again, f"--workdir={tmp_path / 'again'}", f"--config.init_from={run}"]
    with pytest.raises(ValueError, match="the page has a model block and init_from"):
        run_training("pretrain", again)


@pytest.mark.slow
def test_a_page_without_a_model_goes_on_from_a_run_with_batch_statistics(captions, tmp_path):
    convnet = dict(model__image__name="convnet", optimizer__schedule__warmup_steps=0, evaluation__floors="false")
    first = page("clip", captions, num_steps=2, **convnet)
    run_training("pretrain", [*first, *SMALL_CONVNET, f"--workdir={tmp_path / 'run'}"])
    path = tmp_path / "page.py"
    path.write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config():\n"
        "    data = dict(name='image_text', path='', length=24, valid_fraction=0.2, text_fields=('name',))\n"
        "    optimizer = dict(name='sgd', peak_rate=0.0, momentum=0.0)\n"
        "    objective = dict(name='clip')\n"
        "    return ConfigDict(dict(data=data, objective=objective, optimizer=optimizer, num_steps=1, batch_size=8))\n"
    )
    flags = [f"--config.data.path={captions}", f"--config.init_from={tmp_path / 'run'}", "--config.mesh.devices=1"]
    flags += ["--config.log.tensorboard=false", "--config.evaluation.floors=false", f"--workdir={tmp_path / 'again'}"]
    run_training("pretrain", [f"--config={path}", *flags])
    before, after = (read_params(tmp_path / name / "checkpoints", step) for name, step in (("run", 2), ("again", 1)))
    assert all(map(np.array_equal, jax.tree.leaves(before), jax.tree.leaves(after)))
    assert evaluate([f"--workdir={tmp_path / 'again'}"]) == 0


@pytest.mark.slow
def test_towers_are_averaged_and_finetuned_one_by_one(captions, tmp_path):
    """A run of a convnet with batch statistics cannot be averaged; each tower of any run starts a classifier."""
    plain, other, convnet = tmp_path / "plain", tmp_path / "other", tmp_path / "convnet"
    short = dict(num_steps=2, optimizer__schedule__warmup_steps=0, evaluation__floors="false", evaluation__every=0)
    run_training("pretrain", [*page("clip", captions, **short), f"--workdir={plain}"])
    run_training("pretrain", [*page("clip", captions, seed=1, **short), f"--workdir={other}"])
    given = [*page("clip", captions, model__image__name="convnet", **short), *SMALL_CONVNET]
    run_training("pretrain", [*given, f"--workdir={convnet}"])

    average([plain, other], tmp_path / "mean", command=["x"])
    first, second, mean = (
        read_params(place / "checkpoints", step) for place, step in ((plain, 2), (other, 2), (tmp_path / "mean", 0))
    )
    wanted = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    assert all(map(np.allclose, jax.tree.leaves(wanted), jax.tree.leaves(mean)))
    assert evaluate([f"--workdir={tmp_path / 'mean'}", "--no_floors"]) == 0
    with pytest.raises(ValueError, match="has batch_stats beside its parameters, which have no mean"):
        average([convnet, convnet], tmp_path / "none", command=["x"])

    flags = ["--config.mesh.devices=1", "--config.log.tensorboard=false", "--config.evaluation.floors=false"]
    flags += [f"--config.data.path={captions}", "--config.num_steps=1", f"--config.init_from={convnet}"]
    flags += [
        "--config.optimizer.name=sgd",
        "--config.optimizer.peak_rate=0.0",
        "--config.evaluation.every=0",
        "--config.data.label_field=script",
    ]
    flags += ["--config.optimizer.schedule.warmup_steps=0", "--config.data.valid_fraction=0.2"]
    for kind, tower in (("image", "image"), ("text", "text")):
        more = [] if kind == "image" else ["--config.data.text_field=name"]
        finetune = f"--config={ROOT / f'configs/finetune/{kind}_classification.py'}:tiny"
        run_training("finetune", [finetune, *flags, *more, f"--workdir={tmp_path / kind}"])
        places = [(convnet, 2, tower), (tmp_path / kind, 1, "backbone")]
        given, found = (read_params(place / "checkpoints", step)[part] for place, step, part in places)
        assert jax.tree.leaves(found) and all(map(np.array_equal, jax.tree.leaves(given), jax.tree.leaves(found)))
        assert evaluate([f"--workdir={tmp_path / kind}", "--no_floors"]) == 0


@pytest.mark.slow
def test_pictures_with_texts_are_shown_before_a_run(captions, tmp_path, capsys):
    assert inspect([*page("clip", captions), f"--workdir={tmp_path}"]) == 0
    assert "first training batch, as clip reads it" in capsys.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "batch.png"))
    assert sheet.shape == (2 * 66 + 2, 16 * 66 + 2, 3)  # the pictures, and the one view that is drawn of each


@pytest.mark.slow
def test_pictures_are_found_by_a_text_and_by_a_picture(captions, tmp_path, capsys):
    run, folder = tmp_path / "run", Path(captions).parent
    run_training("pretrain", [*page("clip", captions, num_steps=150, batch_size=30), f"--workdir={run}"])
    capsys.readouterr()
    asked = ["red 3", "blue 4", str(folder / "6.png")]
    assert predict([f"--workdir={run}", "--task=search", f"--index={folder}", "--top=10", *asked]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["input"] for line in lines] == asked
    for line, odd in zip(lines, (0, 1, 0), strict=True):  # even pictures are red, odd ones blue
        colours = [int(Path(each["file"]).stem) % 2 == odd for each in line["found"]]
        assert sum(colours) >= 9
    assert lines[2]["found"][0]["file"] == str(folder / "6.png")
    assert predict([f"--workdir={run}", "red 3"]) == 0
    vector = json.loads(capsys.readouterr().out)["embedding"]
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(batch_size=1), "batch_size=1: examples are told apart"),
        (dict(model__text__length=20), "data.length=24 is longer than the model's 20 positions"),
        (dict(model__image__name="bert"), "model.image.name='bert': no such"),
        (dict(model__name="mlp"), "objective.name=clip wants two towers, such as dual_encoder"),
        (dict(objective__name="simclr"), "objective.name=simclr wants a model of one tower, with a head"),
        (dict(head__name="projection"), "objective.name=clip has no head; leave the head block out"),
        (dict(tuning__freeze_backbone="true"), "objective.name=clip: tuning is of a backbone under a head"),
        (dict(model__bias="true"), "objective.name=clip does not see what is added to every logit"),
        (dict(objective__augmentation__hue=0.7), "augmentation.hue=0.7"),
        (dict(objective__form="ring"), "objective.form=ring: wanted one of plain, gathered, chunked"),
        (dict(data__text_fields="('title',)"), "no field 'title'"),
        (dict(evaluation__zero_shot_field="colour"), "evaluation.zero_shot_field=colour is no field that is kept"),
        (dict(evaluation__templates="('letter',)"), "wanted texts with {} where the class goes"),
    ],
)
def test_mistakes_are_named_before_work_starts(captions, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run_training("pretrain", [*page("clip", captions, **changes), f"--workdir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_a_tower_that_is_missing_is_named(captions, tmp_path):
    path = tmp_path / "page.py"
    path.write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config():\n"
        "    data = dict(name='image_text', path='', length=24, size=8, tokenizer=dict(name='byte'))\n"
        "    model = dict(name='dual_encoder', text=dict(name='bert'))\n"
        "    parts = dict(objective=dict(name='clip'), optimizer=dict(name='sgd', peak_rate=1.0))\n"
        "    return ConfigDict(parts | dict(data=data, model=model, num_steps=1, batch_size=8))\n"
    )
    with pytest.raises(ValueError, match="model.image is missing; set it on the page"):
        run_training("pretrain", [f"--config={path}", f"--config.data.path={captions}", f"--workdir={tmp_path}"])
