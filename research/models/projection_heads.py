"""Projection heads of self-supervised learning: an MLP between a pooled vector and the loss, left out afterwards."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from research.models.image_layers import BatchNorm
from research.models.layers import Projection
from research.ops.unit_length import unit_length


class ProjectionHead(nn.Module):
    """`depth` linear maps with ReLU between, from a row's vector to `embed_dim` values in float32.

    SimCLR (Chen et al. 2020a) has 2 maps and its second version 3 (2020b), with batch norms after all of them; MoCo v2
    (Chen et al. 2020c) 2 without norms. A map that a norm follows has no bias. `normalize` gives vectors of length 1.
    """

    embed_dim: int = 128
    hidden: int = 2048
    depth: int = 2
    norm: bool = True  # after each map but the last
    output_norm: bool = False  # after the last
    normalize: bool = True
    dtype: str = "float32"
    param_dtype: str = "float32"
    matmul_dtype: str = ""  # what factors of matrix products are rounded to, with float32 sums; "": dtype

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 1:
            raise ValueError(f"depth={self.depth} linear maps; a projection head has 1 or more, as a rule 2 or 3")

    @nn.compact
    def __call__(
        self, pooled: Float[Array, "B D"], *, where: Bool[Array, " B"] | None = None, train: bool
    ) -> Float[Array, "B E"]:
        """With norms, training looks at the batch, of which `where` keeps padded examples out, and changes the
        collection `batch_stats`."""
        types: dict[str, Any] = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        values = pooled
        for layer in range(1, self.depth + 1):
            last = layer == self.depth
            normed = self.output_norm if last else self.norm
            width, axis = (self.embed_dim, None) if last else (self.hidden, "mlp")
            shape, axes = (values.shape[-1], width), ("embed", axis)
            options: dict[str, Any] = types | dict(bias=not normed, matmul_dtype=self.matmul_dtype)
            values = Projection("bd,de->be", shape, axes, name=f"linear{layer}", **options)(values)
            if normed:
                norm = BatchNorm(name=f"norm{layer}", **types)
                values = norm(values[:, None, None, :], where=where, train=train)[:, 0, 0]
            if not last:
                values = jax.nn.relu(values)
        return unit_length(values) if self.normalize else values.astype(jnp.float32)
