"""Gradient transformations that know stacked parameters: every leaf under "layers" is one array per layer, not one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from research.ops.orthogonalise import orthogonalise


def names(path: Any) -> tuple[str, ...]:
    """The keys of a tree path, as plain strings."""
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def is_stacked(path: Any) -> bool:
    """True where the leaf has a leading layer axis."""
    return "layers" in names(path)


class MuonState(NamedTuple):
    momentum: Any


def scale_by_muon(
    *, momentum: float, nesterov: bool, num_iterations: int, rms: float, matmul_dtype: str = ""
) -> optax.GradientTransformation:
    """Momentum, orthogonalised per layer (Jordan et al. 2024), scaled so that each update has the given RMS.

    The scale is rms · sqrt(max(inputs, outputs)) (Liu et al. 2025, section 2.2): at 0.2 it matches AdamW's, so that
    rates and weight decay carry over. Every leaf must be a stacked kernel. `matmul_dtype` is that of `orthogonalise`.
    """

    def init(params: Any) -> MuonState:
        return MuonState(jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MuonState]:
        del params
        averages = jax.tree.map(lambda old, new: momentum * old + (1.0 - momentum) * new, state.momentum, updates)
        looked_at = averages
        if nesterov:
            looked_at = jax.tree.map(lambda old, new: momentum * old + (1.0 - momentum) * new, averages, updates)

        def step(path: Any, leaf: Array) -> Array:
            matrices = leaf.reshape(matrix_shape(path, leaf.shape))
            scale = rms * math.sqrt(max(matrices.shape[1:]))
            updates = orthogonalise(matrices, num_iterations=num_iterations, matmul_dtype=matmul_dtype)
            return (scale * updates).reshape(leaf.shape)

        return jax.tree_util.tree_map_with_path(step, looked_at), MuonState(averages)

    return optax.GradientTransformation(init, update)


def matrix_shape(path: Any, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """[layers, inputs, outputs] of a stacked kernel: "out" contracts all axes but the last, others the first."""
    num_inputs = len(shape) - 2 if "out" in names(path)[-2:-1] else 1
    return shape[0], math.prod(shape[1 : 1 + num_inputs]), math.prod(shape[1 + num_inputs :])


def scale_by_trust_ratio() -> optax.GradientTransformation:
    """|parameter| / |update| as a factor (You et al. 2020, LAMB, algorithm 2), 1 where either norm is 0."""

    def scale(update: Array, param: Array) -> Array:
        update_norm, param_norm = (jnp.sqrt(jnp.sum(jnp.square(array))) for array in (update, param))
        known = (update_norm > 0.0) & (param_norm > 0.0)
        return update * jnp.where(known, param_norm / jnp.where(known, update_norm, 1.0), 1.0)

    return _stateless(scale)


def clip_by_rms(threshold: float) -> optax.GradientTransformation:
    """Updates with an RMS above `threshold` are scaled down to it (Shazeer and Stern 2018, section 6)."""
    return _stateless(lambda update, param: update / jnp.maximum(1.0, _rms(update) / threshold))


def scale_by_parameter_rms(minimum: float = 1e-3) -> optax.GradientTransformation:
    """Updates relative to the parameters' RMS (Shazeer and Stern 2018, section 8)."""
    return _stateless(lambda update, param: update * jnp.maximum(_rms(param), minimum))


def scale_by_factored_rms(*, decay_rate: float, min_dim_size_to_factor: int) -> optax.GradientTransformation:
    """optax's factored second moment (Adafactor), for each layer by itself: the layer axis is never factored."""
    inner = optax.scale_by_factored_rms(decay_rate=decay_rate, min_dim_size_to_factor=min_dim_size_to_factor)

    def gather(treedef: Any, count: Any, states: list[Any]) -> optax.FactoredState:
        moments = ([getattr(state, name) for state in states] for name in ("v_row", "v_col", "v"))
        return optax.FactoredState(count, *(jax.tree.unflatten(treedef, leaves) for leaves in moments))

    def init(params: Any) -> optax.FactoredState:
        leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
        states = [(jax.vmap(inner.init) if is_stacked(path) else inner.init)(leaf) for path, leaf in leaves]
        return gather(treedef, jnp.zeros((), jnp.int32), states)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, optax.FactoredState]:
        def one(grad: Array, moments: tuple[Array, ...], param: Array) -> tuple[Any, Any]:
            return inner.update(grad, optax.FactoredState(state.count, *moments), param)

        leaves, treedef = jax.tree_util.tree_flatten_with_path(updates)
        moments = zip(*(treedef.flatten_up_to(tree) for tree in (state.v_row, state.v_col, state.v)), strict=True)
        scaled, states = [], []
        for (path, grad), old, param in zip(leaves, moments, treedef.flatten_up_to(params), strict=True):
            update, new = (jax.vmap(one) if is_stacked(path) else one)(grad, old, param)
            scaled.append(update)
            states.append(new)
        return jax.tree.unflatten(treedef, scaled), gather(treedef, state.count + 1, states)

    return optax.GradientTransformation(init, update)


def in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` on float32 copies: moments of bfloat16 parameters would be bfloat16, and too coarse to add to."""

    def cast(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return inner.update(cast(updates), state, cast(params))

    return optax.GradientTransformation(lambda params: inner.init(cast(params)), update)


def select(multipliers: Any) -> optax.GradientTransformation:
    """Gradients, but 0 where the multiplier is 0: what is frozen has no part in the global norm."""

    def pick(grad: Array, multiplier: Any) -> Array:
        return jnp.where(jnp.equal(multiplier, 0.0), jnp.zeros((), grad.dtype), grad)

    return optax.stateless(lambda grads, params: jax.tree.map(pick, grads, multipliers))


def multiply(multipliers: Any) -> optax.GradientTransformation:
    """Updates times multipliers; where these are 0, parameters keep every bit."""

    def scale(update: Array, multiplier: Any) -> Array:
        # Negative zero is what leaves any number as it is: -0.0 + 0.0 is 0.0.
        return jnp.where(jnp.equal(multiplier, 0.0), -0.0, update * multiplier)

    return optax.stateless(lambda updates, params: jax.tree.map(scale, updates, multipliers))


def _stateless(function: Callable[[Array, Array], Array]) -> optax.GradientTransformation:
    """`function(update, parameter)` on every leaf, and on every layer of a stacked one."""

    def one(path: Any, update: Array, param: Array) -> Array:
        return (jax.vmap(function) if is_stacked(path) else function)(update, param)

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(one, updates, params))


def _rms(array: Array) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(array)))
