"""The linear probe through the door: nothing but the head changes, and the run is one like any other."""

import json
import random

import jax
import numpy as np
import pytest

from research.evaluator import evaluate_trained
from research.trained import open_trained
from research.training_door import run_training
from tests.pages import ROOT, small_page


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place, draw = tmp_path_factory.mktemp("probe"), random.Random(1)
    with (place / "rows.jsonl").open("w") as file:
        for index in range(80):
            words = [draw.choice([["sun", "day"], ["moon", "dark"]][index % 2]) for _ in range(3)]
            file.write(json.dumps({"text": " ".join([*words, str(index)]), "label": ["a", "b"][index % 2]}) + "\n")
    page = small_page(place / "rows.jsonl", "masked_lm", num_steps=2, evaluation__samples="()")
    run_training("pretrain", [*page, f"--workdir={place / 'start'}"])
    return place


def probe(place, name, **changes):
    keys = {"data.path": place / "rows.jsonl", "data.length": 16, "data.valid_fraction": 0.3, "mesh.devices": 1}
    keys |= {"init_from": place / "start", "tuning.linear_probe": "true", "log.tensorboard": "false"}
    keys |= {key.replace("__", "."): value for key, value in changes.items()}
    page = f"--config={ROOT / 'configs/finetune/text_classification.py'}:tiny"
    flags = [f"--config.{key}={value}" for key, value in keys.items()]
    run_training("finetune", [page, f"--workdir={place / name}", *flags])
    return json.loads((place / name / "result.json").read_text())


@pytest.mark.slow
def test_a_probe_solves_the_head_and_leaves_the_backbone(place):
    result = probe(place, "probe")
    assert result["step"] == 0 and result["val/accuracy"] > 0.9
    before, after = open_trained(place / "start").params["backbone"], open_trained(place / "probe").params["backbone"]
    for first, second in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(first, second)
    scores = evaluate_trained(place / "probe", [], step=None, floors=False)
    assert scores["val/accuracy"] == result["val/accuracy"]
    assert probe(place, "probe")["val/log_loss"] == result["val/log_loss"]  # the same command again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuning__freeze_backbone": "true"}, "tuning.linear_probe trains nothing but a head"),
        ({"head__pooling": "max"}, "tuning.linear_probe wants a plain head"),
    ],
)
def test_a_probe_of_another_kind_is_refused(place, changes, message):
    with pytest.raises(ValueError, match=message):
        probe(place, "refused", **changes)
