"""CLIP without transformers: settings and tensors come back as they were, and what is no CLIP is refused."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from research.build import build
from research.interop.hf_clip import clip, tower_misfit
from research.interop.rules import give_variables, take_variables
from research.models import PAIR_MODELS
from tests.models.test_dual_encoder import CLIP, CONVNET, TEXT, VIT, config, drawn

IDS = dict(pad_token_id=0, bos_token_id=5, eos_token_id=3)
MODELS = {
    "quick_gelu": CLIP,
    "towers of other depths": CLIP
    | dict(
        image=CLIP["image"] | dict(depth=3, activation="gelu"),
        text=CLIP["text"] | dict(depth=2, activation="gelu_tanh", norm_epsilon=1e-5),
        initial_scale=12.5,
    ),
}


def read(settings):
    return build(clip.read(settings), PAIR_MODELS, kind="model")


@pytest.mark.parametrize("name", MODELS)
def test_settings_and_tensors_come_back_as_they_were(name):
    model = config(**MODELS[name])
    settings = clip.write(model, IDS)
    again = read(settings)
    assert clip.refuses(model) == clip.refuses(again) == ""
    # How pixels are standardised stands in preprocessor_config.json.
    wanted = dataclasses.replace(model.image_tower, pixel_mean=(0.5,), pixel_std=(0.5,))
    assert (again.image_tower, again.text_tower) == (wanted, model.text_tower)
    assert (again.embed_dim, again.image_pooling, again.text_pooling) == (5, "first", "last")
    assert again.initial_scale == pytest.approx(model.initial_scale, rel=1e-12)
    written = clip.write(again, IDS)
    assert written.pop("logit_scale_init_value") == pytest.approx(settings["logit_scale_init_value"], rel=1e-12)
    assert written == {key: value for key, value in settings.items() if key != "logit_scale_init_value"}

    params = drawn(model.module())["params"]
    rules = clip.backbone(model, settings)
    tensors = give_variables({"params": params}, rules, depth=0)
    towers = model.image_tower, model.text_tower
    assert len(tensors) == 5 + 16 * towers[0].depth + 2 + 2 + 16 * towers[1].depth + 2 + 3
    taken = take_variables(tensors, rules, depth=0, where="")
    assert taken.keys() == {"params"}
    assert jax.tree.structure(taken["params"]) == jax.tree.structure(dict(params))
    padded = params["text"]["embed"]["embedding"]
    np.testing.assert_array_equal(taken["params"]["text"]["embed"]["embedding"][:37], padded[:37])
    lost = next(iter(tensors))
    with pytest.raises(ValueError, match=f"missing {lost}"):
        take_variables({key: array for key, array in tensors.items() if key != lost}, rules, depth=0, where="")


def test_what_a_config_leaves_out_is_as_in_the_first_clip():
    model = read({"model_type": "clip"})
    image, text = model.image_tower, model.text_tower
    assert (image.width, image.depth, image.num_heads, image.patch_size, image.image_size) == (768, 12, 12, 32, 224)
    assert (text.width, text.depth, text.num_heads, text.length, text.vocab_size) == (512, 12, 8, 77, 49408)
    assert (model.embed_dim, model.initial_scale) == (512, pytest.approx(1 / 0.07))
    assert image.activation == text.activation == "quick_gelu"
    assert read(dict(logit_scale_init_value=math.log(150.0))).max_scale == pytest.approx(150.0)


def test_an_old_files_second_settings_of_a_tower_win():
    given = dict(text_config=dict(hidden_size=64, num_hidden_layers=5), vision_config=dict(hidden_size=96))
    assert read(given | dict(text_config_dict=None)).text_tower.depth == 5
    model = read(given | dict(text_config_dict=dict(hidden_size=32)))
    assert (model.text_tower.width, model.text_tower.depth, model.image_tower.width) == (32, 12, 96)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(image=CONVNET), "model.image: a ViTConfig, not a ConvNetConfig"),
        (dict(text=dict(name="lstm", vocab_size=37)), "model.text: a TransformerConfig, not a RecurrentConfig"),
        (dict(image=VIT), "model.image: activation='gelu'|embed_bias=True, wanted False; embed_norm=False"),
        (dict(text=TEXT), "causal=False"),
        (dict(text=CLIP["text"] | dict(num_kv_heads=1)), "kv_heads=1, wanted 3"),
        (dict(text=CLIP["text"] | dict(activation="relu")), "activation='relu'"),
        (dict(image_pooling="mean"), "image_pooling='mean'"),
        (dict(text_pooling="first"), "text_pooling='first'"),
        (dict(bias=True), "bias=True, wanted False"),
    ],
)
def test_other_dual_encoders_are_refused(changes, reason):
    assert any(part in clip.refuses(config(**{**CLIP, **changes})) for part in reason.split("|"))
    side = "image" if "image" in str(list(changes)) else "text"
    assert ("bias" in changes) != bool(tower_misfit(side, config(**{**CLIP, **changes})))


def test_settings_that_are_not_had_here_are_refused():
    settings = clip.write(config(**CLIP), IDS)
    for part, changes in (
        ("vision_config", dict(image_size=[6, 9])),
        ("vision_config", dict(hidden_act="relu")),
        ("text_config", dict(attention_dropout=0.1)),
        ("text_config", dict(eos_token_id=[2, 3])),
    ):
        with pytest.raises(ValueError, match=f"config.json says {next(iter(changes))}"):
            clip.read(settings | {part: settings[part] | changes})
    assert clip.head_misfit("features", {}) == ""
    assert "no head" in clip.head_misfit("features", dict(name="embedding"))


@pytest.mark.parametrize(("ids", "message"), [({}, "end token"), (dict(eos_token_id=2), "largest id")])
def test_a_tokenizer_by_which_transformers_would_pool_elsewhere_is_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        clip.write(config(**CLIP), ids)
