"""Continuing text: prompts of any lengths in one batch, one token at a time with a cache of what was read before."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from research.inference.text_model import LinenModel, TextModel, batched, bucket, vocabulary_logits, without
from research.ops.sampling import sample
from research.types import Cache, Params


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn (`ops.sampling.sample`; temperature 0 is greedy), and at most how many."""

    max_tokens: int = 64
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens}; wanted 1 or more")


def generate(
    text_model: TextModel,
    texts: Sequence[str],
    *,
    sampling: Sampling,
    batch_size: int = 32,
    first_index: int = 0,
) -> Iterator[dict[str, Any]]:
    """For each text, in order: {"input", "output": the text with its continuation, "num_tokens": how many were added,
    "ended": whether the model ended it, by <eos> or the <bos> of another document}.

    Text i is keyed by (seed, first_index + i), so that it does not depend on the batch it is in.

    Raises:
      ValueError: a text that does not fit into the model's positions with `max_tokens` more, or an empty one where the
        tokenizer has no <bos>; before any text is continued.
    """
    facts = text_model.facts
    prompts = []
    for index, text in enumerate(texts, start=first_index):
        prompt = text_model.start() + text_model.encode(text)
        _check_room(prompt, text_model.num_positions, sampling.max_tokens, f"text {index + 1}")
        prompts.append(prompt)
    stop = tuple(sorted({facts.bos_id, facts.eos_id} - {-1}))
    banned = tuple(sorted({facts.pad_id, facts.unk_id, facts.mask_id} - {-1, *stop}))
    for first, batch in enumerate(batched(zip(texts, prompts, strict=True), batch_size)):
        continuations = generate_tokens(
            text_model.model,
            text_model.params,
            [prompt for _, prompt in batch],
            sampling=sampling,
            vocab_size=facts.vocab_size,
            stop=stop,
            banned=banned,
            first_index=first_index + first * batch_size,
        )
        for (text, prompt), tokens in zip(batch, continuations, strict=True):
            ended = tokens[-1] in stop
            tokens = tokens[:-1] if ended else tokens
            output = text + _continuation(text_model, prompt, tokens)
            yield {"input": text, "output": output, "num_tokens": len(tokens), "ended": ended}


def generate_tokens(
    model: LinenModel,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    vocab_size: int,
    stop: tuple[int, ...] = (),
    banned: tuple[int, ...] = (),
    first_index: int = 0,
) -> list[list[int]]:
    """The tokens that follow each prompt, up to and with the first of `stop`; ids in `banned` are never drawn.

    Prompts are padded on the left. Programs are compiled for powers of two of the number of prompts, of the longest
    prompt and of max_tokens.
    """
    length = bucket(max(map(len, prompts)))
    num_rows = bucket(len(prompts), least=1)
    tokens = np.zeros((num_rows, length), np.int32)
    lengths = np.zeros(num_rows, np.int32)  # 0: a row that only fills the batch
    for row, prompt in enumerate(prompts):
        tokens[row, length - len(prompt) :] = prompt
        lengths[row] = len(prompt)
    program = _Program(
        model=model,
        capacity=bucket(sampling.max_tokens),
        vocab_size=vocab_size,
        stop=stop,
        banned=banned,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
    )
    indices = np.arange(first_index, first_index + num_rows, dtype=np.uint32)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(sampling.seed), indices)
    written = np.asarray(_run(program, params, tokens, lengths, keys, np.int32(sampling.max_tokens)))
    return [[int(token) for token in row if token >= 0] for row in written[: len(prompts)]]


@dataclass(frozen=True)
class _Program:
    """What is compiled in."""

    model: LinenModel
    capacity: int  # the most new tokens that there is room for
    vocab_size: int
    stop: tuple[int, ...]
    banned: tuple[int, ...]
    temperature: float
    top_k: int
    top_p: float

    def read(
        self, params: Params, tokens: Array, positions: Array, segment_ids: Array, cache: Cache
    ) -> tuple[Float[Array, "B V"], Cache]:
        """The logits of what follows the last of `tokens` [B L]."""
        hidden, cache = self.model.apply(
            {"params": params}, tokens, positions=positions, segment_ids=segment_ids, cache=cache
        )
        return vocabulary_logits(self.model, params, hidden[:, -1]), cache

    def draw(self, keys: Key[Array, " B"], logits: Float[Array, "B V"], count: Array) -> Int[Array, " B"]:
        logits = without(logits[:, : self.vocab_size], self.banned)

        def one(key: Array, logits: Array) -> Array:
            key = jax.random.fold_in(key, count)
            return sample(key, logits[None], temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)[0]

        return jax.vmap(one)(keys, logits)

    def stops(self, tokens: Int[Array, " B"]) -> Bool[Array, " B"]:
        return jnp.isin(tokens, jnp.array(self.stop, jnp.int32))


@functools.partial(jax.jit, static_argnums=0)
def _run(
    program: _Program,
    params: Params,
    tokens: Int[Array, "B L"],
    lengths: Int[Array, " B"],
    keys: Key[Array, " B"],
    max_tokens: Int[Array, ""],
) -> Int[Array, "B N"]:
    """New tokens, -1 behind the last; a row's prompt is the last `lengths` of its tokens."""
    num_rows, length = tokens.shape
    cache = program.model.apply({"params": params}, num_rows, length + program.capacity, method="initial_cache")
    positions = jnp.arange(length, dtype=jnp.int32)[None, :] - (length - lengths)[:, None]
    # Padding is segment 0: attention leaves it out, and the border behind it resets a recurrent state.
    segment_ids = (positions >= 0).astype(jnp.int32)
    logits, cache = program.read(params, tokens, jnp.maximum(positions, 0), segment_ids, cache)
    first = program.draw(keys, logits, jnp.int32(0))
    done = lengths == 0
    written = jnp.full((num_rows, program.capacity), -1, jnp.int32)
    written = written.at[:, 0].set(jnp.where(done, -1, first))

    def unfinished(state: Any) -> Array:
        count, _, _, _, done = state
        return (count < max_tokens) & ~jnp.all(done)

    def advance(state: Any) -> Any:
        count, last, cache, written, done = state
        positions = (lengths + count - 1)[:, None]
        logits, cache = program.read(params, last[:, None], positions, jnp.ones_like(positions), cache)
        token = program.draw(keys, logits, count)
        written = written.at[:, count].set(jnp.where(done, -1, token))
        return count + 1, token, cache, written, done | program.stops(token)

    state = (jnp.int32(1), first, cache, written, done | program.stops(first))
    return jax.lax.while_loop(unfinished, advance, state)[3]


def _check_room(prompt: Sequence[int], num_positions: int, max_tokens: int, where: str) -> None:
    if not prompt:
        raise ValueError(f"{where} is empty, and this model's tokenizer has no <bos> to start from; give some text")
    if num_positions and len(prompt) + max_tokens > num_positions:
        room = num_positions - len(prompt)
        remedy = f"use max_tokens={room} or less, or a shorter text" if room > 0 else "give a shorter text"
        raise ValueError(
            f"{where} has {len(prompt)} tokens, with max_tokens={max_tokens} {len(prompt) + max_tokens}; the model has "
            f"{num_positions} positions: {remedy}"
        )


def _continuation(text_model: TextModel, prompt: list[int], tokens: list[int]) -> str:
    """The text of `tokens` as it reads behind the prompt: a decoder may put a space between the two."""
    before = text_model.tokenizer.decode(prompt)
    whole = text_model.tokenizer.decode(prompt + tokens)
    return whole.removeprefix(before) if whole.startswith(before) else text_model.tokenizer.decode(tokens)
