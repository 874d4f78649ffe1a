"""Averages of runs: exact means, heads of those that share one, and what cannot be averaged."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.averaging import average
from research.conversion import write_published
from research.trained import open_trained
from tests.drawn import BERT_HEAD, BERT_POOLED, draw, write_run
from tests.small import difference

CLASSIFIER = dict(name="classification")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two classifiers, what they began from, and one of another width."""
    place = tmp_path_factory.mktemp("average")
    first, start = draw("bert", "classification", CLASSIFIER), draw("bert", "masked_lm", BERT_HEAD)
    second = dataclasses.replace(first, params=jax.tree.map(lambda leaf: -0.5 * leaf + 0.25, first.params))
    deeper = draw("bert", "classification", CLASSIFIER, norm_position="pre")
    models = {"first": first, "second": second, "start": start, "deeper": deeper}
    for name, trained in models.items():
        write_run(place / name, trained)
    write_published(place / "published", start)
    return place, models


def test_the_mean_of_two_runs_is_exact_and_opens_as_a_run(runs, tmp_path):
    place, models = runs
    average([place / "first", place / "second"], tmp_path / "mean", shares="3,1", command=["x"], say=print)
    found = open_trained(tmp_path / "mean")
    wanted = jax.tree.map(lambda leaf: 0.75 * leaf + 0.25 * (0.25 - 0.5 * leaf), models["first"].params)
    assert difference(wanted, found.params) < 1e-6
    assert found.spec.label_names == ("bad", "fair", "good")
    ones = jnp.ones((2, 5), jnp.int32)
    logits = found.objective.logits({"params": found.params}, dict(tokens=ones, segment_ids=ones, positions=ones))
    assert logits.shape == (2, 3)
    sources = json.loads((tmp_path / "mean" / "run.json").read_text())["data"]["average_of"]
    assert [source["share"] for source in sources] == [0.75, 0.25]


@pytest.mark.parametrize("start", ["start", "published"])
def test_pretrained_weights_move_the_backbone_alone(runs, tmp_path, start):
    place, models = runs
    average([place / "first", place / start], tmp_path / "line", command=["x"], say=print)
    found = open_trained(tmp_path / "line").params
    for leaf, kept in zip(jax.tree.leaves(found["head"]), jax.tree.leaves(models["first"].params["head"]), strict=True):
        np.testing.assert_array_equal(leaf, kept)
    backbones = [models[name].params["backbone"] for name in ("first", "start")]
    assert difference(jax.tree.map(lambda a, b: (a + b) / 2, *backbones), found["backbone"]) < 1e-6


def test_heads_that_tell_numbers_in_other_units_are_not_averaged(tmp_path):
    first = draw("bert", "regression", BERT_POOLED, targets=dict(target_mean=40.0, target_scale=3.0))
    write_run(tmp_path / "first", first)
    write_published(tmp_path / "published", first)  # in the numbers' own units
    said = []
    average([tmp_path / "first", tmp_path / "published"], tmp_path / "mean", command=["x"], say=said.append)
    assert said[1].endswith("its backbone alone") and not said[0].endswith("its backbone alone")
    found = open_trained(tmp_path / "mean")
    assert found.spec.target_mean == 40.0
    assert difference(first.params, found.params) < 1e-6


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        (["first"], {}, "an average needs two runs or more"),
        (["first", "deeper"], {}, "differ in model.norm_position; average models of one shape"),
        (["first", "second"], {"shares": "1"}, "wanted 2 numbers of 0 or more"),
        (["first", "second"], {"shares": "1,x"}, "wanted 2 numbers of 0 or more"),
        (["published", "first"], {}, "is no run of ours"),
    ],
)
def test_what_has_no_average_is_refused(runs, tmp_path, names, changes, message):
    with pytest.raises(ValueError, match=message):
        average([runs[0] / name for name in names], tmp_path / "out", command=["x"], **changes)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(runs, tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(ValueError, match="is in use; give a new folder"):
        average([runs[0] / "first", runs[0] / "second"], tmp_path, command=["x"])
