"""The model that joins an image backbone and a head, as `heads.Model` joins those of text."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.models.image_layers import standardise
from research.models.task_heads import pool
from research.models.vit import split_into_patches


class ImageModel(nn.Module):
    """A backbone (images to vectors) with the head that an objective asked for; parameters `backbone` and `head`.

    Images are floats in [0, 1]; each channel goes in less `pixel_mean` and divided by `pixel_std`. A `frozen` backbone
    computes as in evaluation always: without dropout, and with the batch statistics that it has.
    """

    backbone: nn.Module
    head: nn.Module
    pixel_mean: tuple[float, ...] = (0.5,)
    pixel_std: tuple[float, ...] = (0.5,)
    frozen: bool = False

    def __call__(
        self,
        image: Float[Array, "B Y X C"],
        *,
        num_rows: Int[Array, " B"] | None = None,
        where: Bool[Array, " B"] | None = None,
        train: bool = False,
        **options: Int[Array, "B K"],
    ) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
        """The backbone's vectors, and which of their positions are real: those that show one of the first `num_rows`
        rows of their image, or all. `where` are the examples that count (in batch statistics)."""
        hidden = self.backbone(self._seen(image), where=where, train=train and not self.frozen, **options)
        if num_rows is None:
            return hidden, jnp.ones(hidden.shape[:2], bool)
        real = self._real(image, num_rows)
        if "keep" in options:
            real = jnp.take_along_axis(real, options["keep"], axis=1)
        before = hidden.shape[1] - real.shape[1]  # a class token
        return hidden, jnp.pad(real, ((0, 0), (before, 0)), constant_values=True)

    @property
    def patch_size(self) -> int:
        """The side of the patches that the backbone can read a part of; 0 for one that reads images whole."""
        return getattr(self.backbone.config, "patch_size", 0)

    def patches(
        self, image: Float[Array, "B Y X C"], *, num_rows: Int[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B N Q"], Bool[Array, "B N"]]:
        """What the backbone sees of each patch, row by row, and which patches are real."""
        cut = split_into_patches(self._seen(image), self.patch_size)
        cut = cut.reshape(*cut.shape[:2], -1)
        return cut, jnp.ones(cut.shape[:2], bool) if num_rows is None else self._real(image, num_rows)

    def classify(self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, train: bool) -> Float[Array, "B C"]:
        return self.head(hidden, mask, train=train)

    def embed(self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
        """One vector an image, by an `EmbeddingHead`."""
        return self.head(hidden, mask)

    def project(
        self, hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], *, where: Any = None, train: bool = False
    ) -> Float[Array, "B E"]:
        """One vector an image, by a projection head of the mean over positions."""
        return self.head(pool(hidden, mask, "mean"), where=where, train=train)

    def reconstruct(
        self, hidden: Float[Array, "B M D"], keep: Int[Array, "B K"], *, grid: tuple[int, int], num_values: int
    ) -> Float[Array, "B N Q"]:
        """Every patch, by a `PatchDecoder`, of the vectors of those that were kept."""
        return self.head(hidden, keep, grid=grid, num_values=num_values)

    def _seen(self, image: Float[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
        return standardise(image, self.pixel_mean, self.pixel_std)

    def _real(self, image: Float[Array, "B Y X C"], num_rows: Int[Array, " B"]) -> Bool[Array, "B N"]:
        """Position r of G in a column begins at row r · Y / G of the image."""
        rows, columns = self.backbone.config.grid(*image.shape[1:3])
        real = (jnp.arange(rows) * image.shape[1])[None, :] < num_rows[:, None] * rows
        return jnp.repeat(real, columns, axis=1)
