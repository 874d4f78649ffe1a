"""GPT-2 in the layout of Hugging Face transformers (`GPT2Model` and its heads)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.interop.family import (
    TASKS,
    Family,
    Head,
    Settings,
    activation,
    class_names,
    differences,
    head_differences,
    need,
)
from research.interop.rules import Rule, linear, norm, same, vocabulary
from research.models.transformer import TransformerConfig

_OURS = "backbone/layers/"
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"}


def _read(settings: Settings) -> dict[str, Any]:
    need(settings, "scale_attn_weights", True)
    need(settings, "scale_attn_by_inverse_layer_idx", False)
    need(settings, "add_cross_attention", False)
    return dict(
        name="gpt2",
        vocab_size=settings["vocab_size"],
        length=settings["n_positions"],
        causal=True,
        width=settings["n_embd"],
        depth=settings["n_layer"],
        num_heads=settings["n_head"],
        mlp_dim=settings.get("n_inner") or 4 * settings["n_embd"],
        norm_epsilon=settings.get("layer_norm_epsilon", 1e-5),
        activation=activation(settings, "activation_function", _ACTIVATIONS),
        dropout=settings.get("resid_pdrop", 0.1),
    )


def _write(model: TransformerConfig, ids: Mapping[str, int]) -> dict[str, Any]:
    written = {value: key for key, value in reversed(_ACTIVATIONS.items())}
    return dict(
        model_type="gpt2",
        **ids,
        vocab_size=model.vocab_size,
        n_positions=model.length,
        n_embd=model.width,
        n_layer=model.depth,
        n_head=model.num_heads,
        n_inner=model.inner_dim,
        layer_norm_epsilon=model.norm_epsilon,
        activation_function=written[model.activation],
        resid_pdrop=model.dropout,
        embd_pdrop=model.dropout,
        attn_pdrop=0.0,
    )


def _misfit(model: TransformerConfig) -> str:
    wanted = dict(
        causal=True,
        norm="layer",
        norm_position="pre",
        embed_norm=False,
        position="learned",
        activation=tuple(_ACTIVATIONS.values()),
        qk_norm=False,
        bias=True,
        qkv_bias=True,
        kv_heads=model.num_heads,
        num_token_types=0,
    )
    return differences(model, wanted)


def _backbone(model: TransformerConfig, settings: Settings) -> Sequence[Rule]:
    del settings
    width, heads, dim = model.width, (model.num_heads, model.head_dim), model.inner_dim
    joined = tuple(f"{_OURS}attention/{name}" for name in ("query", "key", "value"))
    return [
        vocabulary("transformer.wte.weight", "backbone/embed/embedding", model.vocab_size, width),
        same("transformer.wpe.weight", "backbone/positions/embedding", model.length, width),
        *norm("transformer.h.{i}.ln_1", f"{_OURS}norm1", width),
        Rule(  # one matrix [in, out] for query, key and value
            "transformer.h.{i}.attn.c_attn.weight",
            tuple(f"{name}/kernel" for name in joined),
            (width, 3 * width),
            lambda array: [part.reshape(width, *heads) for part in np.split(array, 3, axis=1)],
            lambda *parts: np.concatenate([part.reshape(width, width) for part in parts], axis=1),
        ),
        Rule(
            "transformer.h.{i}.attn.c_attn.bias",
            tuple(f"{name}/bias" for name in joined),
            (3 * width,),
            lambda array: [part.reshape(heads) for part in np.split(array, 3)],
            lambda *parts: np.concatenate([part.reshape(width) for part in parts]),
        ),
        *linear("transformer.h.{i}.attn.c_proj", f"{_OURS}attention/out", heads, (width,), transposed=False),
        *norm("transformer.h.{i}.ln_2", f"{_OURS}norm2", width),
        *linear("transformer.h.{i}.mlp.c_fc", f"{_OURS}mlp/up", (width,), (dim,), transposed=False),
        *linear("transformer.h.{i}.mlp.c_proj", f"{_OURS}mlp/down", (dim,), (width,), transposed=False),
        *norm("transformer.ln_f", "backbone/final_norm", width),
    ]


def read_head(task: str, settings: Settings) -> dict[str, Any]:
    """The heads of GPT-2 and Llama."""
    kind = TASKS[task].head
    if kind == "language":
        return dict(name="language", tied=settings.get("tie_word_embeddings", True))
    if kind == "classification":
        return dict(name="classification", num_classes=len(class_names(settings)), pooling="last", bias=False)
    if kind == "spans":
        return dict(name="spans")
    return dict(name="embedding", pooling="last")


def head_misfit(task: str, head: Head) -> str:
    kind = TASKS[task].head
    wanted = {
        "language": dict(transform=False, bias=False),
        "classification": dict(pooling="last", pooler=False, bias=False),
        "embedding": dict(pooler=False),
    }
    return head_differences(head, {"name": kind, **wanted.get(kind, {})})


def head(task: str, model: TransformerConfig, block: Head) -> Sequence[Rule]:
    kind = TASKS[task].head
    if kind == "classification":
        return linear("score", "head/classifier", (model.width,), (block["num_classes"],), bias=False)
    if kind == "spans":
        return linear("qa_outputs", "head/outputs", (model.width,), (2,))
    if kind == "language" and not block["tied"]:
        return [vocabulary("lm_head.weight", "head/output/embedding", model.vocab_size, model.width)]
    return []


gpt2 = Family(
    model_type="gpt2",
    prefix="transformer.",
    tasks={
        "features": "GPT2Model",
        "causal_lm": "GPT2LMHeadModel",
        "classification": "GPT2ForSequenceClassification",
        "multi_label": "GPT2ForSequenceClassification",
        "regression": "GPT2ForSequenceClassification",
        "question_answering": "GPT2ForQuestionAnswering",
    },
    read=_read,
    write=_write,
    misfit=_misfit,
    backbone=_backbone,
    read_head=read_head,
    head_misfit=head_misfit,
    head=head,
    # Masks kept as buffers; the head of a tied model is the token table again.
    unused=(r"\.attn\.bias$", r"\.attn\.masked_bias$", r"^lm_head\.weight$"),
)
