"""Llama in the layout of Hugging Face transformers (`LlamaModel` and its heads)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from research.interop.family import Family, Settings, differences, need
from research.interop.hf_gpt2 import head, head_misfit, read_head
from research.interop.rules import Rule, linear, norm, vocabulary
from research.models.transformer import TransformerConfig

_LAYER = "model.layers.{i}."
_OURS = "backbone/layers/"


def _read(settings: Settings) -> dict[str, Any]:
    need(settings, "hidden_act", "silu")
    need(settings, "attention_bias", False)
    need(settings, "mlp_bias", False)
    width, num_heads = settings["hidden_size"], settings["num_attention_heads"]
    need(settings, "head_dim", width // num_heads, None)
    return dict(
        name="llama",
        vocab_size=settings["vocab_size"],
        length=settings.get("max_position_embeddings", 2048),
        causal=True,
        width=width,
        depth=settings["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=settings.get("num_key_value_heads") or num_heads,
        mlp_dim=settings["intermediate_size"],
        norm_epsilon=settings.get("rms_norm_eps", 1e-6),
        rotary_base=_rotary_base(settings),
    )


def _rotary_base(settings: Settings) -> float:
    """transformers 5 writes `rope_parameters`, earlier ones `rope_theta` and `rope_scaling`."""
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"config.json says rope_type={kind!r}; here it can be 'default'")
    return float(rope.get("rope_theta", settings.get("rope_theta", 10_000.0)))


def _write(model: TransformerConfig, ids: Mapping[str, int]) -> dict[str, Any]:
    return dict(
        model_type="llama",
        **ids,
        vocab_size=model.vocab_size,
        max_position_embeddings=model.length,
        hidden_size=model.width,
        num_hidden_layers=model.depth,
        num_attention_heads=model.num_heads,
        num_key_value_heads=model.kv_heads,
        head_dim=model.head_dim,
        intermediate_size=model.inner_dim,
        rms_norm_eps=model.norm_epsilon,
        rope_theta=model.rotary_base,
        rope_parameters=dict(rope_type="default", rope_theta=model.rotary_base),
        hidden_act="silu",
        attention_bias=False,
        mlp_bias=False,
    )


def _misfit(model: TransformerConfig) -> str:
    wanted = dict(
        causal=True,
        norm="rms",
        norm_position="pre",
        embed_norm=False,
        position="rotary",
        activation="swiglu",
        qk_norm=False,
        bias=False,
        num_token_types=0,
    )
    return differences(model, wanted)


def _backbone(model: TransformerConfig, settings: Settings) -> Sequence[Rule]:
    del settings
    width, dim = (model.width,), (model.inner_dim,)
    heads, kv_heads = (model.num_heads, model.head_dim), (model.kv_heads, model.head_dim)
    attention, mlp = f"{_OURS}attention/", f"{_OURS}mlp/"
    return [
        vocabulary("model.embed_tokens.weight", "backbone/embed/embedding", model.vocab_size, model.width),
        *norm(f"{_LAYER}input_layernorm", f"{_OURS}norm1", model.width, bias=False),
        *linear(f"{_LAYER}self_attn.q_proj", f"{attention}query", width, heads, bias=False),
        *linear(f"{_LAYER}self_attn.k_proj", f"{attention}key", width, kv_heads, bias=False),
        *linear(f"{_LAYER}self_attn.v_proj", f"{attention}value", width, kv_heads, bias=False),
        *linear(f"{_LAYER}self_attn.o_proj", f"{attention}out", heads, width, bias=False),
        *norm(f"{_LAYER}post_attention_layernorm", f"{_OURS}norm2", model.width, bias=False),
        *linear(f"{_LAYER}mlp.gate_proj", f"{mlp}gate", width, dim, bias=False),
        *linear(f"{_LAYER}mlp.up_proj", f"{mlp}up", width, dim, bias=False),
        *linear(f"{_LAYER}mlp.down_proj", f"{mlp}down", dim, width, bias=False),
        *norm("model.norm", "backbone/final_norm", model.width, bias=False),
    ]


llama = Family(
    model_type="llama",
    prefix="model.",
    tasks={  # LlamaForQuestionAnswering is left out: it names its backbone as no other does
        "features": "LlamaModel",
        "causal_lm": "LlamaForCausalLM",
        "classification": "LlamaForSequenceClassification",
        "multi_label": "LlamaForSequenceClassification",
        "regression": "LlamaForSequenceClassification",
    },
    read=_read,
    write=_write,
    misfit=_misfit,
    backbone=_backbone,
    read_head=lambda task, settings: read_head(task, {"tie_word_embeddings": False, **settings}),
    head_misfit=head_misfit,
    head=head,
    unused=(r"rotary_emb\.inv_freq$", r"^lm_head\.weight$"),
)
