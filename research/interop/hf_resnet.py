"""ResNet in the layout of Hugging Face transformers (`ResNetModel`, `ResNetForImageClassification`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from research.interop.family import Family, Head, Settings, class_names, differences, head_differences, need
from research.interop.rules import Rule, batch_norm, convolution, linear
from research.models.convnet import ConvNetConfig


def _read(settings: Settings) -> dict[str, Any]:
    need(settings, "hidden_act", "relu")
    need(settings, "downsample_in_first_stage", False)
    need(settings, "downsample_in_bottleneck", False)
    need(settings, "layer_type", "bottleneck", "basic")
    return dict(
        name="convnet",
        connection="residual",
        depths=tuple(settings["depths"]),
        widths=tuple(settings["hidden_sizes"]),
        block=settings.get("layer_type", "bottleneck"),
        stem="imagenet",
        stem_width=settings["embedding_size"],
        num_channels=settings.get("num_channels", 3),
        norm="batch",
        norm_epsilon=1e-5,
    )


def _write(model: ConvNetConfig, ids: Mapping[str, int]) -> dict[str, Any]:
    return dict(
        model_type="resnet",
        **ids,
        num_channels=model.num_channels,
        embedding_size=model.stem_width,
        hidden_sizes=list(model.widths),
        depths=list(model.depths),
        layer_type=model.block,
        hidden_act="relu",
        downsample_in_first_stage=False,
        downsample_in_bottleneck=False,
    )


def _misfit(model: ConvNetConfig) -> str:
    return differences(model, dict(connection="residual", stem="imagenet", norm="batch", norm_epsilon=1e-5))


def _backbone(model: ConvNetConfig, settings: Settings) -> Sequence[Rule]:
    del settings
    stem = "resnet.embedder.embedder"
    rules = _convolution(stem, "backbone/stem", 7, model.num_channels, model.stem_width)
    inputs = model.stem_width
    for stage, (width, depth) in enumerate(zip(model.widths, model.depths, strict=True)):
        for block in range(depth):
            theirs = f"resnet.encoder.stages.{stage}.layers.{block}"
            ours = f"backbone/stage{stage + 1}_block{block + 1}"
            if inputs != width or stage and not block:
                rules += _convolution(f"{theirs}.shortcut", f"{ours}/shortcut", 1, inputs, width)
            narrow = width // 4
            shapes = [(3, inputs, width), (3, width, width)]
            if model.block == "bottleneck":
                shapes = [(1, inputs, narrow), (3, narrow, narrow), (1, narrow, width)]
            for number, shape in enumerate(shapes):
                rules += _convolution(f"{theirs}.layer.{number}", f"{ours}/conv{number + 1}", *shape)
            inputs = width
    return rules


def _convolution(theirs: str, ours: str, size: int, inputs: int, outputs: int) -> list[Rule]:
    return [
        *convolution(f"{theirs}.convolution", f"{ours}/convolution", size, inputs, outputs),
        *batch_norm(f"{theirs}.normalization", f"{ours}/norm", outputs),
    ]


def _read_head(task: str, settings: Settings) -> dict[str, Any]:
    if task == "classification":
        return dict(name="classification", num_classes=len(class_names(settings)), pooling="mean")
    return dict(name="embedding", pooling="mean")


def _head_misfit(task: str, head: Head) -> str:
    wanted = {
        "classification": dict(name="classification", pooling="mean", pooler=False, bias=True),
        "features": dict(name="embedding", pooling="mean", pooler=False, normalize=False),
    }
    return head_differences(head, wanted[task])


def _head(task: str, model: ConvNetConfig, head: Head) -> Sequence[Rule]:
    if task == "classification":
        return linear("classifier.1", "head/classifier", (model.width,), (head["num_classes"],))
    return []


resnet = Family(
    model_type="resnet",
    prefix="resnet.",
    tasks={"features": "ResNetModel", "classification": "ResNetForImageClassification"},
    read=_read,
    write=_write,
    misfit=_misfit,
    backbone=_backbone,
    read_head=_read_head,
    head_misfit=_head_misfit,
    head=_head,
    config=ConvNetConfig,
)
