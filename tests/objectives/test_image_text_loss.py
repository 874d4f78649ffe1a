"""CLIP and SigLIP: losses of loops in float64, microbatches and forms alike, groups that are no rivals, bad input."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.build import build, resolve
from research.models import PAIR_MODELS, join
from research.objectives import OBJECTIVES
from research.training.sharding import MeshShape, make_layout
from research.types import CoupledObjective, Keys
from tests.small import difference
from tests.test_equivalence import assert_equal, loss_and_gradient

ROWS, LENGTH, VOCAB = 8, 7, 37
MLP = dict(name="mlp", width=6, depth=1)
CONVNET = dict(name="convnet", connection="plain", stem="none", depths=(1,), widths=(6,))
TEXT = dict(name="transformer", width=8, depth=1, num_heads=2)
MODELS = {"clip": dict(initial_scale=4.0), "siglip": dict(initial_scale=4.0, bias=True, initial_bias=-2.0)}
AUGMENTATION = dict(name="none", pad=1, brightness=0.3)
BOTH = pytest.mark.parametrize("name", MODELS)


def objective(name: str, *, image: Any = MLP, model: Any = None, **changes: Any) -> Any:
    page = dict(name="dual_encoder", image=image, text=TEXT, embed_dim=5) | MODELS[name] | (model or {})
    offers = dict(vocab_size=VOCAB, length=LENGTH, image_size=6, num_channels=1, mask_id=4, causal=False)
    config = build(resolve(page, PAIR_MODELS, kind="model", **offers), PAIR_MODELS, kind="model")
    changes = dict(augmentation=AUGMENTATION, token_dropout=0.4) | changes
    return build(dict(name=name, **changes), OBJECTIVES, kind="objective", model=join(config, None), **offers)


def draw(rows: int = ROWS, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    real = np.arange(LENGTH) < rng.integers(3, LENGTH + 1, rows)[:, None]
    return {
        "image": rng.integers(0, 256, (rows, 6, 6, 1)).astype(np.uint8),
        "tokens": np.where(real, rng.integers(5, VOCAB, real.shape), 0).astype(np.int32),
        "segment_ids": real.astype(np.int32),
        "positions": np.where(real, np.arange(LENGTH), 0).astype(np.int32),
        "group": (np.arange(rows) % 5).astype(np.int32),  # 0, 1 and 2 twice
        "example_id": np.arange(rows, dtype=np.uint32),
    }


def keys() -> Keys:
    return Keys(noise=jax.random.key(3), dropout=jax.random.key(4))


@functools.cache
def started(name: str, image: str = "mlp") -> Any:
    found = objective(name, image=CONVNET if image == "convnet" else MLP)
    return nn.meta.unbox(jax.jit(found.init)(jax.random.key(0), draw()))


def loss_of(found: Any, *, train: bool = False) -> Any:
    return jax.jit(lambda variables, batch: found.loss(variables, batch, rng=keys(), step=jnp.int32(0), train=train))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def plain(name: str, image: np.ndarray, text: np.ndarray, *, groups: Any, counted: Any) -> tuple[float, float]:
    """The mean loss and the accuracy, by loops."""
    losses, hits = [], []
    for i in counted:
        rivals = [j for j in counted if groups[j] != groups[i]]
        own = image[i] @ text[i]
        if name == "clip":
            rows = np.log(np.exp(4 * own) + sum(np.exp(4 * image[i] @ text[j]) for j in rivals))
            columns = np.log(np.exp(4 * own) + sum(np.exp(4 * image[j] @ text[i]) for j in rivals))
            losses.append(0.5 * (rows + columns) - 4 * own)
        else:
            apart = sum(np.log1p(np.exp(4 * image[i] @ text[j] - 2)) for j in rivals)
            losses.append(np.log1p(np.exp(2 - 4 * own)) + apart)
        hits.append(all(own > image[i] @ text[j] for j in rivals))
    return float(np.mean(losses)), float(np.mean(hits))


def drawn_sides() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {side: unit(rng.normal(size=(ROWS, 5))) for side in ("image", "text")}


def compare(found: Any, batch: Any) -> Any:
    """The loss of sides that no tower has made; the scale is 4 and the bias -2."""
    variables = {"params": {"log_scale": jnp.log(4.0), "bias": jnp.float32(-2.0)}}
    sides = {side: jnp.asarray(rows, jnp.float32) for side, rows in drawn_sides().items()}
    return found.compare(variables, sides, jax.tree.map(jnp.asarray, batch), step=jnp.int32(0), train=True)


@BOTH
def test_the_loss_is_that_of_loops_in_float64_of_real_rows_without_rivals_of_one_text(name):
    found, batch, sides = objective(name), draw(), drawn_sides()
    wanted = {}
    for case, groups, count in (("groups", batch["group"], 8), ("padded", batch["group"], 6), ("apart", range(8), 8)):
        changed = batch | {"group": np.array(groups, np.int32), "example_mask": np.arange(ROWS) < count}
        loss = compare(found, changed)
        wanted[case] = plain(name, sides["image"], sides["text"], groups=groups, counted=range(count))
        accuracy = loss.metrics["accuracy"]
        np.testing.assert_allclose(float(loss.value()), wanted[case][0], rtol=1e-5)
        np.testing.assert_allclose(float(accuracy.total / accuracy.weight), wanted[case][1], rtol=1e-6)
        assert float(loss.metrics["scale"].total) == pytest.approx(4.0 * count, rel=1e-6)
    assert wanted["apart"][0] > wanted["groups"][0] * 1.01 and wanted["padded"][0] != wanted["groups"][0]


@pytest.mark.slow
@BOTH
def test_cached_features_give_the_gradient_of_the_whole_batch(name):
    assert isinstance(objective(name), CoupledObjective)
    whole = loss_and_gradient(objective(name), draw())
    slope = whole[1]
    for part in ("image", "text", "image_projection", "text_projection", "log_scale"):
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope[part])) > 0.0
    assert_equal(whole, loss_and_gradient(objective(name), draw(), accumulate=2))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["gathered", "chunked"])
@BOTH
def test_every_form_on_eight_devices_gives_the_gradient_of_the_plain_one(name, form):
    spread = objective(name, form=form, chunk=1)
    assert_equal(
        loss_and_gradient(objective(name), draw()), loss_and_gradient(spread, draw(), mesh=make_layout(MeshShape()))
    )


@BOTH
def test_the_accuracy_which_needs_all_logits_is_left_to_the_plain_form(name):
    plain, chunked = (compare(objective(name, form=form, chunk=3), draw()) for form in ("plain", "chunked"))
    assert "accuracy" in plain.metrics and "accuracy" not in chunked.metrics
    np.testing.assert_allclose(chunked.value(), plain.value(), rtol=1e-5)


@pytest.mark.slow
def test_training_augments_and_hides_by_the_example_alone_and_evaluation_does_not():
    found, batch, variables = objective("clip"), draw(), started("clip")

    @jax.jit
    def sides(batch, noise):
        rng = Keys(noise=noise, dropout=jax.random.key(4))
        return [found.encode(variables, batch, rng=rng, step=jnp.int32(0), train=train) for train in (True, False)]

    trained, evaluated = sides(batch, jax.random.key(3))
    order = np.random.default_rng(1).permutation(ROWS)
    moved, _ = sides({key: values[order] for key, values in batch.items()}, jax.random.key(3))
    others, same = sides(batch, jax.random.key(5))
    for side in ("image", "text"):
        assert difference(trained[side][order], moved[side]) < 1e-5
        assert difference(trained[side], others[side]) > 0.01 and difference(trained[side], evaluated[side]) > 0.01
        assert difference(evaluated[side], same[side]) == 0.0


@pytest.mark.slow
def test_batch_statistics_of_a_tower_move_in_training_and_are_used_in_evaluation():
    found, batch, variables = objective("clip", image=CONVNET), draw(), started("clip", "convnet")
    state = loss_of(found, train=True)(variables, batch).model_state["batch_stats"]
    assert jax.tree.structure(state) == jax.tree.structure(variables["batch_stats"])
    assert difference(state, variables["batch_stats"]) > 1e-3
    read = jax.jit(found.features)
    before, after = read(variables, batch), read({**variables, "batch_stats": state}, batch)
    assert difference(before.pooled, after.pooled) > 1e-3
    assert before.pooled.shape == (ROWS, 5) and before.sequence.shape[2] == 6 and bool(before.mask.all())
    np.testing.assert_allclose(np.linalg.norm(before.pooled, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes", "rows", "without", "message"),
    [
        ("clip", {}, 1, (), "batch_size=1: examples are told apart"),
        ("siglip", {}, 2, ("tokens",), "objective.name=siglip learns from images with their texts"),
        ("clip", dict(model=dict(bias=True)), 2, (), "does not see what is added to every logit; set model.bias=false"),
        ("siglip", dict(model=dict(bias=False)), 2, (), "objective.name=siglip learns a bias; set model.bias=true"),
        ("clip", dict(augmentation=dict(name="none", hue=0.1)), 2, (), "needs 3 channels"),
        ("clip", dict(token_dropout=1.0), 2, (), "objective.token_dropout=1.0"),
        ("clip", dict(chunk=0), 2, (), "objective.chunk=0"),
        ("clip", dict(form="ring"), 2, (), "objective.form='ring'"),
        ("clip", dict(image=dict(name="mlp", widht=3)), 2, (), "image.widht"),
    ],
)
def test_mistakes_are_named(name, changes, rows, without, message):
    batch = {key: values for key, values in draw(rows).items() if key not in without}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(objective(name, **changes).init, jax.random.key(0), batch)
