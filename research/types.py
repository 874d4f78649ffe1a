"""The nouns that rooms share: trees of arrays, keys, the objective's protocol, and the axis letters.

Axis letters: B batch, L length, M memory length, D width, H heads, K head size, F mlp, V vocabulary, N masked slots,
C classes, E size of an embedding; of images Y rows, X columns, C channels, P patch size, K patches that are kept,
Q values of a patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

from research.metrics import Mean

Params = Mapping[str, Any]
Variables = Mapping[str, Any]  # {"params": trained, "frozen": given, **model_state}
ModelState = Mapping[str, Any]  # what changes otherwise: "batch_stats", "teacher", "queue"
Batch = Mapping[str, jax.Array]
Metrics = dict[str, Mean]
Cache = dict[str, Any]  # what a model remembers between calls of generation


@struct.dataclass
class Keys:
    """Random keys of one loss: `noise` is folded with each example's id, `dropout` belongs to the microbatch."""

    noise: jax.Array
    dropout: jax.Array


@struct.dataclass
class Loss:
    """The scalar that is minimised is the sum over `terms` of coefficient · total / weight."""

    terms: dict[str, tuple[float, Mean]]
    metrics: Metrics
    model_state: Mapping[str, Any] = struct.field(default_factory=dict)

    def value(self, weights: Mapping[str, jax.Array] | None = None) -> jax.Array:
        """That scalar; by `weights` of the terms where these are of more than this batch."""
        value = jnp.zeros((), jnp.float32)
        for name, (coefficient, mean) in self.terms.items():
            weight = mean.weight if weights is None else weights[name]
            value += coefficient * mean.total / jnp.maximum(jax.lax.stop_gradient(weight), 1e-9)
        return value


@struct.dataclass
class Features:
    """What a model knows of its input: one vector per example, and one per position with the mask of real ones."""

    pooled: jax.Array  # [B D]
    sequence: jax.Array  # [B L D]
    mask: jax.Array  # bool [B L]


@runtime_checkable
class Objective(Protocol):
    """What to learn: how to start, and how wrong we are. Holds no parameters."""

    @property
    def couples_examples(self) -> bool: ...  # an example's loss depends on others in its batch

    def init(self, rng: jax.Array, batch: Batch) -> Variables: ...

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss: ...

    def features(self, variables: Variables, batch: Batch) -> Features: ...


@runtime_checkable
class CoupledObjective(Objective, Protocol):
    """One that compares examples with each other: its loss is compare(encode(batch)), so that features can be cached.

    What `encode` gives are float arrays with the batch axis first, of each example by itself.
    """

    def encode(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Any: ...

    def compare(self, variables: Variables, features: Any, batch: Batch, *, step: jax.Array, train: bool) -> Loss: ...


@runtime_checkable
class FollowedObjective(Objective, Protocol):
    """One whose model state follows the parameters: a teacher that is their average.

    A "teacher" is {"params", "batch_stats" where there are any}, and starts as the model does. `after_update` is called
    once an optimizer step, with the new parameters and the model state that the loss gave, and returns what it changes.
    """

    def after_update(self, variables: Variables, *, step: jax.Array) -> ModelState: ...
