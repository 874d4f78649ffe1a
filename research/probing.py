"""The linear probe as a way to finetune: the backbone stays as it is, and the head is solved for, in closed form."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from research.evaluation.probes import ridge_probe
from research.training.log import Log
from research.training.state import TrainState

if TYPE_CHECKING:
    from research.run import Run


def check_probe(head: dict[str, Any], objective: str) -> None:
    """Raises ValueError where the head is no linear map of the mean vector to classes."""
    if objective != "classification":
        raise ValueError(f"tuning.linear_probe solves for a classifier's head, and the objective is {objective}")
    if head["pooling"] != "mean" or head["pooler"] or not head["bias"]:
        raise ValueError("tuning.linear_probe wants a plain head; use head.pooling=mean without pooler, with bias")


def solve(run: Run, state: TrainState, log: Log) -> TrainState:
    """The state with the head that ridge regression gives."""
    splits = run.experiment.dataset.splits
    read = jax.jit(lambda variables, batch: {"vectors": run.objective.features(variables, batch).pooled})
    parts: list[np.ndarray] = []
    for split in ("train", "val"):
        vectors = run.evaluator.over(splits[split].examples, lambda batch: read(state.variables, batch))["vectors"]
        parts += [vectors, np.asarray(splits[split].labels)]
    probe = ridge_probe(*parts, num_classes=run.experiment.dataset.spec.num_classes)
    log.say(f"linear probe: penalty {probe.penalty:g}, scale {probe.scale:.3g}, val accuracy {probe.accuracy:.4f}")
    params = dict(state.variables["params"])
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params["head"]["classifier"])
    solved = {"kernel": jnp.asarray(probe.kernel), "bias": jnp.asarray(probe.bias)}
    solved = jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), solved, dict(params["head"]["classifier"]))
    params["head"] = {**params["head"], "classifier": jax.device_put(solved, dict(shardings))}
    ema = None if state.ema is None else params
    return dataclasses.replace(state, variables={**state.variables, "params": params}, ema=ema)
