"""One optimizer step: exact means over the whole batch, however it is cut into microbatches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from research.metrics import Mean
from research.training.feature_cache import cached_gradients, interleave
from research.training.state import TrainState
from research.types import Batch, CoupledObjective, FollowedObjective, Keys, Loss, Metrics, Objective

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    objective: Objective,
    transform: optax.GradientTransformation,
    *,
    seed: int,
    accumulate: int = 1,
    ema_decay: float = 0.0,
) -> TrainStep:
    """The pure step; the caller jits it with shardings and donation.

    With `accumulate` = n the batch is cut into n microbatches (every n-th example, so that each stays spread over the
    devices). The weights of all terms are summed first; they do not depend on parameters, so the compiler drops the
    model from that pass. Then Σ coefficient · total / weight is differentiated, one microbatch at a time. Features of
    examples that are compared with each other are cached (`feature_cache.py`).
    """

    def gradients(state: TrainState, batch: Batch) -> tuple[Any, jax.Array, Metrics, Any]:
        noise, dropout = step_keys(seed, state.step)
        rest = {name: value for name, value in state.variables.items() if name != "params"}

        def losses(params: Any, microbatch: Batch, index: Any) -> Loss:
            rng = Keys(noise=noise, dropout=jax.random.fold_in(dropout, index))
            return objective.loss({"params": params, **rest}, microbatch, rng=rng, step=state.step, train=True)

        def scalar(params: Any, microbatch: Batch, index: Any, totals: Any) -> tuple[jax.Array, Loss]:
            loss = losses(params, microbatch, index)
            return loss.value(totals), loss

        params = state.variables["params"]
        differentiate = jax.value_and_grad(scalar, has_aux=True)
        if accumulate == 1:
            (value, loss), grads = differentiate(params, batch, 0, None)
            return grads, value, _metrics(loss), loss.model_state
        if isinstance(objective, CoupledObjective):
            rng = Keys(noise=noise, dropout=dropout)
            grads, value, loss = cached_gradients(
                objective, state.variables, batch, parts=accumulate, rng=rng, step=state.step
            )
            return grads, value, _metrics(loss), loss.model_state

        cut = jax.tree.map(lambda leaf: interleave(leaf, accumulate), batch)
        indices = jnp.arange(accumulate)

        def weigh(_: None, item: tuple[Any, Batch]) -> tuple[None, Any]:
            loss = losses(params, item[1], item[0])
            return None, {name: mean.weight for name, (_, mean) in loss.terms.items()}

        _, stacked = jax.lax.scan(weigh, None, (indices, cut))
        totals = jax.tree.map(jnp.sum, stacked)

        def add(carry: tuple[Any, jax.Array], item: tuple[Any, Batch]) -> tuple[tuple[Any, jax.Array], Metrics]:
            (value, loss), grads = differentiate(params, item[1], item[0], totals)
            return (jax.tree.map(jnp.add, carry[0], grads), carry[1] + value), _metrics(loss)

        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
        (grads, value), stacked = jax.lax.scan(add, (zeros, jnp.zeros((), jnp.float32)), (indices, cut))
        return grads, value, jax.tree.map(jnp.sum, stacked), {}

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        grads, value, metrics, model_state = gradients(state, batch)
        norm = optax.tree.norm(grads)
        bad = ~(jnp.isfinite(value) & jnp.isfinite(norm))
        first_bad = jnp.where((state.first_bad_step < 0) & bad, state.step, state.first_bad_step)
        healthy = first_bad < 0

        params = state.variables["params"]
        updates, opt_state = transform.update(grads, state.opt_state, params)
        updated = optax.apply_updates(params, updates)
        ema = state.ema
        if ema is not None:
            ema = jax.tree.map(lambda old, new: ema_decay * old + (1.0 - ema_decay) * new, ema, updated)

        def keep(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda fresh, before: jnp.where(healthy, fresh, before), new, old)

        changed = {**model_state, "params": updated}
        if isinstance(objective, FollowedObjective):
            changed |= objective.after_update({**state.variables, **changed}, step=state.step)
        variables = {**state.variables, **keep(changed, {name: state.variables[name] for name in changed})}
        metrics |= {"grad_norm": Mean(norm, jnp.ones((), jnp.float32))}
        new_state = TrainState(
            step=state.step + 1,
            variables=variables,
            opt_state=keep(opt_state, state.opt_state),
            ema=keep(ema, state.ema),
            first_bad_step=first_bad,
        )
        return new_state, metrics

    return train_step


def make_eval_step(objective: Objective, *, seed: int) -> Callable[[Any, Batch], Metrics]:
    """Means over one batch, noise keyed by (seed, example id)."""

    def eval_step(variables: Any, batch: Batch) -> Metrics:
        noise = jax.random.key(seed)
        rng = Keys(noise=noise, dropout=noise)
        loss = objective.loss(variables, batch, rng=rng, step=jnp.zeros((), jnp.int32), train=False)
        return _metrics(loss)

    return eval_step


def step_keys(seed: int, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The step's keys for per-example noise and for dropout; no running key."""
    noise = jax.random.fold_in(jax.random.key(seed), step)
    # Dropout draws many bits, of which rbg is the faster source; but each device would draw those of the whole batch,
    # where of threefry's it draws its own. On any mesh of several devices they are the same.
    several = jax.sharding.get_abstract_mesh().size > 1
    dropout = jax.random.fold_in(jax.random.key(seed + 1, impl="threefry2x32" if several else "rbg"), step)
    return noise, dropout


def _metrics(loss: Loss) -> Metrics:
    return {**{name: mean for name, (_, mean) in loss.terms.items()}, **loss.metrics}
