"""The next token drawn from logits: greedy, or by temperature from the top k and the top share p."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def sample(
    key: Key[Array, ""],
    logits: Float[Array, "B V"],
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    num_valid: int | None = None,
) -> Int[Array, " B"]:
    """One token per row; row i is keyed by fold_in(key, i), so it does not depend on how many rows there are.

    Logits are divided by `temperature` (0: the argmax, whatever else is set), then cut to the `top_k` largest (0: all),
    then to the smallest set of these with a probability of at least `top_p` (Holtzman et al. 2020): the order of
    transformers' generate. Of equal logits the lower id is the larger. Ids from `num_valid` on are never drawn.

    Raises:
      ValueError: a negative temperature or top_k, or top_p outside (0, 1].
    """
    if temperature < 0.0:
        raise ValueError(f"temperature={temperature}; wanted 0 (greedy) or a positive number")
    if top_k < 0:
        raise ValueError(f"top_k={top_k}; wanted 0 (all tokens) or a positive number of them")
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"top_p={top_p}; wanted a share above 0 and at most 1 (all tokens)")
    logits = logits[:, :num_valid].astype(jnp.float32)
    if temperature < 1e-30:  # 0, or so little that float32 would take it for 0
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    # Divided after the largest is set to 0, so that a tiny temperature overflows to -inf and not to inf.
    logits = (logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature

    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(logits.shape[0], dtype=jnp.uint32))
    num_tokens = logits.shape[-1]
    num_kept = min(top_k or num_tokens, num_tokens)
    if num_kept == num_tokens and top_p == 1.0:
        return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)
    largest, ids = jax.lax.top_k(logits, num_kept)
    probabilities = jax.nn.softmax(largest, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = (before < top_p).at[:, 0].set(True)  # the sum of all may round to less than top_p, never the first
    drawn = jax.vmap(jax.random.categorical)(keys, jnp.where(kept, largest, -jnp.inf))
    return jnp.take_along_axis(ids, drawn[:, None], axis=-1)[:, 0].astype(jnp.int32)
