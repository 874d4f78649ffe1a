"""MoCo v2 (Chen et al. 2020, arXiv:2003.04297): a view finds the other view's key among those of the batches before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.build import Block
from research.objectives.inputs import (
    AUGMENTATIONS,
    Inputs,
    check_augmentation,
    init_inputs,
    input_features,
    read_inputs,
    run_inputs,
    two_views,
)
from research.objectives.text import mean_over, real_examples
from research.ops.product import product
from research.ops.unit_length import unit_length
from research.types import Batch, Features, Keys, Loss, ModelState, Variables

Sides = dict[str, Float[Array, "B E"]]


@dataclass(frozen=True)
class MoCo:
    """InfoNCE in nats (He et al. 2020, algorithm 1) of unit vectors behind a projection head.

    The model encodes one view as a query, the `teacher` the other as its key, without a gradient; other keys are those
    of the `queue_size` images before, which start as random directions. After every step the batch's keys take the
    place of the oldest ones, and the teacher goes 1 - `momentum` of the way to the model. It is kept in float32: in
    bfloat16 so small a step would be rounded away. The accuracy is the share of queries that are nearest to their own
    key.

    The paper shuffles images over devices before they are encoded as keys (section 3.3), because its batch norm sees
    one device's images and gives away which key is among them. Ours sees the whole batch on any number of devices, for
    queries and keys alike, so that there is no smaller group to be known by, and nothing is shuffled.
    """

    model: nn.Module
    temperature: float = 0.2
    momentum: float = 0.999
    queue_size: int = 65536
    augmentation: Annotated[Mapping[str, Any], Block("augmentation", AUGMENTATIONS)] = field(
        default_factory=lambda: {"name": "moco_v2"}
    )

    couples_examples = True  # the queue takes a whole batch: microbatches are compared at once
    causal = False
    head = "projection"
    target = ("image", "audio")
    num_views = 4 / 3  # keys go forward only, a third of the work

    def __post_init__(self) -> None:
        if self.temperature <= 0.0:
            raise ValueError(f"objective.temperature={self.temperature}: wanted a number above 0, such as 0.2")
        if not 0.0 <= self.momentum <= 1.0:
            raise ValueError(f"objective.momentum={self.momentum}: wanted a share from 0 to 1, such as 0.999")
        check_augmentation(self.augmentation)

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        size = batch["example_id"].shape[0]
        if self.queue_size < size or self.queue_size % size:
            raise ValueError(
                f"objective.queue_size={self.queue_size} does not hold whole batches of batch_size={size}; use a "
                f"multiple of {size}, such as {max(self.queue_size // size, 1) * size}"
            )
        jax.eval_shape(self.views, batch, rng)  # which refuses images that the augmentation is not for
        inputs = read_inputs(self.model, batch)
        made = init_inputs(self.model, rng, inputs, lambda model, hidden, mask: model.project(hidden, mask))
        keys = jax.eval_shape(lambda: self._vectors(nn.meta.unbox(made), inputs, batch, train=False)[0])
        drawn = jax.random.normal(jax.random.fold_in(rng, 1), (self.queue_size, keys.shape[1]))
        teacher = jax.tree.map(_in_float32, dict(made))
        return {
            **made,
            "teacher": teacher,
            "queue": {"vectors": unit_length(drawn), "cursor": jnp.zeros((), jnp.int32)},
        }

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        sides, state = self._encode(variables, batch, rng=rng, train=train)
        found = self.compare(variables, sides, batch, step=step, train=train)
        return replace(found, model_state={**found.model_state, **state})

    def encode(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Sides:
        """The unit vectors of the queries and of their keys."""
        return self._encode(variables, batch, rng=rng, train=train)[0]

    def compare(self, variables: Variables, features: Sides, batch: Batch, *, step: jax.Array, train: bool) -> Loss:
        """The loss of a whole batch, of which `features` are what `encode` gives; in training the queue after it."""
        queries, keys = features["query"], jax.lax.stop_gradient(features["key"])
        queue, where = variables["queue"], real_examples(batch)
        own = jnp.sum(queries * keys, axis=1)
        others = product("be,ke->bk", queries, queue["vectors"], dtype=jnp.float32)
        logits = jnp.concatenate([own[:, None], others], axis=1) / self.temperature
        losses = jnp.where(where, jax.nn.logsumexp(logits, axis=1) - logits[:, 0], 0.0)
        terms = {"loss": (1.0, mean_over(losses, where))}
        metrics = {"accuracy": mean_over((own > jnp.max(others, axis=1)) & where, where)}
        if not train:
            return Loss(terms=terms, metrics=metrics)
        assert "example_mask" not in batch  # only evaluation has rows that must not enter the queue
        return Loss(terms=terms, metrics=metrics, model_state={"queue": enqueue(queue, keys)})

    def after_update(self, variables: Variables, *, step: jax.Array) -> ModelState:
        """The teacher, which follows the parameters; its batch statistics are those of its own images."""
        teacher = variables["teacher"]

        def follow(old: Array, new: Array) -> Array:
            return self.momentum * old + (1.0 - self.momentum) * new.astype(jnp.float32)

        return {"teacher": {**teacher, "params": jax.tree.map(follow, teacher["params"], variables["params"])}}

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Per-example results for evaluation: the vectors [B D] before the projection, of images as they are."""
        return {"vectors": self.features(variables, batch).pooled}

    def features(self, variables: Variables, batch: Batch) -> Features:
        return input_features(self.model, variables, read_inputs(self.model, batch))

    def views(self, batch: Batch, noise: jax.Array) -> Inputs:
        """Both views of each example [2 B …], drawn by its id."""
        return two_views(self.model, batch, self.augmentation, noise)

    def _encode(self, variables: Variables, batch: Batch, *, rng: Keys, train: bool) -> tuple[Sides, dict[str, Any]]:
        views = self.views(batch, rng.noise)
        first, second = (jax.tree.map(lambda leaf, index=index: leaf[index], views) for index in range(2))
        dropouts = [jax.random.fold_in(rng.dropout, index) for index in range(2)]
        queries, state = self._vectors(variables, first, batch, train=train, dropout=dropouts[0])
        teacher = variables["teacher"]
        keys, changed = self._vectors(teacher, second, batch, train=train, dropout=dropouts[1])
        if changed:
            state = {**state, "teacher": {**teacher, **changed}}
        return {"query": queries, "key": jax.lax.stop_gradient(keys)}, state

    def _vectors(
        self,
        variables: Variables,
        inputs: Inputs,
        batch: Batch,
        *,
        train: bool,
        dropout: jax.Array | None = None,
    ) -> tuple[Float[Array, "B E"], dict[str, Any]]:
        """Unit vectors, and the batch statistics that they changed."""
        where = real_examples(batch)

        def project(model: Any, hidden: Array, mask: Array) -> Array:
            return model.project(hidden, mask, where=where, train=train)

        found, state = run_inputs(self.model, variables, inputs, project, where=where, train=train, dropout=dropout)
        return unit_length(found), state


def enqueue(queue: Mapping[str, Array], keys: Float[Array, "B E"]) -> dict[str, Array]:
    """The queue with `keys` in the place of the oldest; whole batches fit, so that none is cut at the end."""
    size, cursor = queue["vectors"].shape[0], queue["cursor"]
    vectors = jax.lax.dynamic_update_slice(queue["vectors"], keys, (cursor, jnp.zeros_like(cursor)))
    return {"vectors": vectors, "cursor": (cursor + keys.shape[0]) % size}


def _in_float32(leaf: Array) -> Array:
    """The same values: without a word the compiler would leave the rounding to a narrower type out on the way."""
    known = jnp.finfo(leaf.dtype)
    return jax.lax.reduce_precision(leaf.astype(jnp.float32), int(known.nexp), int(known.nmant))
