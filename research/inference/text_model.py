"""A trained model with its tokenizer: what generating, filling masks and classifying share."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from tokenizers import Tokenizer

from research.types import Params

Item = TypeVar("Item")


class LinenModel(Protocol):
    """A Linen module with the methods of `models.heads.Model`."""

    def apply(self, *args: Any, **kwargs: Any) -> Any: ...


class Facts(Protocol):
    """What is known of the data that a model was trained on; `batch.Spec` is one. Ids are -1 where there is none."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def unk_id(self) -> int: ...
    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def mask_id(self) -> int: ...
    @property
    def label_names(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class TextModel:
    """A model (Linen), its parameters, the contents of its tokenizer.json, and the facts about its data.

    `length` is the number of positions that it was built with.
    """

    model: LinenModel
    params: Params
    tokenizer_json: str
    facts: Facts
    length: int

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """In text given to it, what looks like a special token is text, as in the training data."""
        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @functools.cached_property
    def num_positions(self) -> int:
        """The most tokens of one text; 0, for no bound, where the model's memory does not grow with the text."""

        def memory(length: int) -> list[tuple[int, ...]]:
            initial = functools.partial(self.model.apply, {"params": self.params}, 1, length, method="initial_cache")
            return [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(initial))]

        return 0 if memory(7) == memory(11) else self.length

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def start(self) -> list[int]:
        """What every document begins with."""
        return [self.facts.bos_id] if self.facts.bos_id >= 0 else []


def vocabulary_logits(model: LinenModel, params: Params, hidden: Array) -> Float[Array, "*batch V"]:
    """Float32 logits of vectors [*batch D]; ids from the vocabulary's size on are padding of the table."""
    hidden, table, bias = model.apply({"params": params}, hidden, method="vocabulary")
    logits = jnp.einsum("...d,vd->...v", hidden, table.astype(hidden.dtype), preferred_element_type=jnp.float32)
    return logits if bias is None else logits + jnp.broadcast_to(bias.astype(jnp.float32), logits.shape)


def without(logits: Float[Array, "*batch V"], banned: Sequence[int]) -> Float[Array, "*batch V"]:
    """Logits in which the ids `banned` are -inf."""
    return logits.at[..., jnp.array(banned, jnp.int32)].set(-jnp.inf) if banned else logits


def rows_of(tokens: Int[Array, "B L"], lengths: Int[Array, " B"], borders: Any = None) -> dict[str, Array]:
    """What a model takes beside tokens that begin at column 0: one segment a row, of `lengths` tokens.

    The second text of a pair begins at `borders` [B]; without, there is none.
    """
    column = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :]
    real = column < lengths[:, None]
    found = {"positions": jnp.where(real, column, 0), "segment_ids": real.astype(jnp.int32)}
    if borders is not None:
        found["token_types"] = (real & (column >= borders[:, None])).astype(jnp.int32)
    return found


def bucket(size: int, *, least: int = 8) -> int:
    """The next power of two: programs are compiled for these sizes only."""
    return max(least, 1 << (size - 1).bit_length())


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items in order, the last one shorter.

    Raises:
      ValueError: a size below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size={size}; wanted 1 or more")
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
