"""Masked language modelling (Devlin et al. 2018, section 3.1): hidden tokens from what stands on both sides of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from research.objectives.text import encode, features, init, mean_over, real_examples
from research.ops.cross_entropy import chunked_cross_entropy
from research.ops.masking import example_keys, gather_positions, mask_capacity, masked_lm_corruption
from research.types import Batch, Features, Keys, Loss, Variables


@dataclass(frozen=True)
class MaskedLM:
    """Mean cross-entropy of the masked tokens, in nats; of these 80 % are hidden, 10 % replaced, 10 % left.

    At most K = ceil(rate · L) positions of a row are masked, chosen before corruption, so the gathered head (logits at
    K slots a row) and the full head (`gather=False`: logits everywhere) have the same loss.
    """

    model: nn.Module
    vocab_size: int
    mask_id: int
    pad_id: int = 0
    unk_id: int = 1
    bos_id: int = 2
    eos_id: int = 3
    word_starts: np.ndarray | None = None
    word_ends: np.ndarray | None = None
    rate: float = 0.15
    unit: Literal["tokens", "words", "spans"] = "tokens"
    mask_probability: float = 0.8
    random_probability: float = 0.1
    gather: bool = True
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    chunk: int = 8192

    couples_examples = False
    causal = False
    head = "language"

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(f"objective.rate={self.rate}: wanted a share of tokens above 0 and at most 1")
        if self.mask_id < 0:
            raise ValueError(
                "the tokenizer has no mask token; masked_lm needs one: train one here, or add <mask> to it"
            )

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        return init(self.model, rng, batch, lambda model, hidden: model.vocabulary(hidden))

    def corrupt(self, batch: Batch, noise: jax.Array) -> tuple[Array, Array]:
        """The tokens that the model sees [B L], and which of them it must tell [B L]."""
        special = {self.pad_id, self.unk_id, self.bos_id, self.eos_id, self.mask_id}
        ordinary = jnp.isin(batch["tokens"], jnp.array(sorted(special)), invert=True)
        maskable = (batch["segment_ids"] > 0) & ordinary & real_examples(batch)[:, None]
        return masked_lm_corruption(
            example_keys(noise, batch["example_id"]),
            batch["tokens"],
            maskable,
            batch["segment_ids"],
            rate=self.rate,
            unit=self.unit,
            mask_id=self.mask_id,
            vocab_size=self.vocab_size,
            # Of a given tokenizer, whose special tokens lie anywhere, any token may be a random one, as in BERT.
            first_ordinary_id=5 if special == set(range(5)) else 0,
            mask_probability=self.mask_probability,
            random_probability=self.random_probability,
            word_starts=self.word_starts,
            word_ends=self.word_ends,
        )

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        corrupted, chosen = self.corrupt(batch, rng.noise)
        hidden = encode(self.model, variables, batch, tokens=corrupted, train=train, dropout=rng.dropout)
        targets, where = batch["tokens"], chosen
        if self.gather:
            capacity = mask_capacity(rate=self.rate, length=targets.shape[1])
            slots, where = gather_positions(chosen, capacity=capacity)
            hidden = jnp.take_along_axis(hidden, slots[:, :, None], axis=1)
            targets = jnp.take_along_axis(targets, slots, axis=1)
        hidden, table, bias = cast(
            tuple[Array, Array, Array | None],
            self.model.apply({"params": variables["params"]}, hidden, method="vocabulary"),
        )
        losses, correct = chunked_cross_entropy(
            hidden.reshape(-1, hidden.shape[-1]),
            table,
            bias,
            targets.reshape(-1),
            where.reshape(-1),
            chunk=self.chunk,
            label_smoothing=self.label_smoothing if train else 0.0,
            z_loss=self.z_loss if train else 0.0,
            num_valid=self.vocab_size,
        )
        loss = mean_over(losses, where)
        return Loss(terms={"loss": (1.0, loss)}, metrics={"accuracy": mean_over(correct, where)})

    def features(self, variables: Variables, batch: Batch) -> Features:
        return features(self.model, variables, batch)
