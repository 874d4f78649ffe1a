"""Recurrent language models (LSTM, GRU) under the transformer's interface; state resets where a document begins."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.models.layers import Dropout, Embedding, Norm, Projection, named, padded_vocabulary
from research.types import Cache

_GATES = {"lstm": 4, "gru": 3}


@dataclass(frozen=True)
class RecurrentConfig:
    """What a recurrent model is: stacked pre-norm layers with residual connections; `module()` makes it.

    When not `causal`, each layer reads both ways and the two are added.
    """

    vocab_size: int
    length: int = 0  # any length will do; taken so that pages can exchange models
    causal: bool = True
    cell: Literal["lstm", "gru"] = "lstm"
    width: int = 256
    depth: int = 2
    dropout: float = 0.0
    unroll: int = 8  # time steps per scan iteration
    dtype: str = "float32"
    param_dtype: str = "float32"
    matmul_dtype: str = ""  # what factors of matrix products are rounded to, with float32 sums; "": dtype

    def module(self) -> Recurrent:
        return Recurrent(self)

    def num_flops(self, length: int) -> float:
        """Floating-point operations a token, forward and backward: 6 · matrix parameters; the head is not counted."""
        del length
        directions = 1 if self.causal else 2
        return 6.0 * self.depth * directions * 2 * _GATES[self.cell] * self.width**2


class Recurrent(nn.Module):
    """Tokens to one vector a position: `[B L]` ids to `[B L D]`."""

    config: RecurrentConfig

    def setup(self) -> None:
        config = self.config
        types: dict[str, Any] = dict(dtype=config.dtype, param_dtype=config.param_dtype)
        self.embed = Embedding(padded_vocabulary(config.vocab_size), config.width, **types)
        self.stem_dropout = Dropout(config.dropout)
        self.layers = nn.scan(
            RecurrentLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=cast(Any, (0, nn.broadcast, nn.broadcast)),  # flax has no type for it but its default's
            length=config.depth,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(config)
        self.final_norm = Norm("layer", **types)

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
        """Vectors after the last norm, and the state after the last token. A position of 0 starts from a zero state."""
        del token_types  # the special token between the two texts of a pair tells them apart
        hidden = self.stem_dropout(self.embed(tokens), train=train)
        borders = jnp.concatenate([jnp.ones_like(segment_ids[:, :1]), jnp.diff(segment_ids, axis=1)], axis=1) != 0
        given = self.initial_cache(tokens.shape[0], 0) if cache is None else cache
        if cache is not None:  # a continued row: only a new document resets
            previous = jnp.concatenate([cache["segment"][:, None], segment_ids[:, :-1]], axis=1)
            borders = segment_ids != previous
        hidden, layers = self.layers(hidden, given["layers"], borders, train)
        state = None if cache is None else {"layers": layers, "segment": segment_ids[:, -1]}
        return self.final_norm(hidden), state

    def initial_cache(self, batch_size: int, length: int) -> Cache:
        """A zero state of every layer; its size does not depend on `length`."""
        del length
        config = self.config
        shape = (config.depth, batch_size, config.width)
        layers = {"hidden": jnp.zeros(shape, config.dtype), "cell": jnp.zeros(shape, jnp.float32)}
        return {"layers": layers, "segment": jnp.zeros((batch_size,), jnp.int32)}

    def table(self) -> Float[Array, "V D"]:
        """The token embeddings, for tied heads."""
        return self.embed.table()


class RecurrentLayer(nn.Module):
    """Norm, recurrence over time, dropout, residual."""

    config: RecurrentConfig

    @nn.compact
    def __call__(self, hidden: Array, cache: Cache, borders: Array, train: bool) -> tuple[Array, Cache]:
        config = self.config
        types: dict[str, Any] = dict(dtype=config.dtype, param_dtype=config.param_dtype)
        normed = Norm("layer", name="norm", **types)(hidden)
        outputs, state = Recurrence(config, name="forward")(normed, cache, borders)
        if not config.causal:
            # Reversed in time, a segment begins where it ends.
            ends = jnp.concatenate([borders[:, 1:], jnp.ones_like(borders[:, :1])], axis=1)
            zeros = jax.tree.map(jnp.zeros_like, cache)
            back, _ = Recurrence(config, name="backward")(normed[:, ::-1], zeros, ends[:, ::-1])
            outputs = outputs + back[:, ::-1]
        return hidden + Dropout(config.dropout)(outputs, train=train), state


class Recurrence(nn.Module):
    """LSTM (Hochreiter & Schmidhuber 1997, forget gate biased by 1) or GRU (Cho et al. 2014, reset after product)."""

    config: RecurrentConfig

    @nn.compact
    def __call__(self, inputs: Float[Array, "B L D"], cache: Cache, borders: Array) -> tuple[Array, Cache]:
        config = self.config
        width, gates = config.width, _GATES[config.cell]
        types: dict[str, Any] = dict(dtype=config.dtype, param_dtype=config.param_dtype)
        types |= dict(matmul_dtype=config.matmul_dtype)
        shape, axes = (width, gates, width), ("embed", None, "mlp")
        drives = Projection("bld,dgf->blgf", shape, axes, bias=True, name="input", **types)(inputs)
        init = named(nn.initializers.normal(width**-0.5), axes)
        kernel = self.param("kernel", init, shape, config.param_dtype).astype(config.dtype)
        step = functools.partial(_lstm if config.cell == "lstm" else _gru, kernel)

        def advance(state: Cache, now: tuple[Array, Array]) -> tuple[Cache, Array]:
            drive, border = now
            kept = jax.tree.map(lambda leaf: jnp.where(border[:, None], jnp.zeros_like(leaf), leaf), state)
            state = step(kept, drive)
            return state, state["hidden"]

        over_time = (jnp.moveaxis(drives, 1, 0), jnp.moveaxis(borders, 1, 0))
        state, outputs = jax.lax.scan(advance, dict(cache), over_time, unroll=min(config.unroll, inputs.shape[1]))
        return jnp.moveaxis(outputs, 0, 1), state


def _lstm(kernel: Array, state: Cache, drive: Float[Array, "B G D"]) -> Cache:
    gates = (drive + jnp.einsum("bd,dgf->bgf", state["hidden"], kernel)).astype(jnp.float32)
    inward, forget, outward, candidate = (gates[:, i] for i in range(4))
    cell = jax.nn.sigmoid(forget + 1.0) * state["cell"] + jax.nn.sigmoid(inward) * jnp.tanh(candidate)
    hidden = jax.nn.sigmoid(outward) * jnp.tanh(cell)
    return {"hidden": hidden.astype(state["hidden"].dtype), "cell": cell}


def _gru(kernel: Array, state: Cache, drive: Float[Array, "B G D"]) -> Cache:
    recurrent = jnp.einsum("bd,dgf->bgf", state["hidden"], kernel).astype(jnp.float32)
    drive = drive.astype(jnp.float32)
    reset = jax.nn.sigmoid(drive[:, 0] + recurrent[:, 0])
    update = jax.nn.sigmoid(drive[:, 1] + recurrent[:, 1])
    candidate = jnp.tanh(drive[:, 2] + reset * recurrent[:, 2])
    hidden = update * state["hidden"].astype(jnp.float32) + (1.0 - update) * candidate
    return {"hidden": hidden.astype(state["hidden"].dtype), "cell": state["cell"]}


lstm = functools.partial(RecurrentConfig, cell="lstm")
gru = functools.partial(RecurrentConfig, cell="gru")
