"""ViT in the layout of Hugging Face transformers (`ViTModel`, `ViTForImageClassification`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from research.interop.family import (
    Family,
    Head,
    Settings,
    activation,
    class_names,
    differences,
    head_differences,
    need,
)
from research.interop.rules import Rule, convolution, linear, norm, reshaped, same
from research.models.vit import ViTConfig

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


def _read(settings: Settings) -> dict[str, Any]:
    for key in ("image_size", "patch_size"):
        if not isinstance(settings[key], int):
            raise ValueError(f"config.json says {key}={settings[key]!r}; here it can be one number, for squares")
    return dict(
        name="vit",
        image_size=settings["image_size"],
        patch_size=settings["patch_size"],
        num_channels=settings.get("num_channels", 3),
        width=settings["hidden_size"],
        depth=settings["num_hidden_layers"],
        num_heads=settings["num_attention_heads"],
        mlp_dim=settings["intermediate_size"],
        norm_epsilon=settings.get("layer_norm_eps", 1e-12),
        qkv_bias=settings.get("qkv_bias", True),
        activation=activation(settings, "hidden_act", _ACTIVATIONS),
        dropout=settings.get("hidden_dropout_prob", 0.0),
    )


def _write(model: ViTConfig, ids: Mapping[str, int]) -> dict[str, Any]:
    written = {value: key for key, value in reversed(_ACTIVATIONS.items())}
    return dict(
        model_type="vit",
        **ids,
        image_size=model.image_size,
        patch_size=model.patch_size,
        encoder_stride=model.patch_size,
        num_channels=model.num_channels,
        hidden_size=model.width,
        num_hidden_layers=model.depth,
        num_attention_heads=model.num_heads,
        intermediate_size=model.trunk.inner_dim,
        layer_norm_eps=model.norm_epsilon,
        qkv_bias=model.qkv_bias,
        hidden_act=written[model.activation],
        hidden_dropout_prob=model.dropout,
        attention_probs_dropout_prob=0.0,
    )


def _misfit(model: ViTConfig) -> str:
    wanted = dict(class_token=True, embed_bias=True, embed_norm=False, position="learned")
    return differences(model, wanted | dict(activation=tuple(_ACTIVATIONS.values())))


def _backbone(model: ViTConfig, settings: Settings) -> Sequence[Rule]:
    del settings
    width, heads, dim = model.width, (model.num_heads, model.trunk.head_dim), model.trunk.inner_dim
    stem, layer, ours = "vit.embeddings.", "vit.encoder.layer.{i}.", "backbone/layers/"
    patches, positions = f"{stem}patch_embeddings.projection", f"{stem}position_embeddings"
    table = (model.num_patches + 1, width)
    rules = [
        *convolution(patches, "backbone/embed", model.patch_size, model.num_channels, width, bias=True),
        same(f"{stem}cls_token", "backbone/class_token", 1, 1, width),
        reshaped(positions, "backbone/positions/embedding", (1, *table), table),
    ]
    for name in ("query", "key", "value"):
        theirs = f"{layer}attention.attention.{name}"
        rules += linear(theirs, f"{ours}attention/{name}", (width,), heads, bias=model.qkv_bias)
    return [
        *rules,
        *norm(f"{layer}layernorm_before", f"{ours}norm1", width),
        *linear(f"{layer}attention.output.dense", f"{ours}attention/out", heads, (width,)),
        *norm(f"{layer}layernorm_after", f"{ours}norm2", width),
        *linear(f"{layer}intermediate.dense", f"{ours}mlp/up", (width,), (dim,)),
        *linear(f"{layer}output.dense", f"{ours}mlp/down", (dim,), (width,)),
        *norm("vit.layernorm", "backbone/final_norm", width),
    ]


def _read_head(task: str, settings: Settings) -> dict[str, Any]:
    if task == "classification":
        return dict(name="classification", num_classes=len(class_names(settings)), pooling="first")
    need(settings, "pooler_act", "tanh")
    need(settings, "pooler_output_size", settings["hidden_size"], None)
    return dict(name="embedding", pooling="first", pooler=True)


def _head_misfit(task: str, head: Head) -> str:
    wanted = {
        "classification": dict(name="classification", pooling="first", pooler=False, bias=True),
        "features": dict(name="embedding", pooling="first", normalize=False),
    }
    return head_differences(head, wanted[task])


def _head(task: str, model: ViTConfig, head: Head) -> Sequence[Rule]:
    width = (model.width,)
    if task == "classification":
        return linear("classifier", "head/classifier", width, (head["num_classes"],))
    return linear("vit.pooler.dense", "head/pooler", width, width) if head["pooler"] else []


vit = Family(
    model_type="vit",
    prefix="vit.",
    tasks={"features": "ViTModel", "classification": "ViTForImageClassification"},
    read=_read,
    write=_write,
    misfit=_misfit,
    backbone=_backbone,
    read_head=_read_head,
    head_misfit=_head_misfit,
    head=_head,
    # A classifier's file may carry the pooler, and any the token of masked image models.
    unused=(r"pooler\.dense\.", r"embeddings\.mask_token$"),
    config=ViTConfig,
)
