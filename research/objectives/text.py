"""What the text objectives share: running a model on a batch, and starting one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.metrics import Mean
from research.ops.cross_entropy import cross_entropy
from research.ops.masking import example_keys
from research.types import Batch, Features, Loss, Variables


def encode(
    model: nn.Module,
    variables: Variables,
    batch: Batch,
    *,
    tokens: Array | None = None,
    train: bool = False,
    dropout: jax.Array | None = None,
) -> Float[Array, "B L D"]:
    """The backbone's vectors; `tokens` stand in for the batch's own (after corruption)."""
    hidden, _ = model.apply(
        {"params": variables["params"]},
        batch["tokens"] if tokens is None else tokens,
        positions=batch["positions"],
        segment_ids=batch["segment_ids"],
        token_types=batch.get("token_types"),
        train=train,
        rngs={"dropout": dropout} if train and dropout is not None else {},
    )
    return hidden


def init(model: nn.Module, rng: jax.Array, batch: Batch, head: Any) -> Variables:
    """Parameters of the backbone and the head; `head(model, hidden)` runs the head once so that it is made too."""

    def both(module: Any, tokens: Array, positions: Array, segment_ids: Array) -> Any:
        hidden, _ = module(tokens, positions=positions, segment_ids=segment_ids)
        return head(module, hidden)

    made = model.init(rng, batch["tokens"], batch["positions"], batch["segment_ids"], method=both)
    return {"params": made["params"]}


def features(model: nn.Module, variables: Variables, batch: Batch) -> Features:
    """The vectors of every position, and their mean over real ones."""
    hidden = encode(model, variables, batch).astype(jnp.float32)
    mask = batch["segment_ids"] > 0
    total = jnp.sum(jnp.where(mask[:, :, None], hidden, 0.0), axis=1)
    return Features(pooled=total / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None], sequence=hidden, mask=mask)


def hide_tokens(batch: Batch, noise: jax.Array, *, rate: float, mask_id: int) -> Batch:
    """The batch with tokens hidden (word dropout, Iyyer et al. 2015, section 3.2): each behind the first, with
    probability `rate`, is the mask token.

    Which, is a function of the example's id and its length alone.
    """
    tokens = batch["tokens"]
    keys = example_keys(noise, batch["example_id"])
    drawn = jax.vmap(lambda key: jax.random.uniform(key, tokens.shape[1:]))(keys) < rate
    hidden = drawn & (batch["segment_ids"] > 0) & (batch["positions"] > 0)
    return {**batch, "tokens": jnp.where(hidden, mask_id, tokens)}


def check_token_dropout(rate: float, mask_id: int) -> None:
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"objective.token_dropout={rate}: wanted a share from 0 to below 1")
    if rate and mask_id < 0:
        raise ValueError("objective.token_dropout hides tokens, and the tokenizer has no mask token; set it to 0")


def labels_loss(
    logits: Array, labels: Array, where: Array, *, label_smoothing: float = 0.0, weights: Sequence[float] = ()
) -> Loss:
    """Mean cross-entropy in nats, and accuracy, of `labels` [*batch] by `logits` [*batch C] where `where` is true.

    With `weights` [C] each counts as much as its class weighs; the mean is over weights, not over examples.
    """
    losses = cross_entropy(logits, labels, where, label_smoothing=label_smoothing)
    correct = (jnp.argmax(logits, axis=-1) == labels) & where
    loss = mean_over(losses, where)
    if weights:
        each = jnp.where(where, jnp.asarray(weights, jnp.float32)[labels], 0.0)
        loss = Mean(jnp.sum(losses * each), jnp.sum(each))
    return Loss(terms={"loss": (1.0, loss)}, metrics={"accuracy": mean_over(correct, where)})


def weigh_classes(
    wanted: Literal["balanced"] | tuple[float, ...], counts: Sequence[int], num_classes: int
) -> tuple[float, ...]:
    """A weight for each class: those that are wanted, or N / (C · n_c), with which all classes weigh the same.

    Raises:
      ValueError: not one positive weight for each class.
    """
    if wanted == "balanced":  # no counts: a trained model, opened to be used
        return tuple(sum(counts) / (num_classes * max(count, 1)) for count in counts)
    if wanted and (len(wanted) != num_classes or min(wanted) <= 0):
        raise ValueError(
            f"objective.class_weights={wanted}: wanted a positive number for each of {num_classes} classes, or balanced"
        )
    return tuple(wanted)


def real_examples(batch: Batch) -> Array:
    """True for the rows that count: all of them but the padding of the last evaluation batch."""
    return batch["example_mask"] if "example_mask" in batch else jnp.ones(next(iter(batch.values())).shape[0], bool)


def mean_over(values: Array, where: Array) -> Mean:
    """Sum of `values` and number of trues; values are expected to be 0 where not counted."""
    return Mean(jnp.sum(values.astype(jnp.float32)), jnp.sum(where.astype(jnp.float32)))
