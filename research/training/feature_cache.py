"""Feature caching (GradCache, Gao et al. 2021, arXiv:2101.06983): microbatches of examples that are compared."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from research.types import Batch, CoupledObjective, Keys, Loss, Objective, Variables


def check_accumulation(objective: Objective, variables: Any, accumulate: int) -> None:
    """Raises ValueError where microbatches would change what is learnt: batch statistics, or examples that are compared
    in another way than by cached features."""
    if accumulate == 1:
        return
    if "batch_stats" in variables:
        raise ValueError(
            f"accumulate={accumulate} would take batch norm's statistics from microbatches; use accumulate=1, or a "
            "model without it, such as one with model.norm=group"
        )
    if objective.couples_examples and not isinstance(objective, CoupledObjective):
        raise ValueError(
            f"accumulate={accumulate} would change this objective: its examples meet each other; use accumulate=1"
        )


def cached_gradients(
    objective: CoupledObjective,
    variables: Variables,
    batch: Batch,
    *,
    parts: int,
    rng: Keys,
    step: jax.Array,
) -> tuple[Any, jax.Array, Loss]:
    """Gradients of the whole batch's loss by the parameters, the loss, and its terms; memory of one microbatch.

    The loss is compare(encode(batch)). Three passes: the features of every microbatch, without a gradient; the
    comparison of all of them, differentiated by features and parameters; every microbatch again, whose features are
    pulled back with their part of that gradient. Equal to the whole batch where no dropout is drawn, which belongs to
    the microbatch.
    """
    rest = {name: value for name, value in variables.items() if name != "params"}
    cut = jax.tree.map(lambda leaf: interleave(leaf, parts), batch)
    indices = jnp.arange(parts)

    def encode(params: Any, microbatch: Batch, index: jax.Array) -> Any:
        keys = Keys(noise=rng.noise, dropout=jax.random.fold_in(rng.dropout, index))
        return objective.encode({"params": params, **rest}, microbatch, rng=keys, step=step, train=True)

    def compare(params: Any, features: Any) -> tuple[jax.Array, Loss]:
        loss = objective.compare({"params": params, **rest}, features, batch, step=step, train=True)
        return loss.value(), loss

    params = variables["params"]
    _, cached = jax.lax.scan(lambda _, item: (None, encode(params, item[1], item[0])), None, (indices, cut))
    features = jax.tree.map(_join, cached)
    (value, loss), (grads, pulls) = jax.value_and_grad(compare, argnums=(0, 1), has_aux=True)(params, features)

    def add(grads: Any, item: tuple[jax.Array, Batch, Any]) -> tuple[Any, None]:
        index, microbatch, pull = item
        _, pull_back = jax.vjp(lambda params: encode(params, microbatch, index), params)
        return jax.tree.map(jnp.add, grads, pull_back(pull)[0]), None

    pulls = jax.tree.map(lambda leaf: interleave(leaf, parts), pulls)
    grads, _ = jax.lax.scan(add, grads, (indices, cut, pulls))
    return grads, value, loss


def interleave(leaf: jax.Array, parts: int) -> jax.Array:
    """[B …] to [parts, B / parts, …], microbatch i holding every parts-th example from the i-th on."""
    return jnp.swapaxes(leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]), 0, 1)


def _join(leaf: jax.Array) -> jax.Array:
    """What `interleave` cut, whole again."""
    return jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])
