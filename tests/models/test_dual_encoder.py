"""The dual encoder against plain towers in float64 numpy, to 1e-5; what is locked, clamped and padded."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.build import build, resolve
from research.models import IMAGE_MODELS, MODELS, PAIR_MODELS
from research.models.attention_pool import AttentionPool
from research.training.sharding import LOGICAL_AXES
from tests.models.plain import drawn_variables, slope_error, wide
from tests.models.test_transformer import plain_transformer
from tests.models.test_vit import plain_vit
from tests.small import difference

MEAN, STD = (0.1, 0.2, 0.3, 0.4, 0.5), (0.7,)
PIXELS = dict(pixel_mean=MEAN, pixel_std=STD)
VIT = dict(name="vit", image_size=6, patch_size=3, num_channels=5, width=8, depth=1, num_heads=2, mlp_dim=11, **PIXELS)
CONVNET = dict(name="convnet", depths=(1,), widths=(6,), stem="cifar", stem_width=4, num_channels=5, **PIXELS)
TEXT = dict(name="transformer", vocab_size=37, length=7, width=12, depth=1, num_heads=3, mlp_dim=10)
CLIP = dict(
    image=VIT | dict(embed_norm=True, embed_bias=False, activation="quick_gelu"),
    text=TEXT | dict(causal=True, activation="quick_gelu"),
    image_pooling="first",
    text_pooling="last",
)
SIGLIP = dict(bias=True, initial_scale=10.0, max_scale=0.0)

LENGTHS = (7, 4, 2)
DRAW = np.random.default_rng(0)
IMAGE = jnp.asarray(DRAW.normal(size=(3, 6, 6, 5)), jnp.float32)
SCALED = jnp.asarray((np.asarray(IMAGE, np.float64) - MEAN) / STD, jnp.float32)  # what a tower is given of it
TOKENS = jnp.asarray(DRAW.integers(5, 37, (3, 7)), jnp.int32)
SEGMENTS = jnp.asarray(np.arange(7) < np.array(LENGTHS)[:, None], jnp.int32)
WHERE = dict(positions=jnp.arange(7, dtype=jnp.int32)[None] * SEGMENTS, segment_ids=SEGMENTS)


def config(**changes):
    page = dict(name="dual_encoder", image=VIT, text=TEXT, embed_dim=5)
    return build(resolve(page | changes, PAIR_MODELS, kind="model"), PAIR_MODELS, kind="model")


def drawn(module):
    return drawn_variables(module, IMAGE, TOKENS, **WHERE)


def plain_sides(params, model):
    """Unit vectors [3 E] of both sides."""
    images, texts = [], []
    for row, length in enumerate(LENGTHS):
        hidden = plain_vit(params["image"], model.image_tower, wide(SCALED)[row])
        images.append(hidden[0] if model.image_pooling == "first" else hidden.mean(0))
        tower, tokens, positions = model.text_tower, np.asarray(TOKENS)[row, :length], np.arange(length)
        hidden = plain_transformer(params["text"], tower, tokens, positions, np.ones(length))
        texts.append(hidden[-1] if model.text_pooling == "last" else hidden.mean(0))
    images = np.stack(images) @ params["image_projection"]["kernel"]
    texts = np.stack(texts) @ params["text_projection"]["kernel"]
    return [side / np.sqrt((side**2).sum(1, keepdims=True)) for side in (images, texts)]


@pytest.mark.parametrize("changes", [CLIP, SIGLIP], ids=["clip", "siglip"])
def test_logits_and_their_gradient_equal_the_plain_ones(changes):
    model = config(**changes)
    module = model.module()
    variables = drawn(module)
    weight = np.random.default_rng(3).normal(size=(3, 3)).astype(np.float32)

    def along(params):
        bound = module.bind({"params": params})
        sides = bound(IMAGE, TOKENS, **WHERE)
        logits = bound.scale() * jnp.einsum("be,ce->bc", *sides) + bound.bias()
        return jnp.sum(weight * logits), (logits, sides)

    def plain_logits(params):
        images, texts = plain_sides(params, model)
        return np.exp(params["log_scale"]) * images @ texts.T + params.get("bias", 0.0)

    gradient, (logits, sides) = jax.jit(jax.grad(along, has_aux=True))(variables["params"])
    for side, wanted in zip(sides, plain_sides(wide(variables["params"]), model), strict=True):
        assert (side.shape, side.dtype) == ((3, 5), jnp.float32)
        assert difference(np.ones(3), np.linalg.norm(side, axis=1)) < 1e-6
        assert difference(wanted, side) < 1e-5
    assert difference(plain_logits(wide(variables["params"])), logits) < 1e-5
    plain = slope_error(gradient, lambda params: float((weight * plain_logits(params)).sum()), variables["params"])
    assert plain < 1e-5
    for name in ("image", "text", "image_projection", "text_projection", "log_scale"):
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient[name])) > 1e-3


def test_a_fresh_model_has_the_scale_and_bias_that_the_page_says():
    for changes, scale, bias in ((CLIP, 1 / 0.07, 0.0), (SIGLIP, 10.0, -10.0)):
        module = config(**changes).module()

        def fresh(module=module):
            params = nn.meta.unbox(module.init(jax.random.key(0), IMAGE, TOKENS, **WHERE))["params"]
            return {name: params[name] for name in ("log_scale", "bias") if name in params}  # the rest is not compiled

        params = jax.jit(fresh)()
        bound = module.bind({"params": params})
        assert float(bound.scale()) == pytest.approx(scale, rel=1e-6)
        assert float(bound.bias()) == bias
        assert ("bias" in params) == (bias != 0.0)


def test_attention_pooling_reads_the_real_positions():
    module = config(image_pooling="map", text_pooling="map").module()
    variables = drawn(module)
    params = variables["params"]

    @jax.jit
    def run(variables):
        bound = module.bind(variables)
        return bound(IMAGE, TOKENS, **WHERE), (bound.image(SCALED), bound.text(TOKENS, **WHERE)[0])

    masks = jnp.ones((3, 5), bool), SEGMENTS > 0
    for name, found, hidden, mask in zip(("image", "text"), *run(variables), masks, strict=True):
        pooled = AttentionPool().apply({"params": params[f"{name}_pool"]}, hidden, mask)
        wanted = wide(pooled) @ wide(params[f"{name}_projection"]["kernel"])
        assert difference(wanted / np.linalg.norm(wanted, axis=1, keepdims=True), found) < 1e-5


@pytest.mark.parametrize("lock", ["image", "text"])
def test_a_locked_tower_gets_no_gradient_and_computes_as_in_evaluation(lock):
    free = "text" if lock == "image" else "image"
    towers = dict(image=dict(name="mlp", width=8, dropout=0.5), text=TEXT | dict(dropout=0.5))
    module = config(**towers, lock=lock).module()
    variables = drawn(module)

    def along(params, rng):
        sides = module.apply({"params": params}, IMAGE, TOKENS, **WHERE, train=True, rngs={"dropout": rng})
        return jnp.sum(sides[0] * sides[1]), sides

    step = jax.jit(jax.grad(along, has_aux=True))
    gradient, sides = step(variables["params"], jax.random.key(0))
    _, others = step(variables["params"], jax.random.key(1))
    largest = {name: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient[name])) for name in gradient}
    assert largest[lock] == 0.0
    assert min(largest[name] for name in (free, "image_projection", "text_projection")) > 1e-4
    evaluated = module.apply(variables, IMAGE, TOKENS, **WHERE)
    for index, side in enumerate(("image", "text")):
        same = difference(sides[index], others[index])
        assert same == 0.0 if side == lock else same > 0.1
        assert side != lock or difference(evaluated[index], sides[index]) < 1e-6


def test_a_convolutional_tower_keeps_its_statistics_beside_the_parameters():
    towers, padded = dict(image=CONVNET, text=TEXT), jnp.array([True, True, False])
    variables = drawn(config(**towers).module())
    options = dict(where=padded, train=True, mutable=["batch_stats"])
    for lock in ("", "image"):
        module = config(**towers, lock=lock).module()
        vectors, changed = module.apply(variables, IMAGE, **options, method="encode_image")
        tower = build(CONVNET, IMAGE_MODELS, kind="model").module()
        alone = {kind: tree["image"] for kind, tree in variables.items()}
        _, wanted = tower.apply(alone, SCALED, **options)
        if lock:
            wanted = alone
            assert difference(module.apply(variables, IMAGE, method="encode_image"), vectors) == 0.0
        assert difference(wanted["batch_stats"], changed["batch_stats"]["image"]) < 1e-6
        whole = module.apply(variables, IMAGE, TOKENS, **WHERE, **options)[1]
        assert difference(changed["batch_stats"], whole["batch_stats"]) == 0.0
    assert difference(variables["batch_stats"]["image"], wanted["batch_stats"]) == 0.0


def test_the_scale_stays_below_its_limit_and_can_come_down_again():
    params = drawn(config().module())["params"]

    def slope(log_scale, sign, limit=100.0):
        module = config(max_scale=limit).module()

        def along(log_scale):
            found = module.apply({"params": {**params, "log_scale": log_scale}}, method="scale")
            return sign * found, found

        slope, found = jax.grad(along, has_aux=True)(jnp.float32(log_scale))
        return float(slope), float(found)

    # Descent on -scale would raise it.
    assert slope(np.log(200.0), -1.0) == (0.0, pytest.approx(100.0, rel=1e-5))
    assert slope(np.log(200.0), 1.0) == pytest.approx((100.0, 100.0), rel=1e-5)
    assert slope(np.log(50.0), -1.0) == pytest.approx((-50.0, 50.0), rel=1e-5)
    assert slope(np.log(200.0), -1.0, limit=0.0) == pytest.approx((-200.0, 200.0), rel=1e-5)


def test_a_row_without_tokens_gives_finite_gradients():
    module = config(text_pooling="mean").module()
    variables = drawn(module)
    empty = {name: jnp.zeros_like(value) for name, value in WHERE.items()}

    def along(params):
        return jnp.sum(module.apply({"params": params}, TOKENS, **empty, method="encode_text") ** 3)

    value, gradient = jax.jit(jax.value_and_grad(along))(variables["params"])
    assert value == 0.0
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", [*MODELS, *IMAGE_MODELS])
def test_any_backbone_can_be_a_tower_whose_block_is_kept_as_json(name):
    small = {"vit": VIT, "convnet": CONVNET}.get(name, dict(name=name, num_channels=5))
    towers = dict(text=dict(name=name)) if name in MODELS else dict(image=small)
    offered = dict(vocab_size=37, length=7, image_size=32, causal=True, dtype="bfloat16", param_dtype="bfloat16")
    page = dict(name="dual_encoder", image=VIT | dict(image_size=32, patch_size=8), text=TEXT, embed_dim=5, bias=True)
    full = resolve(page | towers, PAIR_MODELS, kind="model", **offered)
    model = build(json.loads(json.dumps(full)), PAIR_MODELS, kind="model")
    again = build(full, PAIR_MODELS, kind="model")
    assert (model.image_tower, model.text_tower) == (again.image_tower, again.text_tower)
    assert hash(model.module()) == hash(again.module())
    size = model.image_tower.image_size if name == "vit" else 32
    image = jax.ShapeDtypeStruct((2, size, size, 5), jnp.float32)
    tokens = jax.ShapeDtypeStruct((2, 7), jnp.int32)
    sides, variables = jax.eval_shape(
        lambda *given: model.module().init_with_output(
            jax.random.key(0), *given, positions=given[1], segment_ids=given[1]
        ),
        image,
        tokens,
    )
    assert [(side.shape, side.dtype) for side in sides] == [((2, 5), jnp.float32)] * 2
    known = {*LOGICAL_AXES, None}
    for path, leaf in jax.tree.leaves_with_path(
        variables["params"], is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
    ):
        assert len(leaf.names) == leaf.value.ndim, path
        assert known >= set(leaf.names), path
        scalar = path[-1].key == "log_scale" or len(path) == 1
        assert leaf.value.dtype == (jnp.float32 if scalar else jnp.bfloat16), path


def test_flops_are_those_of_the_towers_and_projections():
    model, locked = config(), config(lock="text")
    image, text = model.image_tower.num_flops(6), 7 * model.text_tower.num_flops(7)
    assert model.num_flops(6, 7) == image + text + 6 * 5 * (8 + 12)
    assert locked.num_flops(6, 7) == pytest.approx(image + text / 3 + 6 * 5 * (8 + 12))


def test_what_a_dual_encoder_cannot_be_is_refused():
    for wrong, message in (
        (dict(embed_dim=0), "embed_dim=0"),
        (dict(initial_scale=-1.0), "above 0"),
        (dict(initial_scale=200.0), "below initial_scale"),
        (dict(text_pooling="middle"), "text_pooling"),
        (dict(lock="both"), "lock"),
        (dict(text=dict(name="vit_base")), "no such"),
        (dict(text=TEXT | dict(widht=3)), "text.widht"),
        (dict(image=VIT | dict(patch_size=5)), "patches of 5"),
    ):
        with pytest.raises(ValueError, match=message):
            config(**wrong)
    with pytest.raises(ValueError, match="model.text.vocab_size is missing"):
        page = dict(name="dual_encoder", image=VIT, text=dict(name="bert"))
        build(page, PAIR_MODELS, kind="model", vocab_size=37, length=7)
