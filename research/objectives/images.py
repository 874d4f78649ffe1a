"""What the objectives of images share: pixels, running a model on them, and starting one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.types import Batch, Features, Variables

# Collections that modules keep beside their parameters; other model state is the objective's own.
_COLLECTIONS = ("params", "batch_stats")

Head = Callable[[Any, Array, Array], Any]  # of the model, its vectors [B L D] and their mask [B L]


def pixels(batch: Batch) -> Float[Array, "B Y X C"]:
    """The batch's images as floats in [0, 1]."""
    return batch["image"].astype(jnp.float32) / 255.0


def run_images(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "B Y X C"],
    head: Head,
    *,
    where: Array | None = None,
    train: bool = False,
    dropout: jax.Array | None = None,
    **options: Array,
) -> tuple[Any, dict[str, Any]]:
    """What `head` makes of the backbone's vectors, and the model state that this changed (batch statistics)."""
    kept = {name: variables[name] for name in _COLLECTIONS if name in variables}
    rngs = {"dropout": dropout} if train and dropout is not None else {}
    call: dict[str, Any] = dict(method=_joined(head, where=where, train=train, **options), rngs=rngs)
    mutable = [name for name in kept if name != "params"] if train else []
    if not mutable:
        return model.apply(kept, images, **call), {}
    found, changed = model.apply(kept, images, mutable=mutable, **call)
    return found, dict(changed)


def init_images(model: nn.Module, rng: jax.Array, batch: Batch, head: Head) -> Variables:
    """Parameters and model state of the backbone and the head."""
    made = model.init(rng, pixels(batch), method=_joined(head))
    return {name: made[name] for name in _COLLECTIONS if name in made}


def image_features(model: nn.Module, variables: Variables, images: Float[Array, "B Y X C"]) -> Features:
    """The vectors of every position, and their mean."""
    (hidden, mask), _ = run_images(model, variables, images, lambda model, hidden, mask: (hidden, mask))
    hidden = hidden.astype(jnp.float32)
    return Features(pooled=jnp.mean(hidden, axis=1), sequence=hidden, mask=mask)


def has_batch_statistics(variables: Mapping[str, Any]) -> bool:
    """True where the model has layers whose output depends on the whole batch."""
    return "batch_stats" in variables


def _joined(head: Head, **call: Any) -> Callable[[Any, Array], Any]:
    def both(model: Any, images: Array) -> Any:
        hidden = model(images, **call)
        return head(model, hidden, jnp.ones(hidden.shape[:2], bool))

    return both
