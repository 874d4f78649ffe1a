"""Which layer a bad number comes from: the batch is run again, eagerly, and every layer's output is looked at."""

from __future__ import annotations

from collections import Counter
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.core import Tracer

from research.training.state import TrainState
from research.training.step import step_keys
from research.types import Batch, Keys, Objective


def first_bad_layer(objective: Objective, state: TrainState, batch: Batch, *, seed: int) -> str:
    """A phrase that names the first module whose output is not finite, or says that only the gradient is bad.

    The state is the one that the bad step started from: nothing is updated from that step on.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.variables["params"]):
        if not bool(jnp.all(jnp.isfinite(leaf))):
            return f"the parameter {jax.tree_util.keystr(path)} was not finite before the step"
    found: list[str] = []
    calls: Counter[str] = Counter()

    def watch(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        outputs = run(*args, **kwargs)
        path = "/".join(context.module.path) or type(context.module).__name__
        leaves = [leaf for leaf in jax.tree.leaves(outputs) if isinstance(leaf, jax.Array)]
        leaves = [leaf for leaf in leaves if not isinstance(leaf, Tracer)]
        leaves = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        if leaves:
            calls[path] += 1
            if not found and not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves):
                found.append(f"the output of {path} (call {calls[path]})")
        return outputs

    noise, dropout = step_keys(seed, state.first_bad_step)
    with jax.disable_jit(), nn.intercept_methods(watch):
        rng = Keys(noise=noise, dropout=jax.random.fold_in(dropout, 0))
        loss = objective.loss(state.variables, batch, rng=rng, step=state.first_bad_step, train=True)
    if found:
        return f"{found[0]} was not finite"
    if not all(bool(jnp.isfinite(mean.total)) for _, mean in loss.terms.values()):
        return "every layer was finite, the loss was not"
    return "the loss was finite, its gradient was not"
