"""Convolutional networks against a plain implementation in float64 numpy: to 1e-5 of the largest value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.models.convnet import ConvNetConfig, ResidualBlock
from research.models.image_layers import BatchNorm, max_pool
from research.models.perceptron import mlp
from research.ops.convolution import convolve
from tests.models.plain import drawn_variables, slope_error, wide
from tests.small import difference

CASES = {
    "plain": dict(connection="plain", depths=(2, 1), widths=(3, 5), stem="none"),
    "basic": dict(depths=(1, 2), widths=(4, 6), stem="cifar", stem_width=4),
    "bottleneck": dict(block="bottleneck", depths=(1, 2), widths=(8, 16), stem="imagenet", stem_width=2),
    "dense": dict(connection="dense", depths=(2, 1), growth=2, stem="cifar", stem_width=4),
}
BATCH, CHANNELS = 3, 2


def images(height=7, width=11, batch=BATCH, channels=CHANNELS, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(batch, height, width, channels)), jnp.float32)


def windows(image, size, stride, padding, fill):
    """For each output pixel, row by row, what it sees: [B size size C]."""
    bounds = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(image, bounds, constant_values=fill)
    rows = range(0, padded.shape[1] - size + 1, stride)
    columns = range(0, padded.shape[2] - size + 1, stride)
    return [[padded[:, y : y + size, x : x + size] for x in columns] for y in rows]


def over_windows(function, image, size, stride, padding, fill=0.0):
    found = [[function(window) for window in row] for row in windows(image, size, stride, padding, fill)]
    return np.moveaxis(np.array(found), 2, 0)


def plain_convolution(image, kernel, stride=1):
    size = len(kernel)
    return over_windows(lambda window: np.einsum("byxc,yxcd->bd", window, kernel), image, size, stride, size // 2)


def plain_max_pool(image, size, stride, padding):
    return over_windows(lambda window: window.max(axis=(1, 2)), image, size, stride, padding, -np.inf)


def plain_norm(image, p, config, stats):
    """By the batch where `stats` is None, by running statistics where it is not, or by groups."""
    if config.norm == "group":
        groups = image.reshape(*image.shape[:3], config.num_groups, -1)
        mean, variance = groups.mean((1, 2, 4), keepdims=True), groups.var((1, 2, 4), keepdims=True)
        normed = ((groups - mean) / np.sqrt(variance + config.norm_epsilon)).reshape(image.shape)
    else:
        mean, variance = image.mean((0, 1, 2)), image.var((0, 1, 2))
        if stats is not None:
            mean, variance = stats["mean"], stats["var"]
        normed = (image - mean) / np.sqrt(variance + config.norm_epsilon)
    return normed * p["scale"] + p["bias"]


def relu(values):
    return np.maximum(values, 0.0)


def plain_convnet(params, config, image, stats=None):
    """Images to [B L D]; training where there are no running statistics."""

    def below(tree, name):
        return None if tree is None else tree.get(name)

    def conv_norm(hidden, p, s, stride=1):
        hidden = plain_convolution(hidden, p["convolution"]["kernel"], stride)
        return plain_norm(hidden, p["norm"], config, below(s, "norm"))

    hidden = image
    if config.stem != "none":
        stride = 2 if config.stem == "imagenet" else 1
        hidden = relu(conv_norm(hidden, params["stem"], below(stats, "stem"), stride))
    if config.stem == "imagenet":
        hidden = plain_max_pool(hidden, 3, 2, 1)
    for stage, depth in enumerate(config.depths):
        if stage and config.connection == "dense":
            name = f"transition{stage}"
            hidden = relu(plain_norm(hidden, params[f"{name}_norm"], config, below(stats, f"{name}_norm")))
            hidden = plain_convolution(hidden, params[name]["kernel"])
            hidden = over_windows(lambda window: window.mean((1, 2)), hidden, 2, 2, 0)
        for block in range(depth):
            name = f"stage{stage + 1}_block{block + 1}"
            p, s = params[name], below(stats, name)
            if config.connection == "plain":
                hidden = relu(conv_norm(hidden, p, s))
            elif config.connection == "dense":
                inner = relu(plain_norm(hidden, p["norm1"], config, below(s, "norm1")))
                inner = plain_convolution(inner, p["conv1"]["kernel"])
                inner = relu(plain_norm(inner, p["norm2"], config, below(s, "norm2")))
                hidden = np.concatenate([hidden, plain_convolution(inner, p["conv2"]["kernel"])], axis=-1)
            else:
                stride = 2 if stage and not block else 1
                strides = (stride, 1) if config.block == "basic" else (1, stride, 1)
                inner = hidden
                for number, each in enumerate(strides, start=1):
                    inner = conv_norm(inner, p[f"conv{number}"], below(s, f"conv{number}"), each)
                    inner = relu(inner) if number < len(strides) else inner
                if "shortcut" in p:
                    hidden = conv_norm(hidden, p["shortcut"], below(s, "shortcut"), stride)
                hidden = relu(inner + hidden)
        if config.connection == "plain":
            hidden = plain_max_pool(hidden, 2, 2, 0)
    if config.connection == "dense":
        hidden = relu(plain_norm(hidden, params["final_norm"], config, below(stats, "final_norm")))
    return hidden.reshape(len(hidden), -1, hidden.shape[-1])


def configured(name, norm):
    groups = dict(norm="group", num_groups=1 if name == "plain" else 2) if norm == "group" else {}
    return ConvNetConfig(num_channels=CHANNELS, **CASES[name], **groups)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("name", CASES)
def test_a_convnet_and_its_gradient_equal_the_plain_one(name, norm):
    config, image = configured(name, norm), images(*((13, 19) if name == "bottleneck" else (7, 11)))
    module = config.module()
    variables = drawn_variables(module, image)
    rest = {key: value for key, value in variables.items() if key != "params"}

    def along(params, weight):
        hidden, _ = module.apply({"params": params, **rest}, image, train=True, mutable=["batch_stats"])
        return jnp.sum(hidden * weight), hidden

    wanted = plain_convnet(wide(variables["params"]), config, wide(image))
    weight = np.random.default_rng(3).normal(size=wanted.shape)
    both = jax.jit(jax.grad(along, has_aux=True))
    gradient, hidden = both(variables["params"], jnp.asarray(weight, jnp.float32))
    assert hidden.shape == (BATCH, wanted.shape[1], config.width)
    assert difference(wanted, hidden) < 1e-5

    def plain_along(params):
        return float((plain_convnet(params, config, wide(image)) * weight).sum())

    assert slope_error(gradient, plain_along, variables["params"]) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_evaluation_goes_by_the_running_statistics(name):
    config, image = configured(name, "batch"), images(13, 19)
    module = config.module()
    variables = drawn_variables(module, image)
    found, changed = jax.jit(lambda v: module.apply(v, image, mutable=["batch_stats"]))(variables)
    stats = wide(variables["batch_stats"])
    assert difference(plain_convnet(wide(variables["params"]), config, wide(image), stats), found) < 1e-5
    assert difference(variables["batch_stats"], changed["batch_stats"]) == 0.0


def test_running_statistics_follow_the_batches():
    module = BatchNorm(momentum=0.8)
    variables = drawn_variables(module, images(), where=None, train=False)
    kept = wide(variables["batch_stats"])
    for seed in range(3):
        image = images(seed=seed) + 30.0  # where the mean is large, its square is no start for the variance
        found, changed = module.apply(variables, image, where=None, train=True, mutable=["batch_stats"])
        mean, variance = wide(image).mean((0, 1, 2)), wide(image).var((0, 1, 2))
        p = wide(variables["params"])
        wanted = (wide(image) - mean) / np.sqrt(variance + 1e-5) * p["scale"] + p["bias"]
        assert difference(wanted, found) < 1e-5
        kept = {"mean": 0.8 * kept["mean"] + 0.2 * mean, "var": 0.8 * kept["var"] + 0.2 * variance}
        assert difference(kept, changed["batch_stats"]) < 1e-5
        variables |= changed


@pytest.mark.parametrize("padding", [0.0, np.nan])
def test_padded_examples_are_no_part_of_the_statistics(padding):
    module, image = configured("basic", "batch").module(), images(batch=5)
    where = jnp.array([True, False, True, True, False])
    variables = drawn_variables(module, image)
    padded = jnp.where(where[:, None, None, None], image, padding)

    def train(image, where):
        return module.apply(variables, image, where=where, train=True, mutable=["batch_stats"])

    found, changed = jax.jit(train)(padded, where)
    wanted, wanted_changed = jax.jit(train)(image[where], None)
    assert difference(wanted, found[where]) < 1e-5
    assert difference(wanted_changed, changed) < 1e-5


def test_the_statistics_are_those_of_the_global_batch():
    """The batch on eight devices, as the trainer lays it, and on one: values, statistics, gradients."""
    module, image = configured("basic", "batch").module(), images(batch=16)
    where = jnp.arange(16) != 5
    variables = drawn_variables(module, image)
    weight = jnp.asarray(np.random.default_rng(3).normal(size=(16, 24, 6)), jnp.float32)

    def along(params, image, where):
        given = {**variables, "params": params}
        hidden, changed = module.apply(given, image, where=where, train=True, mutable=["batch_stats"])
        return jnp.sum(hidden * weight), (hidden, changed)

    both = jax.jit(jax.grad(along, has_aux=True))
    one = both(variables["params"], image, where)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        spread = NamedSharding(mesh, PartitionSpec("data"))
        eight = both(variables["params"], jax.device_put(image, spread), jax.device_put(where, spread))
    assert len(eight[1][0].sharding.device_set) == 8
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        assert difference(ours, theirs) < 1e-5


def test_a_fresh_residual_block_is_the_identity():
    image = jax.nn.relu(images(channels=4))
    for zero_init in (True, False):
        block = ResidualBlock(ConvNetConfig(**CASES["basic"], zero_init=zero_init), 4, 1)
        variables = block.init(jax.random.key(0), image, where=None, train=True)
        found, _ = block.apply(variables, image, where=None, train=True, mutable=["batch_stats"])
        assert (difference(image, found) == 0.0) == zero_init


@pytest.mark.parametrize("stride", [1, 2])
def test_products_of_rounded_factors_in_both_directions(stride):
    image = images()
    draw = np.random.default_rng(5)
    kernel = jnp.asarray(draw.normal(size=(3, 3, CHANNELS, 5)), jnp.float32)
    options = dict(stride=stride, dtype="float32", matmul_dtype="bfloat16")
    found, back = jax.jit(lambda *given: jax.vjp(lambda *factors: convolve(*factors, **options), *given))(image, kernel)
    cotangent = jnp.asarray(draw.normal(size=found.shape), jnp.float32)

    def rounded(array):
        return wide(jnp.asarray(array).astype(jnp.bfloat16).astype(jnp.float32))

    pixels, weights, turned = rounded(image), rounded(kernel), rounded(cotangent)
    assert difference(plain_convolution(pixels, weights, stride), found) < 1e-5
    d_image, d_kernel = back(cotangent)
    assert slope_error(d_image, lambda i: float((plain_convolution(i, weights, stride) * turned).sum()), pixels) < 1e-5
    assert slope_error(d_kernel, lambda k: float((plain_convolution(pixels, k, stride) * turned).sum()), weights) < 1e-5


def test_a_perceptron_and_its_gradient_equal_the_plain_one():
    module, image = mlp(width=5, depth=3, num_channels=CHANNELS).module(), images(3, 4)
    params = drawn_variables(module, image)["params"]

    def plain(params):
        hidden = wide(image).reshape(BATCH, -1)
        for layer in (1, 2, 3):
            hidden = relu(hidden @ params[f"linear{layer}"]["kernel"] + params[f"linear{layer}"]["bias"])
        return hidden

    found = module.apply({"params": params}, image)
    assert found.shape == (BATCH, 1, 5)
    assert difference(plain(wide(params)), found[:, 0]) < 1e-5
    gradient = jax.grad(lambda params: jnp.sum(module.apply({"params": params}, image)))(params)
    assert slope_error(gradient, lambda params: float(plain(params).sum()), params) < 1e-5


def test_what_a_convnet_cannot_do_is_refused():
    for wrong, message in (
        (dict(widths=(3,)), "wants 4"),
        (dict(connection="dense", widths=(3,), depths=(2,)), "wants 0"),
        (dict(depths=(2, 0), widths=(3, 5)), "1 or more"),
        (dict(depths=(1,), widths=(6,), block="bottleneck"), "multiples of 4"),
    ):
        with pytest.raises(ValueError, match=message):
            ConvNetConfig(**wrong)
    with pytest.raises(ValueError, match="into 4 groups"):
        ConvNetConfig(**CASES["plain"], norm="group", num_groups=4).module().init(jax.random.key(0), images())
    with pytest.raises(ValueError, match="fewer stages"):
        ConvNetConfig(**CASES["plain"]).module().init(jax.random.key(0), images(3, 5))
    with pytest.raises(ValueError, match="1 x 4"):
        max_pool(images(1, 4), size=2, stride=2)
