"""The image families without transformers: their rules are inverses, and they say what they are not."""

import dataclasses

import jax
import numpy as np
import pytest

from research.build import build
from research.interop.family import Family
from research.interop.family import rules_of as family_rules
from research.interop.hf_bert import bert
from research.interop.hf_resnet import resnet
from research.interop.hf_vit import vit
from research.interop.pooling import write_pooling
from research.interop.rules import give_variables, take_variables
from research.models import HEADS, IMAGE_MODELS, MODELS
from research.models.convnet import ConvNetConfig, densenet, resnet18, resnet50
from research.models.vit import ViTConfig
from tests.models.plain import drawn_variables

SMALL_VIT = ViTConfig(image_size=6, patch_size=3, num_channels=2, width=10, depth=3, num_heads=2, mlp_dim=7)
SMALL_RESNET = dict(depths=(1, 2), stem_width=4, num_channels=2)
MODEL_CASES = {
    "vit": (vit, SMALL_VIT),
    "vit without qkv_bias": (vit, dataclasses.replace(SMALL_VIT, qkv_bias=False, activation="gelu_tanh")),
    "basic": (resnet, ConvNetConfig(**SMALL_RESNET, widths=(4, 6))),
    "bottleneck": (resnet, ConvNetConfig(**SMALL_RESNET, widths=(4, 12), block="bottleneck")),
}


def rules_of(family: Family, task, config, head, settings):
    """Rules of a model beside a head, or of one alone, whose tensors have no prefix."""
    return family_rules(family, task, config, head, settings, beside_head=task != "features")


def drawn(config, head):
    """Variables of a model with its head, by collection."""
    image = jax.numpy.zeros((2, 6, 6, config.num_channels))
    module = build(head, HEADS, kind="head")
    options = dict(train=False) if head["name"] == "classification" else {}
    hidden = jax.eval_shape(lambda: config.module().init_with_output(jax.random.key(0), image))[0]
    hidden = jax.numpy.zeros(hidden.shape)
    parts = drawn_variables(config.module(), image), drawn_variables(module, hidden, hidden[..., 0] == 0, **options)
    return {
        kind: {"backbone": tree} | ({"head": parts[1][kind]} if kind in parts[1] else {})
        for kind, tree in parts[0].items()
    }


@pytest.mark.parametrize("task", ["features", "classification"])
@pytest.mark.parametrize("name", MODEL_CASES)
def test_settings_and_tensors_come_back_as_they_were(name, task):
    family, config = MODEL_CASES[name]
    labels = {"id2label": {str(i): f"L{i}" for i in range(5)}} if task == "classification" else {}
    settings = family.write(config, {}) | labels
    block, head = family.read(settings), family.read_head(task, settings)
    assert family.refuses(build(block, IMAGE_MODELS, kind="model")) == ""
    assert family.write(build(block, IMAGE_MODELS, kind="model"), {}) == family.write(config, {})
    assert family.head_misfit(task, head) == ""
    variables = drawn(config, head)
    rules = rules_of(family, task, config, head, settings)
    tensors = give_variables(variables, rules, depth=config.depth)
    assert all(name.startswith((family.prefix, "classifier")) != (task == "features") for name in tensors)
    again = take_variables(tensors, rules, depth=config.depth, where="")
    assert jax.tree.structure(again) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    lost = next(iter(tensors))
    with pytest.raises(ValueError, match=f"missing {lost}"):
        take_variables({k: v for k, v in tensors.items() if k != lost}, rules, depth=config.depth, where="")


def test_other_models_are_refused():
    bert_model = MODELS["bert"](vocab_size=7, length=5)
    for family, model, reason in (
        (vit, resnet18(), "a ViTConfig, not a ConvNetConfig"),
        (bert, SMALL_VIT, "a TransformerConfig, not a ViTConfig"),
        (resnet, bert_model, "a ConvNetConfig, not a TransformerConfig"),
        (vit, dataclasses.replace(SMALL_VIT, class_token=False), "class_token=False"),
        (vit, dataclasses.replace(SMALL_VIT, embed_norm=True, embed_bias=False), "embed_bias=False"),
        (vit, dataclasses.replace(SMALL_VIT, activation="quick_gelu"), "activation='quick_gelu'"),
        (vit, dataclasses.replace(SMALL_VIT, width=8, position="sincos"), "position='sincos'"),
        (resnet, resnet18(stem="cifar"), "stem='cifar'"),
        (resnet, resnet18(norm="group"), "norm='group'"),
        (resnet, densenet(), "connection='dense'"),
    ):
        assert reason in family.refuses(model)
    assert bert.refuses(bert_model) == vit.refuses(SMALL_VIT) == resnet.refuses(resnet50()) == ""
    assert "pooling='mean'" in vit.head_misfit("classification", dict(name="classification", pooling="mean"))
    assert "pooling='map'" in resnet.head_misfit("features", dict(name="embedding", pooling="map"))


def test_settings_that_are_not_had_here_are_refused():
    for family, config, changes in (
        (vit, SMALL_VIT, dict(image_size=[6, 9])),
        (vit, SMALL_VIT, dict(hidden_act="quick_gelu")),
        (resnet, resnet50(), dict(downsample_in_bottleneck=True)),
        (resnet, resnet50(), dict(downsample_in_first_stage=True)),
        (resnet, resnet50(), dict(hidden_act="gelu")),
    ):
        with pytest.raises(ValueError, match=f"config.json says {next(iter(changes))}"):
            family.read(family.write(config, {}) | changes)
    with pytest.raises(ValueError, match="pooler_output_size"):
        vit.read_head("features", vit.write(SMALL_VIT, {}) | dict(pooler_output_size=3))


def test_attention_pooling_has_no_published_form(tmp_path):
    with pytest.raises(ValueError, match="head.pooling=map"):
        write_pooling(tmp_path, dict(pooling="map", pooler=False, normalize=False), width=5)
