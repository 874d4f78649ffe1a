"""One transformer: stem, trunk scanned over layers, its parts chosen by config; `bert` to `modern` are presets."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from research.models.layers import ACTIVATIONS, Dropout, Embedding, Norm, Projection, padded_vocabulary
from research.ops.attention import Packed, attention, packed_attention
from research.ops.attention_mask import attention_mask
from research.ops.rotary import rotary, sinusoidal
from research.types import Cache

# What a block keeps for its backward pass: nothing but its input, the results of its matrix products, or those of them
# that cost most to compute again for their size: the mixed values and the MLP's first product.
_REMAT = {
    "full": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "names": jax.checkpoint_policies.save_only_these_names("mixed", "inner"),
}


@dataclass(frozen=True)
class TransformerConfig:
    """What a transformer is; `module()` makes it. `length` is the number of positions that it has."""

    vocab_size: int
    length: int
    causal: bool = False
    width: int = 128
    depth: int = 4
    num_heads: int = 4
    num_kv_heads: int = 0  # 0: as many as num_heads
    mlp_dim: int = 0  # 0: 4 · width, for swiglu 8/3 · width up to a multiple of 64
    norm: Literal["layer", "rms"] = "layer"
    norm_position: Literal["pre", "post"] = "pre"
    norm_epsilon: float = 1e-6
    embed_norm: bool = False
    position: Literal["learned", "sinusoidal", "rotary", "none"] = "learned"
    num_token_types: int = 0  # BERT's, for the two texts of a pair
    rotary_base: float = 10_000.0
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "squared_relu", "swiglu"] = "gelu"
    qk_norm: bool = False
    bias: bool = True
    qkv_bias: bool = True  # false: none for query, key and value, whatever `bias` is
    dropout: float = 0.0
    remat: Literal["none", "full", "dots", "names"] = "none"
    unroll: int = 1  # layers per scan iteration: more is faster on CPU and slower to compile
    dtype: str = "float32"
    param_dtype: str = "float32"
    matmul_dtype: str = ""  # what factors of matrix products are rounded to, with float32 sums; "": dtype

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"model.width={self.width} does not divide into num_heads={self.num_heads} heads")
        if self.num_heads % self.kv_heads:
            raise ValueError(f"model.num_heads={self.num_heads} is no multiple of num_kv_heads={self.num_kv_heads}")
        if self.position == "rotary" and self.head_dim % 2:
            raise ValueError(f"rotary positions turn pairs: width / num_heads = {self.head_dim} must be even")

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def inner_dim(self) -> int:
        if self.mlp_dim:
            return self.mlp_dim
        return -(-8 * self.width // (3 * 64)) * 64 if self.activation == "swiglu" else 4 * self.width

    @property
    def residual_stddev(self) -> float:
        """GPT-2's scaling of what is added to the residual stream (Radford et al. 2019, section 2.3)."""
        return 0.02 * (2 * self.depth) ** -0.5 if self.norm_position == "pre" else 0.02

    def module(self) -> Transformer:
        return Transformer(self)

    def num_flops(self, length: int) -> float:
        """Floating-point operations a token, forward and backward: 6 · matrix parameters + 12 · depth · width · length.

        PaLM (Chowdhery et al. 2022, appendix B); causal attention is not halved; the head is counted by the hall.
        """
        matrices = 3 if self.activation == "swiglu" else 2
        attention_size = 2 * self.width * (self.width + self.kv_heads * self.head_dim)
        per_layer = attention_size + matrices * self.width * self.inner_dim
        return 6.0 * self.depth * per_layer + 12.0 * self.depth * self.width * length


class Transformer(nn.Module):
    """Tokens to one vector a position: `[B L]` ids to `[B L D]`."""

    config: TransformerConfig

    def setup(self) -> None:
        config = self.config
        types: dict[str, Any] = dict(dtype=config.dtype, param_dtype=config.param_dtype)
        self.embed = Embedding(padded_vocabulary(config.vocab_size), config.width, **types)
        if config.position == "learned":
            self.positions = Embedding(config.length, config.width, axes=(None, "embed"), **types)
        if config.num_token_types:
            self.token_types = Embedding(config.num_token_types, config.width, axes=(None, "embed"), **types)
        if config.embed_norm:
            self.stem_norm = Norm(config.norm, config.norm_epsilon, config.bias, **types)
        self.stem_dropout = Dropout(config.dropout)
        self.layers = stack(config)
        if config.norm_position == "pre":
            self.final_norm = Norm(config.norm, config.norm_epsilon, config.bias, **types)

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        *,
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"],
        token_types: Int[Array, "B L"] | None = None,
        train: bool = False,
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B L D"], Cache | None]:
        """Vectors after the last norm, and the cache with this call's keys and values added."""
        config = self.config
        hidden = self._stem(tokens, positions, token_types, train)
        if cache is None:
            hidden, _ = self.layers(hidden, None, positions, Packed(positions, segment_ids), None, train)
            state = None
        else:
            start = cache["index"]
            seen = {
                "positions": _write(cache["positions"], positions, start),
                "segments": _write(cache["segments"], segment_ids, start),
            }
            mask = attention_mask(positions, seen["positions"], segment_ids, seen["segments"], causal=config.causal)
            hidden, layers = self.layers(hidden, cache["layers"], positions, mask, start, train)
            state = {"layers": layers, "index": start + tokens.shape[1], **seen}
        if config.norm_position == "pre":
            hidden = self.final_norm(hidden)
        return hidden, state

    def initial_cache(self, batch_size: int, length: int) -> Cache:
        """An empty cache for `length` tokens: keys and values of every layer, and what is known of each slot."""
        config = self.config
        shape = (config.depth, batch_size, length, config.kv_heads, config.head_dim)
        empty = jnp.zeros((batch_size, length), jnp.int32)
        layers = {"key": jnp.zeros(shape, config.dtype), "value": jnp.zeros(shape, config.dtype)}
        return {"layers": layers, "index": jnp.zeros((), jnp.int32), "positions": empty, "segments": empty}

    def table(self) -> Float[Array, "V D"]:
        """The token embeddings, for tied heads."""
        return self.embed.table()

    def _stem(self, tokens: Array, positions: Array, token_types: Array | None, train: bool) -> Array:
        config = self.config
        hidden = self.embed(tokens)
        if config.position == "learned":
            hidden = hidden + self.positions(positions)
        elif config.position == "sinusoidal":
            hidden = hidden + sinusoidal(positions, config.width).astype(hidden.dtype)
        if config.num_token_types:  # all of type 0 where none are given
            given = jnp.zeros_like(tokens) if token_types is None else token_types
            hidden = hidden + self.token_types(jnp.minimum(given, config.num_token_types - 1))
        if config.embed_norm:
            hidden = self.stem_norm(hidden)
        return self.stem_dropout(hidden, train=train)


def stack(config: TransformerConfig) -> Any:
    """The blocks, scanned over layers; called as one block, with a layer axis first in the cache."""
    block: Any = TransformerBlock
    if config.remat != "none":
        block = nn.remat(block, prevent_cse=False, policy=_REMAT[config.remat], static_argnums=(6,))
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=cast(Any, (0, *[nn.broadcast] * 4)),  # flax has no type for it but its default's
        length=config.depth,
        unroll=min(config.unroll, config.depth),
        metadata_params={nn.PARTITION_NAME: "layers"},
    )(config)


class TransformerBlock(nn.Module):
    """Attention and MLP, each with a residual connection; the norm stands before (pre) or after (post) each."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        hidden: Array,
        cache: Cache | None,
        positions: Array,
        mask: Array | Packed,
        start: Array | None,
        train: bool,
    ) -> tuple[Array, Cache | None]:
        config = self.config
        types: dict[str, Any] = dict(dtype=config.dtype, param_dtype=config.param_dtype)
        norms = [Norm(config.norm, config.norm_epsilon, config.bias, name=f"norm{i}", **types) for i in (1, 2)]
        attend = Attention(config, name="attention")
        mlp = MLP(config, name="mlp")
        drop = Dropout(config.dropout)
        if config.norm_position == "pre":
            mixed, cache = attend(norms[0](hidden), cache, positions, mask, start)
            hidden = hidden + drop(mixed, train=train)
            hidden = hidden + drop(mlp(norms[1](hidden)), train=train)
        else:
            mixed, cache = attend(hidden, cache, positions, mask, start)
            hidden = norms[0](hidden + drop(mixed, train=train))
            hidden = norms[1](hidden + drop(mlp(hidden), train=train))
        hidden = with_logical_constraint(hidden, ("batch", "length", "hidden"))
        return hidden, cache


class Attention(nn.Module):
    """Multi-head attention with grouped key-value heads, optional QK-norm (Henry et al. 2020) and rotary positions."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self, hidden: Array, cache: Cache | None, positions: Array, mask: Array | Packed, start: Array | None
    ) -> tuple[Array, Cache | None]:
        config = self.config
        size, kv_heads = config.head_dim, config.kv_heads
        types: dict[str, Any] = dict(dtype=config.dtype, param_dtype=config.param_dtype)
        matrix: dict[str, Any] = types | dict(matmul_dtype=config.matmul_dtype)

        def heads(name: str, count: int) -> Array:
            shape, axes = (config.width, count, size), ("embed", "heads", "head_dim")
            bias = config.bias and config.qkv_bias
            return Projection("bld,dhk->blhk", shape, axes, bias=bias, stddev=0.02, name=name, **matrix)(hidden)

        query, key, value = heads("query", config.num_heads), heads("key", kv_heads), heads("value", kv_heads)
        if config.qk_norm:
            norm = functools.partial(Norm, "rms", config.norm_epsilon, False, axis=None, **types)
            query, key = norm(name="query_norm")(query), norm(name="key_norm")(key)
        if config.position == "rotary":
            query = rotary(query, positions, base=config.rotary_base)
            key = rotary(key, positions, base=config.rotary_base)
        if cache is not None:
            assert start is not None
            key, value = _write(cache["key"], key, start), _write(cache["value"], value, start)
            cache = {"key": key, "value": value}
        if isinstance(mask, Packed):
            mixed = packed_attention(query, key, value, mask, causal=config.causal)
        else:
            mixed = attention(query, key, value, mask)
        mixed = checkpoint_name(mixed, "mixed")
        shape, axes = (config.num_heads, size, config.width), ("heads", "head_dim", "embed")
        out = Projection("blhk,hkd->bld", shape, axes, 2, config.bias, config.residual_stddev, name="out", **matrix)
        return out(mixed), cache


class MLP(nn.Module):
    """Two matrices with an activation between, or three with a gate (SwiGLU)."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, hidden: Array) -> Array:
        config = self.config
        dim = config.inner_dim
        options: dict[str, Any] = dict(bias=config.bias, dtype=config.dtype, param_dtype=config.param_dtype)
        options, activation = options | dict(matmul_dtype=config.matmul_dtype), ACTIVATIONS[config.activation]
        shape, axes = (config.width, dim), ("embed", "mlp")
        inner = Projection("bld,df->blf", shape, axes, stddev=0.02, name="up", **options)(hidden)
        inner = checkpoint_name(inner, "inner")
        if config.activation == "swiglu":
            gate = Projection("bld,df->blf", shape, axes, stddev=0.02, name="gate", **options)(hidden)
            inner = inner * activation(gate)
        else:
            inner = activation(inner)
        shape, axes = (dim, config.width), ("mlp", "embed")
        return Projection("blf,fd->bld", shape, axes, stddev=config.residual_stddev, name="down", **options)(inner)


def _write(buffer: Array, values: Array, start: Array) -> Array:
    indices = (0, start) + (0,) * (buffer.ndim - 2)
    return jax.lax.dynamic_update_slice(buffer, values.astype(buffer.dtype), indices)
