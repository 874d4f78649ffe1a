"""What tests of models compare with plain float64 numpy: drawn variables, and slopes of a plain function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def drawn_variables(module: nn.Module, *inputs: Any, **options: Any) -> Any:
    """Variables drawn wide enough that every part matters; scales and variances lie around 1."""
    shapes = nn.meta.unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **options)))
    draw = np.random.default_rng(1)

    def make(path: Any, leaf: Any) -> jax.Array:
        values = 0.3 * draw.normal(size=leaf.shape)
        name = path[-1].key
        if name == "scale":
            values += 1.0
        elif name == "var":
            values = np.exp(values)
        return jnp.asarray(values, jnp.float32)

    return jax.tree.map_with_path(make, shapes)


def wide(tree: Any) -> Any:
    """In float64."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def slope_error(gradient: Any, plain: Callable[[Any], float], values: Any) -> float:
    """Largest difference between a gradient and the slopes of `plain` (float64) along three directions through
    `values`, relative to the gradient's size."""
    draw, values, gradient = np.random.default_rng(2), wide(values), wide(gradient)
    errors, step = [], 1e-6
    for _ in range(3):
        direction = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape), values)
        ahead, behind = (plain(jax.tree.map(lambda v, d, s=s: v + s * d, values, direction)) for s in (step, -step))
        products = jax.tree.map(lambda g, d: float((g * d).sum()), gradient, direction)
        errors.append(abs((ahead - behind) / (2 * step) - sum(jax.tree.leaves(products))))
    return max(errors) / np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient)))
