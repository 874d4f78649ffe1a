"""LoRA: it starts from the given model, trains the adapters and the head alone, and merges without a difference."""

import json
import random
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.objectives.low_rank import KERNELS, LowRank
from research.predict import main as predict
from research.trained import open_trained
from research.training_door import run_training
from research.types import Keys
from tests.pages import ROOT, small_page
from tests.small import packed_batch, small_objective

ALL = tuple(name.split("/")[1] for name in KERNELS)


@pytest.fixture(scope="module")
def made():
    batch = {key: jnp.asarray(value) for key, value in packed_batch(rows=3).items()}
    adapted = LowRank(small_objective("classification", model="llama"), rank=2, alpha=6.0, targets=ALL)
    variables = nn.meta.unbox(adapted.init(jax.random.key(1), batch))
    draw = iter(jax.random.split(jax.random.key(2), 100))
    moved = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(draw), leaf.shape), variables["params"])
    return adapted, batch, variables, {**variables, "params": moved}


def test_it_starts_from_the_given_model(made):
    adapted, batch, variables, _ = made
    merged = adapted.merged(variables)
    for left, right in zip(
        jax.tree.leaves(merged["backbone"]), jax.tree.leaves(variables["frozen"]["backbone"]), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def test_a_merged_kernel_is_the_kernel_beside_its_adapter(made):
    """x W' = x W + (alpha / rank) (x A) B, in float64, for every kernel."""
    adapted, _, _, variables = made
    merged = adapted.merged(variables)["backbone"]["layers"]
    draw = np.random.default_rng(3)
    for name, num_inputs in KERNELS.items():
        room, kernel = name.split("/")
        given = np.asarray(variables["frozen"]["backbone"]["layers"][room][kernel]["kernel"], np.float64)
        adapter = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), variables["params"]["adapters"][name.replace("/", "_")]
        )
        for layer in range(2):
            matrix = given[layer].reshape(int(np.prod(given.shape[1 : 1 + num_inputs])), -1)
            inputs = draw.normal(size=(5, len(matrix)))
            beside = inputs @ matrix + 3.0 * (inputs @ adapter["a"][layer]) @ adapter["b"][layer]
            found = inputs @ np.asarray(merged[room][kernel]["kernel"][layer], np.float64).reshape(matrix.shape)
            assert np.abs(found - beside).max() / np.abs(beside).max() < 1e-5


def test_the_adapters_gradient_is_that_through_the_kernel(made):
    """d loss / d B = (alpha / rank) A^T (d loss / d W), with the plain objective's own gradient."""
    adapted, batch, _, variables = made
    keys = Keys(jax.random.key(5), jax.random.key(6))

    def loss(objective, variables):
        _, mean = objective.loss(variables, batch, rng=keys, step=jnp.zeros((), jnp.int32), train=False).terms["loss"]
        return mean.total / mean.weight

    ours = jax.grad(lambda params: loss(adapted, {**variables, "params": params}))(variables["params"])
    plain = jax.grad(lambda params: loss(adapted.objective, {"params": params}))(adapted.merged(variables))
    adapter = variables["params"]["adapters"]["attention_query"]
    slope = plain["backbone"]["layers"]["attention"]["query"]["kernel"]
    wanted = 3.0 * jnp.einsum("lir,lio->lro", adapter["a"], slope.reshape(2, adapter["a"].shape[1], -1))
    found = ours["adapters"]["attention_query"]["b"]
    assert np.abs(found - wanted).max() / np.abs(wanted).max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(rank=0), "tuning.lora_rank=0: wanted 1 or more"),
        (dict(targets=("querry",)), "no kernel 'querry'; there are query, key, value, out, up, gate, down"),
    ],
)
def test_what_cannot_be_adapted_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LowRank(**(dict(objective=small_objective("classification"), rank=2, alpha=1.0, targets=("query",)) | changes))


def test_a_model_without_such_kernels_is_refused():
    batch = {key: jnp.asarray(value) for key, value in packed_batch(rows=2).items()}
    adapted = LowRank(small_objective("classification", model="lstm"), rank=2, alpha=1.0, targets=("query",))
    with pytest.raises(ValueError, match="this model has none of them"):
        jax.eval_shape(lambda: adapted.init(jax.random.key(0), batch))


@pytest.mark.slow
def test_finetuning_with_adapters_resumes_is_used_and_leaves_the_backbone(tmp_path, capsys):
    draw = random.Random(3)
    corpus = tmp_path / "corpus.jsonl"
    with corpus.open("w") as file:
        for index in range(80):
            words = [
                draw.choice(["sun", "day", "stone"] if index % 2 else ["moon", "night", "stone"]) for _ in range(5)
            ]
            file.write(json.dumps({"text": " ".join(words), "label": ["dark", "light"][index % 2]}) + "\n")
    page = small_page(corpus, "masked_lm", num_steps=3, evaluation__samples="()")
    run_training("pretrain", [*page, f"--workdir={tmp_path / 'mlm'}"])
    keys = {
        "data.path": corpus,
        "init_from": tmp_path / "mlm",
        "tuning.lora_rank": 2,
        "tuning.lora_targets": "('query', 'value')",
        "optimizer.name": "adamw",
        "optimizer.peak_rate": 0.02,
        "optimizer.schedule.name": "constant",
        "optimizer.schedule.warmup_steps": 0,
        "data.length": 16,
        "log.tensorboard": "false",
        "evaluation.floors": "false",
        "mesh.devices": 1,
        "num_steps": 6,
    }
    arguments = [
        f"--config={ROOT / 'configs/finetune/text_classification.py'}:tiny",
        f"--workdir={tmp_path / 'lora'}",
        *(f"--config.{key}={value}" for key, value in keys.items()),
    ]
    run_training("finetune", arguments)
    first = json.loads((tmp_path / "lora" / "metrics.jsonl").read_text().splitlines()[0])
    run_training("finetune", [*arguments[:-1], "--config.num_steps=9"])  # goes on from step 6
    given, trained = open_trained(tmp_path / "mlm"), open_trained(tmp_path / "lora")
    assert trained.step == 9 and first["train/loss"] > 0
    changed = {
        "/".join(key.key for key in path)
        for (path, left), right in zip(
            jax.tree_util.tree_leaves_with_path(given.params["backbone"]),
            jax.tree.leaves(trained.params["backbone"]),
            strict=True,
        )
        if not np.array_equal(left, right)
    }
    assert changed == {"layers/attention/query/kernel", "layers/attention/value/kernel"}
    capsys.readouterr()
    predict([f"--workdir={tmp_path / 'lora'}", "sun day"])
    assert json.loads(capsys.readouterr().out)["label"] in ("dark", "light")

    # The adapters alone, beside the start, are the same model.
    alone = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "lora" / "adapters", alone)
    carried = open_trained(alone)
    assert carried.step == 9 and carried.about["label_names"] == trained.about["label_names"]
    jax.tree.map(np.testing.assert_array_equal, carried.params, trained.params)
    predict([f"--workdir={alone}", "sun day"])
    again = json.loads(capsys.readouterr().out)
    predict([f"--workdir={tmp_path / 'lora'}", "sun day"])
    assert json.loads(capsys.readouterr().out) == again
    with pytest.raises(ValueError, match="holds the adapters of step 9, not of 5"):
        open_trained(alone, step=5)
    again = [argument for argument in arguments if "lora" not in argument and "init_from" not in argument]
    run_training("finetune", [*again, f"--config.init_from={alone}", f"--workdir={tmp_path / 'on'}"])
    assert open_trained(tmp_path / "on").step == 6  # they are a start as well
    said = json.loads((alone / "adapters.json").read_text())
    for base, message in ((tmp_path / "lora", "of other weights than"), (tmp_path / "nowhere", "cannot be opened")):
        (alone / "adapters.json").write_text(json.dumps(said | {"base": str(base)}))
        with pytest.raises(ValueError, match=message):
            open_trained(alone)
    (alone / "adapters.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks base, backbone, about, step; copy the whole folder"):
        open_trained(alone)
