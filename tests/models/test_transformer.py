"""The transformer's presets against one plain implementation in float64 numpy: to 1e-5 of the largest value."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from research.build import build
from research.models import MODELS
from tests.small import LENGTH, VOCAB, difference, packed_batch, small_model


def normed(values, params, kind, epsilon):
    if kind == "layer":
        values = values - values.mean(-1, keepdims=True)
    values = values / np.sqrt((values**2).mean(-1, keepdims=True) + epsilon)
    return values * params["scale"] + params.get("bias", 0.0)


def activated(values, kind):
    if kind == "gelu":
        return values * 0.5 * (1 + erf(values / np.sqrt(2)))
    if kind == "gelu_tanh":
        return 0.5 * values * (1 + np.tanh(np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)))
    if kind == "quick_gelu":
        return values / (1 + np.exp(-1.702 * values))
    return np.maximum(values, 0.0) ** 2 if kind == "squared_relu" else values / (1 + np.exp(-values))


def turned(vector, position):
    half = len(vector) // 2
    angles = position * 10_000.0 ** (-np.arange(half) / half)
    first, second = vector[:half], vector[half:]
    return np.concatenate(
        [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)]
    )


def plain_attention(row, p, config, positions, segments):
    def project(name):
        return np.einsum("ld,dhk->lhk", row, p[name]["kernel"]) + p[name].get("bias", 0.0)

    query, key, value = project("query"), project("key"), project("value")
    if config.qk_norm:
        query = normed(query, p["query_norm"], "rms", config.norm_epsilon)
        key = normed(key, p["key_norm"], "rms", config.norm_epsilon)
    mixed = np.zeros_like(query)
    for head in range(config.num_heads):
        group = head // (config.num_heads // config.kv_heads)
        for place in range(len(row)):
            seen = [
                other
                for other in range(len(row))
                if segments[other] == segments[place] and (not config.causal or positions[other] <= positions[place])
            ]
            one, others = query[place, head], [key[other, group] for other in seen]
            if config.position == "rotary":
                one = turned(one, positions[place])
                others = [turned(each, positions[other]) for each, other in zip(others, seen, strict=True)]
            weights = np.exp(np.array(others) @ one / np.sqrt(config.head_dim))
            mixed[place, head] = weights @ value[seen, group] / weights.sum()
    return np.einsum("lhk,hkd->ld", mixed, p["out"]["kernel"]) + p["out"].get("bias", 0.0)


def plain_mlp(row, p, config):
    inner = row @ p["up"]["kernel"] + p["up"].get("bias", 0.0)
    if config.activation == "swiglu":
        inner = inner * activated(row @ p["gate"]["kernel"], "swiglu")
    else:
        inner = activated(inner, config.activation)
    return inner @ p["down"]["kernel"] + p["down"].get("bias", 0.0)


def plain_transformer(params, config, tokens, positions, segments, types=0):
    """One row [L] to vectors [L D]."""
    hidden = params["embed"]["embedding"][tokens]
    if config.position == "learned":
        hidden = hidden + params["positions"]["embedding"][positions]
    if config.num_token_types:
        hidden = hidden + params["token_types"]["embedding"][types]
    if config.embed_norm:
        hidden = normed(hidden, params["stem_norm"], config.norm, config.norm_epsilon)
    for layer in range(config.depth):
        p = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["layers"])
        first, second = (
            lambda values, name=name, p=p: normed(values, p[name], config.norm, config.norm_epsilon)
            for name in ("norm1", "norm2")
        )
        if config.norm_position == "pre":
            hidden = hidden + plain_attention(first(hidden), p["attention"], config, positions, segments)
            hidden = hidden + plain_mlp(second(hidden), p["mlp"], config)
        else:
            hidden = first(hidden + plain_attention(hidden, p["attention"], config, positions, segments))
            hidden = second(hidden + plain_mlp(hidden, p["mlp"], config))
    if config.norm_position == "pre":
        hidden = normed(hidden, params["final_norm"], config.norm, config.norm_epsilon)
    return hidden


PLAIN = ("tokens", "positions", "segment_ids", "token_types")  # in the order of the plain transformer's arguments


def batch_of_pairs(rows):
    """A packed batch whose tokens are of both types."""
    batch = packed_batch(rows=rows)
    return batch | {"token_types": (batch["positions"] > 2).astype(np.int32)}


def drawn(model, batch):
    """A batch's arrays, and parameters drawn wide enough that every part matters."""
    arrays = {key: jnp.asarray(batch[key]) for key in PLAIN if key in batch}
    shapes = nn.meta.unbox(jax.eval_shape(lambda: model.init(jax.random.key(0), **arrays)))
    draw = np.random.default_rng(1)
    made = jax.tree.map(lambda leaf: (0.3 * draw.normal(size=leaf.shape)).astype(np.float32), shapes)
    for path, leaf in jax.tree.leaves_with_path(made):
        if "scale" in str(path[-1]):
            leaf += 1.0
    return arrays, made


def encoded(model, batch):
    """The drawn parameters and the vectors of a batch."""
    arrays, made = drawn(model, batch)
    hidden = jax.jit(lambda made: model.apply(made, **arrays)[0])(made)
    return made["params"]["backbone"], jax.device_get(hidden)


def slope_error(model, batch, plain):
    """Largest difference between a model's gradient and a plain float64 one's, along three directions, relative to
    the gradient's size; `plain(params, row)` gives the vectors of one row."""
    arrays, made = drawn(model, batch)
    draw = np.random.default_rng(2)
    real = np.asarray(batch["segment_ids"]) > 0
    weight = draw.normal(size=(*real.shape, model.backbone.config.width)) * real[..., None]

    def along(made):
        return jnp.sum(model.apply(made, **arrays)[0] * weight.astype(np.float32))

    gradient = jax.device_get(jax.jit(jax.grad(along))(made))["params"]["backbone"]
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), made["params"]["backbone"])

    def plain_along(params):
        return sum(float((plain(params, row) * weight[row])[real[row]].sum()) for row in range(len(real)))

    errors, step = [], 1e-6
    for _ in range(3):
        direction = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape), params)
        ahead, behind = (jax.tree.map(lambda p, d, s=s: p + s * d, params, direction) for s in (step, -step))
        wanted = (plain_along(ahead) - plain_along(behind)) / (2 * step)
        leaves = zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
        errors.append(abs(wanted - sum(float((g.astype(np.float64) * d).sum()) for g, d in leaves)))
    return max(errors) / np.sqrt(sum((leaf.astype(np.float64) ** 2).sum() for leaf in jax.tree.leaves(gradient)))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "modern"])
def test_a_preset_equals_the_plain_transformer(name, causal):
    model, batch = small_model(name, causal=causal), batch_of_pairs(rows=3)
    params, hidden = encoded(model, batch)
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    for row in range(3):
        arrays = [batch[key][row] for key in PLAIN]
        wanted = plain_transformer(params, model.backbone.config, *arrays)
        real = arrays[2] > 0
        assert difference(wanted[real], hidden[row][real]) < 1e-5


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "modern"])
def test_the_gradient_of_a_preset_is_the_plain_transformer_s(name):
    model, batch = small_model(name, causal=True), batch_of_pairs(rows=2)

    def plain(params, row):
        return plain_transformer(params, model.backbone.config, *(batch[key][row] for key in PLAIN))

    assert slope_error(model, batch, plain) < 1e-5


def test_heads_that_do_not_divide_are_refused():
    for changes in (dict(num_heads=3), dict(num_heads=4, num_kv_heads=3), dict(num_heads=8, position="rotary")):
        with pytest.raises(ValueError, match="model|rotary"):
            build(dict(name="transformer", width=8) | changes, MODELS, kind="model", vocab_size=VOCAB, length=LENGTH)


def test_flops_count_six_for_each_matrix_parameter():
    for name in ("gpt2", "llama", "modern"):
        model = small_model(name)
        params, _ = encoded(model, packed_batch(rows=1))
        matrices = sum(
            leaf.size for path, leaf in jax.tree.leaves_with_path(params["layers"]) if "kernel" in str(path[-1])
        )
        assert model.backbone.config.num_flops(0) == 6 * matrices
