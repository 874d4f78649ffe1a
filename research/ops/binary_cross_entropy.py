"""Cross-entropy of independent yes-or-no questions, in float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def binary_cross_entropy(
    logits: Float[Array, "B C"],
    labels: Float[Array, "B C"],
    where: Bool[Array, " B"],
    *,
    label_smoothing: float = 0.0,
    positive_weight: Float[Array, " C"] | None = None,
) -> Float[Array, "B C"]:
    """The loss of each class of each row, in nats; 0, with a zero gradient, in rows where `where` is false.

    -w y log σ(x) - (1 - y) log(1 - σ(x)), with labels y of 0 and 1 drawn towards 1/2 by `label_smoothing`, and the
    weight w of a class's positives, 1 without `positive_weight`.
    """
    # Selected before the sigmoid and not only after it: a zero cotangent times a NaN logit is NaN.
    logits = jnp.where(where[:, None], logits.astype(jnp.float32), 0.0)
    labels = labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
    positive = labels * jax.nn.softplus(-logits)
    if positive_weight is not None:
        positive *= positive_weight[None, :]
    return jnp.where(where[:, None], positive + (1.0 - labels) * jax.nn.softplus(logits), 0.0)
