"""Projection heads against plain float64 numpy, to 1e-5; what their norms leave out and keep."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models.projection_heads import ProjectionHead
from tests.models.plain import drawn_variables, slope_error, wide
from tests.small import difference

HEADS = {
    "simclr": dict(output_norm=True),
    "simclr v2": dict(depth=3, output_norm=True, normalize=False),
    "moco v2": dict(norm=False),
    "linear": dict(depth=1),
}
POOLED = jnp.asarray(np.random.default_rng(0).normal(size=(7, 3)), jnp.float32)
WHERE = jnp.array([True] * 5 + [False] * 2)


def plain_head(params, head, pooled):
    values = pooled
    for layer in range(1, head.depth + 1):
        linear, norm = params[f"linear{layer}"], params.get(f"norm{layer}")
        values = values @ linear["kernel"] + linear.get("bias", 0.0)
        if norm is not None:
            mean, variance = values[:5].mean(0), values[:5].var(0)
            values = (values - mean) / np.sqrt(variance + 1e-5) * norm["scale"] + norm["bias"]
        if layer < head.depth:
            values = np.maximum(values, 0.0)
    return values / np.linalg.norm(values, axis=1, keepdims=True) if head.normalize else values


@pytest.mark.parametrize("name", HEADS)
def test_a_head_and_its_gradient_equal_the_plain_one(name):
    head = ProjectionHead(embed_dim=5, hidden=11, **HEADS[name])
    variables = drawn_variables(head, POOLED, train=False)
    params, state = variables["params"], {key: tree for key, tree in variables.items() if key != "params"}
    weight = np.random.default_rng(3).normal(size=(7, 5)) * np.asarray(WHERE)[:, None]

    def along(params):
        found, _ = head.apply({"params": params, **state}, POOLED, where=WHERE, train=True, mutable=["batch_stats"])
        return jnp.sum(found * weight.astype(np.float32)), found

    gradient, found = jax.jit(jax.grad(along, has_aux=True))(params)
    assert (found.shape, found.dtype) == ((7, 5), jnp.float32)
    assert difference(plain_head(wide(params), head, wide(POOLED)), found) < 1e-5
    assert slope_error(gradient, lambda p: float((weight * plain_head(p, head, wide(POOLED))).sum()), params) < 1e-5
    normed = {f"norm{layer}" for layer in range(1, head.depth + 1) if f"norm{layer}" in params}
    assert len(normed) == (head.depth - 1) * head.norm + head.output_norm
    for layer in range(1, head.depth + 1):
        assert ("bias" in params[f"linear{layer}"]) == (f"norm{layer}" not in normed)


def test_running_statistics_are_kept_in_training_and_used_in_evaluation():
    head = ProjectionHead(embed_dim=5, hidden=11, normalize=False)
    variables = drawn_variables(head, POOLED, train=False)
    _, changed = head.apply(variables, POOLED, where=WHERE, train=True, mutable=["batch_stats"])
    values = wide(POOLED)[:5] @ wide(variables["params"]["linear1"]["kernel"])
    before, after = variables["batch_stats"]["norm1"], changed["batch_stats"]["norm1"]
    assert difference(0.9 * wide(before["mean"]) + 0.1 * values.mean(0), after["mean"]) < 1e-5
    assert difference(0.9 * wide(before["var"]) + 0.1 * values.var(0), after["var"]) < 1e-5
    found, alone = (head.apply(variables, rows, train=False) for rows in (POOLED, POOLED[:1]))
    assert difference(found[:1], alone) < 1e-6


def test_a_head_computes_in_the_type_it_is_told_and_refuses_to_be_none():
    head = ProjectionHead(embed_dim=5, hidden=11, dtype="bfloat16", param_dtype="bfloat16")
    found, variables = jax.eval_shape(lambda: head.init_with_output(jax.random.key(0), POOLED, train=False))
    assert (found.shape, found.dtype) == ((7, 5), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(nn.meta.unbox(variables["params"]))} == {jnp.dtype("bfloat16")}
    with pytest.raises(ValueError, match="depth=0"):
        ProjectionHead(depth=0)
