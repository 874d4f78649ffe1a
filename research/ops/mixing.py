"""Examples mixed with their neighbours in the batch, labels too: mixup and CutMix."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from research.ops.image_geometry import inside_box


def mixup(
    images: Float[Array, "B ..."], labels: Float[Array, "B C"], keys: Key[Array, " B"], *, alpha: float
) -> tuple[Float[Array, "B ..."], Float[Array, "B C"]]:
    """λ · example + (1 - λ) · the next one of the batch (the first after the last), labels alike (Zhang et al. 2018).

    λ ~ Beta(alpha, alpha) is drawn for each example by its key; the authors' code draws one for a batch. The partner
    is the next row on however many devices, but another one in microbatches: an objective that mixes couples its
    examples. `labels` are one-hot or soft.

    Raises:
      ValueError: an alpha that is not above 0.
    """
    _check(labels, keys, alpha)
    share = draw_shares(keys, alpha=alpha)
    return _mix(images, _next(images), share), _mix(labels, _next(labels), share)


def cutmix(
    images: Float[Array, "B Y X C"], labels: Float[Array, "B N"], keys: Key[Array, " B"], *, alpha: float
) -> tuple[Float[Array, "B Y X C"], Float[Array, "B N"]]:
    """A box of the next image in the place of this one's, labels in proportion to the areas (Yun et al. 2019).

    The box takes a share 1 - λ of the area, λ ~ Beta(alpha, alpha) for each example by its key, around a uniform
    centre; what lies outside the image is cut off, and the labels follow what remains, as in the authors' code.
    Partners are those of `mixup`.

    Raises:
      ValueError: an alpha that is not above 0.
    """
    _check(labels, keys, alpha)
    rows, columns = images.shape[1:3]
    halves = jax.vmap(jax.random.split)(keys)
    shares = draw_shares(halves[:, 0], alpha=alpha)
    centres = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(halves[:, 1])
    boxes = jax.vmap(lambda share, centre: cut_box(share, centre, rows=rows, columns=columns))(shares, centres)
    pasted, left = paste(images, _next(images), boxes)
    return pasted, _mix(labels, _next(labels), left)


def draw_shares(keys: Key[Array, " B"], *, alpha: float) -> Float[Array, " B"]:
    """One λ ~ Beta(alpha, alpha) a key."""
    return jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))(keys)


def cut_box(share: Float[Array, ""], centre: Float[Array, " 2"], *, rows: int, columns: int) -> Float[Array, " 4"]:
    """The box (top, left, height, width) that leaves a share of the image, before it is cut at the border.

    `centre` is (y, x) in [0, 1); sides and the centre are rounded down to whole pixels, half sides too.
    """
    size = jnp.array([rows, columns], jnp.float32)
    half = jnp.floor(jnp.floor(size * jnp.sqrt(1.0 - share)) / 2.0)
    middle = jnp.floor(size * centre)
    low, high = jnp.clip(middle - half, 0.0, size), jnp.clip(middle + half, 0.0, size)
    return jnp.concatenate([low, high - low])


def paste(
    images: Float[Array, "B Y X C"], others: Float[Array, "B Y X C"], boxes: Float[Array, "B 4"]
) -> tuple[Float[Array, "B Y X C"], Float[Array, " B"]]:
    """Each image with its box taken from the other, and the share of its own pixels that is left."""
    rows, columns = images.shape[1:3]
    inside = jax.vmap(lambda box: inside_box(box, rows=rows, columns=columns))(boxes)
    return jnp.where(inside[..., None], others, images), 1.0 - jnp.mean(inside.astype(jnp.float32), axis=(1, 2))


def _next(array: Array) -> Array:
    # Over devices this moves one row to a neighbour; reversing the batch would move them all.
    return jnp.roll(array, -1, axis=0)


def _mix(first: Array, second: Array, share: Array) -> Array:
    share = share.reshape(-1, *(1,) * (first.ndim - 1))
    return share * first + (1.0 - share) * second


def _check(labels: Array, keys: Array, alpha: float) -> None:
    if not 0.0 < alpha < math.inf:
        raise ValueError(f"mixing alpha={alpha}; wanted a number above 0, such as 0.2 for mixup and 1 for CutMix")
    if labels.ndim != 2 or not jnp.issubdtype(labels.dtype, jnp.floating):
        raise ValueError(f"mixing got labels {labels.dtype}{list(labels.shape)}; wanted float [B C], one-hot or soft")
    if keys.shape != labels.shape[:1]:
        raise ValueError(f"mixing got keys of shape {keys.shape} for {labels.shape[0]} examples; wanted one an example")
