"""What every image model promises, by shapes alone: nothing is compiled."""

import json
from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from research.build import build, resolve
from research.models import HEADS, IMAGE_MODELS
from research.training.sharding import LOGICAL_AXES

# Parameters without the head, and 10^9 multiply-adds of an image of 224 x 224: torchvision's and timm's, less their
# classifiers' (and for VGG with norms, less the biases that its convolutions have there).
KNOWN = {
    "vgg11": (9_225_984 - 2_752, 7.485),
    "vgg16": (14_723_136 - 4_224, 15.347),
    "resnet18": (11_689_512 - 513_000, 1.814),
    "resnet34": (21_797_672 - 513_000, 3.663),
    "resnet50": (25_557_032 - 2_049_000, 4.087),
    "densenet": (7_978_856 - 1_025_000, 2.833),
    "vit_tiny": (5_717_416 - 193_000, 1.253),
    "vit_small": (22_050_664 - 385_000, 4.598),
    "vit_base": (86_567_656 - 769_000, 17.563),
}


def built(name, **changes):
    options = dict(depths=[1, 1], widths=[8, 12]) if name == "convnet" else {}
    return build(dict(name=name, **options, **changes), IMAGE_MODELS, kind="model", image_size=224)


def shapes(module, size=224):
    image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    hidden, variables = jax.eval_shape(lambda image: module.init_with_output(jax.random.key(0), image), image)
    return hidden, variables


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_an_image_model_gives_vectors_and_names_its_axes(name):
    config = built(name)
    hidden, variables = shapes(config.module())
    assert (hidden.shape[0], hidden.shape[2], hidden.dtype) == (2, config.width, jnp.float32)
    known = {*LOGICAL_AXES, None}
    for path, leaf in jax.tree.leaves_with_path(
        variables["params"], is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
    ):
        assert isinstance(leaf, nn.LogicallyPartitioned), path
        assert len(leaf.names) == leaf.value.ndim, path
        assert known >= set(leaf.names), path
        assert any(leaf.names), path
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    if name in KNOWN:
        count, products = KNOWN[name]
        assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
        assert config.num_flops(224) / 6e9 == pytest.approx(products, abs=1e-3 if "vit" not in name else 5e-2)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_a_block_can_be_kept_as_json_and_computes_in_the_type_it_names(name):
    options = dict(depths=[1, 1], widths=[8, 12]) if name == "convnet" else {}
    types = dict(dtype="bfloat16", param_dtype="bfloat16", matmul_dtype="bfloat16")
    full = resolve(dict(name=name, **options), IMAGE_MODELS, kind="model", image_size=64, **types)
    config = build(json.loads(json.dumps(full)), IMAGE_MODELS, kind="model")
    assert config == build(full, IMAGE_MODELS, kind="model")
    hidden, variables = shapes(config.module(), 64)
    assert hidden.dtype == jnp.bfloat16
    assert Counter(leaf.dtype for leaf in jax.tree.leaves(variables["params"])).keys() == {jnp.dtype("bfloat16")}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables.get("batch_stats", {})))


@pytest.mark.parametrize("name", ["vit_tiny", "resnet18", "mlp"])
@pytest.mark.parametrize("pooling", ["first", "mean", "max", "map"])
def test_the_heads_of_texts_read_an_image_model(name, pooling):
    hidden, _ = shapes(built(name).module())
    for head, width in (("classification", 7), ("embedding", hidden.shape[2])):
        made = build(dict(name=head, pooling=pooling), HEADS, kind="head", num_classes=7)
        given = (hidden, jax.ShapeDtypeStruct(hidden.shape[:2], bool))
        options = dict(train=False) if head == "classification" else {}
        found, _ = jax.eval_shape(
            lambda *given, made=made, options=options: made.init_with_output(jax.random.key(0), *given, **options),
            *given,
        )
        assert found.shape == (2, width)
