"""A multi-layer perceptron on flattened images, under the image models' interface: one position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from research.models.layers import ACTIVATIONS, Dropout, Projection


@dataclass(frozen=True)
class PerceptronConfig:
    """What a perceptron is: `depth` linear maps to `width` units, each with its activation; `module()` makes it.

    It takes images of the one size that it was made with.
    """

    width: int = 512
    depth: int = 2
    num_channels: int = 3
    activation: Literal["relu", "gelu", "gelu_tanh"] = "relu"
    dropout: float = 0.0
    pixel_mean: tuple[float, ...] = (0.5,)  # of each channel, or of all: taken off images in [0, 1],
    pixel_std: tuple[float, ...] = (0.5,)  # which are then divided by it
    dtype: str = "float32"
    param_dtype: str = "float32"
    matmul_dtype: str = ""  # what factors of matrix products are rounded to, with float32 sums; "": dtype

    def module(self) -> Perceptron:
        return Perceptron(self)

    def grid(self, num_rows: int, num_columns: int) -> tuple[int, int]:
        """One position, whatever the image."""
        del num_rows, num_columns
        return 1, 1

    def num_flops(self, image_size: int, *, num_columns: int = 0) -> float:
        """Floating-point operations an image, forward and backward: 6 · matrix parameters; the head is not counted.

        An image has `image_size` rows and as many columns, or `num_columns`."""
        inputs = image_size * (num_columns or image_size) * self.num_channels
        return 6.0 * (inputs * self.width + (self.depth - 1) * self.width**2)


class Perceptron(nn.Module):
    """Images to one vector: `[B Y X C]` to `[B 1 D]`."""

    config: PerceptronConfig

    @nn.compact
    def __call__(
        self, image: Float[Array, "B Y X C"], *, where: Bool[Array, " B"] | None = None, train: bool = False
    ) -> Float[Array, "B 1 D"]:
        del where  # padded examples do not meet the others
        config = self.config
        types: dict[str, Any] = dict(dtype=config.dtype, param_dtype=config.param_dtype)
        types |= dict(matmul_dtype=config.matmul_dtype, bias=True)
        hidden = image.reshape(image.shape[0], -1)
        for layer in range(config.depth):
            shape = (hidden.shape[1], config.width)
            stddev = (2.0 / shape[0]) ** 0.5  # He et al. 2015
            linear = Projection("bd,de->be", shape, ("embed", "mlp"), stddev=stddev, name=f"linear{layer + 1}", **types)
            hidden = ACTIVATIONS[config.activation](linear(hidden))
            hidden = Dropout(config.dropout)(hidden, train=train)
        return hidden[:, None]


mlp = PerceptronConfig
