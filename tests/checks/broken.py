"""Five broken trainings, each of a kind that has been shipped somewhere: what `verify` must tell from a sound one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from research import run
from research.data import stream
from research.metrics import Mean
from research.models import transformer
from research.models.layers import Norm
from research.objectives import OBJECTIVES
from research.objectives.masked_lm import MaskedLM
from research.ops import attention
from research.training import state


def leaking_mask(patch: Any) -> None:
    """Attention that looks into every document of its row."""
    sound = attention.attention_mask

    def leaking(
        query_positions: Any, key_positions: Any, query_segments: Any, key_segments: Any, **options: Any
    ) -> Any:
        one = (jnp.minimum(segments, 1) for segments in (query_segments, key_segments))
        return sound(query_positions, key_positions, *one, **options)

    patch.setattr(attention, "attention_mask", leaking)


def mean_of_means(patch: Any) -> None:
    """A loss that is divided before it is added up: microbatches of few tokens weigh as much as those of many."""
    patch.setitem(OBJECTIVES, "masked_lm", Divided)


@dataclass(frozen=True)
class Divided(MaskedLM):
    def loss(self, *arguments: Any, **options: Any) -> Any:
        found = super().loss(*arguments, **options)
        mean = found.terms["loss"][1]
        value = mean.total / jnp.maximum(mean.weight, 1.0)
        return dataclasses.replace(found, terms={"loss": (1.0, Mean(value, jnp.ones(())))})


def norm_over_the_batch(patch: Any) -> None:
    """A wrong axis: RMS over the rows of the batch in place of the features."""
    patch.setattr(transformer, "Norm", OverBatch)


class OverBatch(Norm):
    @nn.compact
    def __call__(self, inputs: Any) -> Any:
        scale = self.param("scale", nn.initializers.ones_init(), (inputs.shape[-1],), jnp.float32)
        values = inputs.astype(jnp.float32)
        values = values * jax.lax.rsqrt(jnp.mean(jnp.square(values), axis=0, keepdims=True) + self.epsilon)
        return (values * scale.reshape((1,) * (inputs.ndim - 1) + scale.shape)).astype(self.dtype)


def sum_over_a_part(patch: Any) -> None:
    """A wrong axis: rows are counted over the mesh's `data`, and they lie over `fsdp` too."""
    patch.setitem(OBJECTIVES, "masked_lm", CountedOverData)


@dataclass(frozen=True)
class CountedOverData(MaskedLM):
    def loss(self, variables: Any, batch: Any, **options: Any) -> Any:
        found = super().loss(variables, batch, **options)
        mean = found.terms["loss"][1]
        rows = batch["example_id"]
        total = mean.total * rows.shape[0] / _count_rows(rows)
        return dataclasses.replace(found, terms={"loss": (1.0, Mean(total, mean.weight))})


def _count_rows(rows: Any) -> Any:
    if jax.sharding.get_abstract_mesh().empty:
        return float(rows.shape[0])
    count = jax.shard_map(
        lambda part: jax.lax.psum(jnp.sum(jnp.ones_like(part, jnp.float32)), "data"),
        in_specs=PartitionSpec(("replica", "data", "fsdp")),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    return count(rows)


def unsaved_step(patch: Any) -> None:
    """A restart that takes everything from the checkpoint but the step, and with it its place in the data."""
    sound = run.join

    def forgetful(*items: Any) -> Any:
        joined = sound(*items)
        return dataclasses.replace(joined, step=jnp.zeros_like(joined.step))

    patch.setattr(run, "join", forgetful)


def unsaved_position(patch: Any) -> None:
    """A stream that begins anew, wherever the run goes on."""
    sound = stream.TrainStream.batches
    patch.setattr(stream.TrainStream, "batches", lambda self, *, start=0, **options: sound(self, **options))


def replicated_moments(patch: Any) -> None:
    """An optimizer state that lies whole on every device."""
    patch.setattr(
        state,
        "state_shardings",
        lambda opt_state, params, shardings, default: jax.tree.map(lambda leaf: default, opt_state),
    )
