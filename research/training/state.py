"""Everything that a step changes, and how it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from research.training.optimizer import state_shardings
from research.training.sharding import Layout, parameter_shardings, unboxed
from research.types import Batch, Objective, Params, Variables


@struct.dataclass
class TrainState:
    """`variables` are {"params", "frozen", **model_state}; `ema` is None or an average of params.

    `first_bad_step` is -1 until a loss or gradient is not finite; from then on nothing is updated.
    """

    step: jax.Array
    variables: Variables
    opt_state: Any
    ema: Any
    first_bad_step: jax.Array


def weights(state: TrainState) -> Params:
    """The parameters to evaluate, publish and finetune: the average where there is one."""
    return state.variables["params"] if state.ema is None else state.ema


def to_evaluate(state: TrainState) -> Variables:
    """The variables with the parameters that are evaluated: the average where there is one."""
    return {**state.variables, "params": weights(state)}


def separate(state: Any) -> tuple[Any, dict[str, Any]]:
    """The checkpoint's two items: the parameters to evaluate, and the rest (the trained ones where they differ)."""
    rest = {name: value for name, value in state.variables.items() if name != "params"}
    items = {"step": state.step, "opt_state": state.opt_state, "first_bad_step": state.first_bad_step}
    if rest:
        items["variables"] = rest
    if state.ema is not None:
        items["trained"] = state.variables["params"]
    return weights(state), items


def join(params: Any, rest: Mapping[str, Any]) -> TrainState:
    """The state that `separate` took apart."""
    trained = rest.get("trained")
    return TrainState(
        step=rest["step"],
        variables={"params": params if trained is None else trained, **rest.get("variables", {})},
        opt_state=rest["opt_state"],
        ema=None if trained is None else params,
        first_bad_step=rest["first_bad_step"],
    )


def abstract_params(objective: Objective, batch: Batch) -> Any:
    """Shapes, types and logical axis names of the parameters; nothing is computed, and `batch` may be shapes alone."""
    return _boxed(objective, batch)["params"]


def abstract_state(
    objective: Objective, transform: optax.GradientTransformation, batch: Batch, layout: Layout, *, ema: bool
) -> TrainState:
    """The state's shapes and types, with shardings; optimizer state and average lie as the parameters do."""
    whole = layout.replicated()
    boxed = _boxed(objective, batch)
    abstract = unboxed(boxed)
    placed = parameter_shardings(boxed, layout)
    opt_state = jax.eval_shape(transform.init, abstract["params"])
    variables = jax.tree.map(_place, abstract, placed)
    scalar = _place(jax.ShapeDtypeStruct((), jnp.int32), whole)
    return TrainState(
        step=scalar,
        variables=variables,
        opt_state=jax.tree.map(
            _place, opt_state, state_shardings(opt_state, abstract["params"], placed["params"], whole)
        ),
        ema=variables["params"] if ema else None,
        first_bad_step=scalar,
    )


def shardings_of(abstract: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def _boxed(objective: Objective, batch: Batch) -> Any:
    return jax.eval_shape(lambda batch: objective.init(jax.random.key(0), batch), batch)


def _place(leaf: Any, sharding: Any) -> Any:
    """The shape and type of a leaf, in the place of the array."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def init_state(
    objective: Objective,
    transform: optax.GradientTransformation,
    batch: Batch,
    *,
    seed: int,
    shardings: TrainState,
    given: Mapping[str, Params] | None = None,
) -> TrainState:
    """A fresh state, made where it will lie. `given` variables ("params", "frozen") replace the drawn ones of the same
    name; a teacher starts as the model that it follows.

    Given ones enter as arguments between two jitted inits: in a closure they would be baked into the program.
    """
    draw = jax.jit(lambda rng, batch: unboxed(objective.init(rng, batch)), out_shardings=shardings.variables)
    variables = dict(draw(jax.random.key(seed), batch))
    given = dict(given or {})
    if "teacher" in variables:
        given["teacher"] = jax.tree.map(jnp.copy, dict(given))  # no buffer is given up twice
    for kind, tree in given.items():
        variables[kind] = replace(variables[kind], tree, shardings.variables[kind])
    opt_state = jax.jit(transform.init, out_shardings=shardings.opt_state)(variables["params"])
    ema = jax.tree.map(jnp.copy, variables["params"]) if shardings.ema is not None else None
    scalars = jax.device_put((jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32)), shardings.step)
    return TrainState(scalars[0], variables, opt_state, ema, scalars[1])


def replace(params: Params, given: Params, shardings: Any) -> Params:
    """`params` with every leaf of `given` in the place of its namesake.

    Raises:
      ValueError: a given leaf has no namesake, or another shape; all such leaves are listed.
    """
    merged, faults = _merge(params, given, shardings, ())
    if faults:
        raise ValueError("the given weights do not fit the model: " + "; ".join(faults))
    return merged


def _merge(params: Any, given: Any, shardings: Any, path: tuple[str, ...]) -> tuple[Any, list[str]]:
    if not isinstance(given, Mapping):
        if isinstance(params, Mapping) or params.shape != given.shape:
            wanted = "a subtree" if isinstance(params, Mapping) else params.shape
            return params, [f"{'/'.join(path)} is {given.shape}, wanted {wanted}"]
        return jax.device_put(given.astype(params.dtype), shardings), []
    merged, faults = dict(params), []
    for name, value in given.items():
        if name not in params:
            faults.append(f"{'/'.join((*path, name))} is unknown to the model")
            continue
        merged[name], more = _merge(params[name], value, shardings[name], (*path, name))
        faults.extend(more)
    return merged, faults
