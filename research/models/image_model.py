"""The model that joins an image backbone and a head, as `heads.Model` joins those of text."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from research.models.image_layers import standardise
from research.models.task_heads import pool


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
        where: Bool[Array, " B"] | None = None,
        train: bool = False,
        **options: Int[Array, "B K"],
    ) -> Float[Array, "B L D"]:
        """The backbone's vectors; `where` are the examples that count (in batch statistics)."""
        image = standardise(image, self.pixel_mean, self.pixel_std)
        return self.backbone(image, where=where, train=train and not self.frozen, **options)

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
