"""BERT and RoBERTa in the layout of Hugging Face transformers (`BertModel`, `RobertaModel` and their heads)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
from research.interop.rules import Rule, linear, norm, offset_table, same, vocabulary
from research.models.transformer import TransformerConfig

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}


def _offset(settings: Settings) -> int:
    """The first row of the position table that is used: RoBERTa counts on from its padding token's id."""
    return settings.get("pad_token_id", 1) + 1 if settings["model_type"] == "roberta" else 0


def _read(settings: Settings) -> dict[str, Any]:
    need(settings, "position_embedding_type", "absolute")
    need(settings, "is_decoder", False)
    need(settings, "add_cross_attention", False)
    return dict(
        name=settings["model_type"],
        vocab_size=settings["vocab_size"],
        length=settings["max_position_embeddings"] - _offset(settings),
        width=settings["hidden_size"],
        depth=settings["num_hidden_layers"],
        num_heads=settings["num_attention_heads"],
        mlp_dim=settings["intermediate_size"],
        norm_epsilon=settings.get("layer_norm_eps", 1e-12),
        activation=activation(settings, "hidden_act", _ACTIVATIONS),
        dropout=settings.get("hidden_dropout_prob", 0.1),
        num_token_types=settings.get("type_vocab_size", 2),
    )


def _write(name: str, model: TransformerConfig, ids: Mapping[str, int]) -> dict[str, Any]:
    written = {value: key for key, value in reversed(_ACTIVATIONS.items())}
    settings = dict(model_type=name, **ids)
    return settings | dict(
        vocab_size=model.vocab_size,
        max_position_embeddings=model.length + _offset(settings),
        hidden_size=model.width,
        num_hidden_layers=model.depth,
        num_attention_heads=model.num_heads,
        intermediate_size=model.inner_dim,
        layer_norm_eps=model.norm_epsilon,
        hidden_act=written[model.activation],
        hidden_dropout_prob=model.dropout,
        attention_probs_dropout_prob=0.0,
        type_vocab_size=model.num_token_types,
    )


def _misfit(model: TransformerConfig) -> str:
    wanted = dict(
        causal=False,
        norm="layer",
        norm_position="post",
        embed_norm=True,
        position="learned",
        activation=tuple(_ACTIVATIONS.values()),
        qk_norm=False,
        bias=True,
        qkv_bias=True,
        kv_heads=model.num_heads,
    )
    if not model.num_token_types:
        return "num_token_types=0, wanted 1 (RoBERTa) or 2 (BERT)"
    return differences(model, wanted)


def _backbone(prefix: str, model: TransformerConfig, settings: Settings) -> Sequence[Rule]:
    width, heads = model.width, (model.num_heads, model.head_dim)
    stem, layer, ours = f"{prefix}embeddings.", f"{prefix}encoder.layer.{{i}}.", "backbone/layers/"
    offset, positions = _offset(settings), "backbone/positions/embedding"
    rules = [
        vocabulary(f"{stem}word_embeddings.weight", "backbone/embed/embedding", model.vocab_size, width),
        offset_table(f"{stem}position_embeddings.weight", positions, model.length, width, offset=offset),
        same(f"{stem}token_type_embeddings.weight", "backbone/token_types/embedding", model.num_token_types, width),
        *norm(f"{stem}LayerNorm", "backbone/stem_norm", width),
    ]
    for name in ("query", "key", "value"):
        rules += linear(f"{layer}attention.self.{name}", f"{ours}attention/{name}", (width,), heads)
    return [
        *rules,
        *linear(f"{layer}attention.output.dense", f"{ours}attention/out", heads, (width,)),
        *norm(f"{layer}attention.output.LayerNorm", f"{ours}norm1", width),
        *linear(f"{layer}intermediate.dense", f"{ours}mlp/up", (width,), (model.inner_dim,)),
        *linear(f"{layer}output.dense", f"{ours}mlp/down", (model.inner_dim,), (width,)),
        *norm(f"{layer}output.LayerNorm", f"{ours}norm2", width),
    ]


def _read_head(task: str, settings: Settings) -> dict[str, Any]:
    kind = TASKS[task].head
    if kind == "language":
        epsilon = settings.get("layer_norm_eps", 1e-12)
        tied = settings.get("tie_word_embeddings", True)
        return dict(name="language", transform=True, bias=True, norm_epsilon=epsilon, tied=tied)
    if kind in ("classification", "tagging"):
        dropout = settings.get("classifier_dropout")
        dropout = settings.get("hidden_dropout_prob", 0.1) if dropout is None else dropout
        classes = len(class_names(settings))
        if kind == "tagging":
            return dict(name="tagging", num_classes=classes, dropout=dropout)
        return dict(name="classification", num_classes=classes, pooling="first", pooler=True, dropout=dropout)
    if kind == "spans":
        return dict(name="spans")
    return dict(name="embedding", pooling="first", pooler=True)


_WANTED = {  # of a head, by its name
    "language": dict(transform=True, bias=True, tied=True),
    "classification": dict(pooling="first", pooler=True, bias=True),
}


def _head_misfit(task: str, head: Head) -> str:
    kind = TASKS[task].head
    return head_differences(head, {"name": kind, **_WANTED.get(kind, {})})


def _bert_head(task: str, model: TransformerConfig, head: Head) -> Sequence[Rule]:
    kind, width = TASKS[task].head, model.width
    if kind == "language":
        return [
            *linear("cls.predictions.transform.dense", "head/transform", (width,), (width,)),
            *norm("cls.predictions.transform.LayerNorm", "head/norm", width),
            vocabulary("cls.predictions.bias", "head/bias", model.vocab_size),
        ]
    if kind in ("tagging", "spans"):
        return _head_of_positions(kind, width, head)
    rules = linear("bert.pooler.dense", "head/pooler", (width,), (width,)) if head["pooler"] else []
    if kind == "classification":
        rules += linear("classifier", "head/classifier", (width,), (head["num_classes"],))
    return rules


def _roberta_head(task: str, model: TransformerConfig, head: Head) -> Sequence[Rule]:
    kind, width = TASKS[task].head, model.width
    if kind == "language":
        return [
            *linear("lm_head.dense", "head/transform", (width,), (width,)),
            *norm("lm_head.layer_norm", "head/norm", width),
            vocabulary("lm_head.bias", "head/bias", model.vocab_size),
        ]
    if kind in ("tagging", "spans"):
        return _head_of_positions(kind, width, head)
    if kind == "classification":
        return [
            *linear("classifier.dense", "head/pooler", (width,), (width,)),
            *linear("classifier.out_proj", "head/classifier", (width,), (head["num_classes"],)),
        ]
    return linear("roberta.pooler.dense", "head/pooler", (width,), (width,)) if head["pooler"] else []


def _head_of_positions(kind: str, width: int, head: Head) -> Sequence[Rule]:
    if kind == "tagging":
        return linear("classifier", "head/classifier", (width,), (head["num_classes"],))
    return linear("qa_outputs", "head/outputs", (width,), (2,))


def _family(
    name: str, camel: str, head: Callable[[str, TransformerConfig, Head], Sequence[Rule]], **more: Any
) -> Family:
    return Family(
        model_type=name,
        prefix=f"{name}.",
        tasks={
            "features": f"{camel}Model",
            "masked_lm": f"{camel}ForMaskedLM",
            "classification": f"{camel}ForSequenceClassification",
            "multi_label": f"{camel}ForSequenceClassification",
            "regression": f"{camel}ForSequenceClassification",
            "tagging": f"{camel}ForTokenClassification",
            "question_answering": f"{camel}ForQuestionAnswering",
        },
        read=_read,
        write=functools.partial(_write, name),
        misfit=_misfit,
        backbone=functools.partial(_backbone, f"{name}."),
        read_head=_read_head,
        head_misfit=_head_misfit,
        head=head,
        **more,
    )


# Files of masked language models may carry a pooler and the next-sentence head; the decoder is the token table again.
_UNUSED = (r"embeddings\.position_ids$", r"pooler\.dense\.")
bert = _family(
    "bert",
    "Bert",
    _bert_head,
    aliases={"BertForPreTraining": "masked_lm"},
    unused=(*_UNUSED, r"^cls\.seq_relationship\.", r"^cls\.predictions\.decoder\."),
    # Google's first files say gamma and beta.
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
)
roberta = _family("roberta", "Roberta", _roberta_head, unused=(*_UNUSED, r"^lm_head\.decoder\."))
