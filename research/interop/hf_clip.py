"""CLIP in the layout of Hugging Face transformers: `CLIPModel`.

A text is pooled at the end of its real tokens here. transformers takes the first `eos_token_id`, or, where config.json
says eos_token_id=2 (files from before its pull request 24773, OpenAI's among them), the largest id of the row. All
three are one place where a text ends with the end token, has it nowhere else and, for the last, no larger id.
transformers does not limit the scale either, which differs where `log_scale` is above the logarithm of `max_scale`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from research.interop.family import Family, Head, Settings, activation, differences, need
from research.interop.rules import Rule, convolution, linear, norm, reshaped, same, vocabulary
from research.models.dual_encoder import DualEncoderConfig, Side
from research.models.transformer import TransformerConfig
from research.models.vit import ViTConfig

_TYPES: Mapping[Side, str] = {"image": "clip_vision_model", "text": "clip_text_model"}
_PARTS: Mapping[Side, str] = {"image": "vision", "text": "text"}
_ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
# What a config.json leaves out is as in CLIP ViT-B/32.
_COMMON = dict(num_hidden_layers=12, hidden_act="quick_gelu", layer_norm_eps=1e-5, attention_dropout=0.0)
_DEFAULTS: Mapping[Side, Settings] = {
    "image": dict(
        **_COMMON,
        hidden_size=768,
        intermediate_size=3072,
        num_attention_heads=12,
        num_channels=3,
        image_size=224,
        patch_size=32,
    ),
    "text": dict(
        **_COMMON,
        vocab_size=49408,
        hidden_size=512,
        intermediate_size=2048,
        num_attention_heads=8,
        max_position_embeddings=77,
        eos_token_id=49407,
    ),
}


def tower_misfit(side: Side, model: DualEncoderConfig) -> str:
    """Why a tower is none of CLIP's, or ""."""
    tower, kind = (model.image_tower, ViTConfig) if side == "image" else (model.text_tower, TransformerConfig)
    if not isinstance(tower, kind):
        return f"model.{side}: a {kind.__name__}, not a {type(tower).__name__}"
    wanted: dict[str, Any] = dict(activation=tuple(_ACTIVATIONS.values()), qkv_bias=True, position="learned")
    if side == "image":
        wanted |= dict(class_token=True, embed_bias=False, embed_norm=True)
    else:
        wanted |= dict(causal=True, norm="layer", norm_position="pre", embed_norm=False, num_token_types=0)
        wanted |= dict(qk_norm=False, bias=True, kv_heads=tower.num_heads)
    pooling = {"image_pooling": "first"} if side == "image" else {"text_pooling": "last"}
    reasons = [f"model.{side}: {differences(tower, wanted)}"] if differences(tower, wanted) else []
    reasons += [differences(model, pooling)] if differences(model, pooling) else []
    return "; ".join(reasons)


def tower_rules(side: Side, model: DualEncoderConfig) -> list[Rule]:
    """A tower and its projection, whose tensors have the same names in both of their architectures."""
    rules = _image_rules(model.image_tower) if side == "image" else _text_rules(model.text_tower)
    tower, theirs = (model.image_tower, "visual") if side == "image" else (model.text_tower, "text")
    projection = f"{side}_projection"
    return [*rules, *linear(f"{theirs}_projection", projection, (tower.width,), (model.embed_dim,), bias=False)]


def _read(settings: Settings) -> dict[str, Any]:
    scale = settings.get("logit_scale_init_value", math.log(1.0 / 0.07))
    towers = _read_tower("image", _part(settings, "image")) | _read_tower("text", _part(settings, "text"))
    return dict(
        name="dual_encoder",
        **towers,
        embed_dim=settings.get("projection_dim", 512),
        initial_scale=math.exp(scale),
        max_scale=max(100.0, math.exp(scale)),
    )


def _write(model: DualEncoderConfig, ids: Mapping[str, int]) -> dict[str, Any]:
    return dict(
        model_type="clip",
        projection_dim=model.embed_dim,
        logit_scale_init_value=math.log(model.initial_scale),
        vision_config={"model_type": _TYPES["image"], **_write_image(model)},
        text_config={"model_type": _TYPES["text"], **_write_text(model, ids)},
    )


def _part(settings: Settings, side: Side) -> Settings:
    """The settings of one tower; old files say them a second time under another name, which wins in transformers."""
    given, name = settings.get(f"{_PARTS[side]}_config") or {}, f"{_PARTS[side]}_config_dict"
    if settings.get(name) is None:
        return given
    return {**given, **_DEFAULTS[side], **settings[name]}


def _read_tower(side: Side, given: Settings) -> dict[str, Any]:
    settings = {**_DEFAULTS[side], **given}
    need(settings, "attention_dropout", 0.0)
    block: dict[str, Any] = dict(
        width=settings["hidden_size"],
        depth=settings["num_hidden_layers"],
        num_heads=settings["num_attention_heads"],
        mlp_dim=settings["intermediate_size"],
        norm_epsilon=settings["layer_norm_eps"],
        activation=activation(settings, "hidden_act", _ACTIVATIONS),
    )
    if side == "image":
        for key in ("image_size", "patch_size"):
            if not isinstance(settings[key], int):
                raise ValueError(f"config.json says {key}={settings[key]!r}; here it can be one number, for squares")
        block |= {key: settings[key] for key in ("image_size", "patch_size", "num_channels")}
        return dict(image=dict(name="vit", embed_bias=False, embed_norm=True, **block), image_pooling="first")
    if not isinstance(settings["eos_token_id"], int):
        raise ValueError(f"config.json says eos_token_id={settings['eos_token_id']!r}; here it can be one number")
    block |= dict(vocab_size=settings["vocab_size"], length=settings["max_position_embeddings"], causal=True)
    return dict(text=dict(name="transformer", **block), text_pooling="last")


def _write_image(model: DualEncoderConfig) -> dict[str, Any]:
    tower: ViTConfig = model.image_tower
    return _write_trunk(tower.trunk) | dict(
        image_size=tower.image_size,
        patch_size=tower.patch_size,
        num_channels=tower.num_channels,
        projection_dim=model.embed_dim,
    )


def _write_text(model: DualEncoderConfig, ids: Mapping[str, int]) -> dict[str, Any]:
    tower: TransformerConfig = model.text_tower
    if "eos_token_id" not in ids:
        raise ValueError("CLIP pools a text at its end token, and the tokenizer has none; use one with an eos_token_id")
    if ids["eos_token_id"] == 2:
        raise ValueError(
            "the end token has the id 2, by which transformers knows CLIP's old files and pools at the largest id of a "
            "text; use a tokenizer whose end token has another id"
        )
    return _write_trunk(tower) | dict(
        **ids, vocab_size=tower.vocab_size, max_position_embeddings=tower.length, projection_dim=model.embed_dim
    )


def _write_trunk(trunk: TransformerConfig) -> dict[str, Any]:
    written = {value: key for key, value in reversed(_ACTIVATIONS.items())}
    return dict(
        hidden_size=trunk.width,
        num_hidden_layers=trunk.depth,
        num_attention_heads=trunk.num_heads,
        intermediate_size=trunk.inner_dim,
        layer_norm_eps=trunk.norm_epsilon,
        hidden_act=written[trunk.activation],
        attention_dropout=0.0,
    )


def _misfit(model: DualEncoderConfig) -> str:
    reasons = [tower_misfit("image", model), tower_misfit("text", model), differences(model, dict(bias=False))]
    return "; ".join(filter(None, reasons))


def _image_rules(tower: ViTConfig) -> list[Rule]:
    width, stem = tower.width, "vision_model.embeddings."
    return [
        *convolution(f"{stem}patch_embedding", "image/embed", tower.patch_size, tower.num_channels, width),
        reshaped(f"{stem}class_embedding", "image/class_token", (width,), (1, 1, width)),
        same(f"{stem}position_embedding.weight", "image/positions/embedding", tower.num_patches + 1, width),
        *norm("vision_model.pre_layrnorm", "image/stem_norm", width),  # spelled so there
        *_layers("vision_model", "image", tower.trunk),
        *norm("vision_model.post_layernorm", "image/final_norm", width),
    ]


def _text_rules(tower: TransformerConfig) -> list[Rule]:
    width, stem = tower.width, "text_model.embeddings."
    return [
        vocabulary(f"{stem}token_embedding.weight", "text/embed/embedding", tower.vocab_size, width),
        same(f"{stem}position_embedding.weight", "text/positions/embedding", tower.length, width),
        *_layers("text_model", "text", tower),
        *norm("text_model.final_layer_norm", "text/final_norm", width),
    ]


def _layers(theirs: str, ours: str, trunk: TransformerConfig) -> list[Rule]:
    width, heads, dim = trunk.width, (trunk.num_heads, trunk.head_dim), trunk.inner_dim
    theirs, ours, rules = f"{theirs}.encoder.layers.{{i}}.", f"{ours}/layers/", []
    for name in ("query", "key", "value"):
        rules += linear(f"{theirs}self_attn.{name[0]}_proj", f"{ours}attention/{name}", (width,), heads)
    rules += [
        *linear(f"{theirs}self_attn.out_proj", f"{ours}attention/out", heads, (width,)),
        *norm(f"{theirs}layer_norm1", f"{ours}norm1", width),
        *linear(f"{theirs}mlp.fc1", f"{ours}mlp/up", (width,), (dim,)),
        *linear(f"{theirs}mlp.fc2", f"{ours}mlp/down", (dim,), (width,)),
        *norm(f"{theirs}layer_norm2", f"{ours}norm2", width),
    ]
    return [dataclasses.replace(rule, depth=trunk.depth) for rule in rules]


def _rules(model: DualEncoderConfig, settings: Settings) -> Sequence[Rule]:
    del settings
    return [*tower_rules("image", model), *tower_rules("text", model), same("logit_scale", "log_scale")]


def _no_head(task: str, settings: Settings) -> dict[str, Any]:
    del task, settings
    return {}


def _head_misfit(task: str, head: Head) -> str:
    return f"{task} of a dual encoder needs no head, and there is {dict(head)}" if head else ""


def _head(task: str, model: DualEncoderConfig, head: Head) -> Sequence[Rule]:
    del task, model, head
    return []


# Its leaves are those of the whole dual encoder: `image`, `image_projection`, …, not of a `backbone` with a head.
clip = Family(
    model_type="clip",
    prefix="",
    tasks={"features": "CLIPModel"},
    read=_read,
    write=_write,
    misfit=_misfit,
    backbone=_rules,
    read_head=_no_head,
    head_misfit=_head_misfit,
    head=_head,
    unused=(r"embeddings\.position_ids$",),  # a buffer that old files carry
    config=DualEncoderConfig,
)
