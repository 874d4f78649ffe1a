"""The decoder of a masked autoencoder (He et al. 2022, arXiv:2111.06377): a head, left out after pretraining."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.models.layers import Norm, Projection, named
from research.models.transformer import TransformerConfig, stack
from research.models.vit import sincos


class PatchDecoder(nn.Module):
    """From the vectors of the patches that were kept to the values of all, in float32.

    A linear map to `width`, one learned token in the place of every other patch, sines of column and row, `depth`
    transformer blocks, a norm and a linear map. MAE's for ImageNet is 512 wide and 8 deep.
    """

    decoder_width: int = 512
    depth: int = 8
    num_heads: int = 16
    norm_epsilon: float = 1e-6
    unroll: int = 1  # layers per scan iteration: more is faster on CPU and slower to compile
    dtype: str = "float32"
    param_dtype: str = "float32"
    matmul_dtype: str = ""  # what factors of matrix products are rounded to, with float32 sums; "": dtype

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_width % 4:
            raise ValueError(f"head.decoder_width={self.decoder_width}: sincos positions need a multiple of 4")
        if self.decoder_width % self.num_heads:
            raise ValueError(
                f"head.decoder_width={self.decoder_width} does not divide into head.num_heads={self.num_heads} heads"
            )

    def setup(self) -> None:
        self.layers = stack(self._trunk())

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B M D"], keep: Int[Array, "B K"], *, grid: tuple[int, int], num_values: int
    ) -> Float[Array, "B N Q"]:
        """`hidden` are vectors of the patches `keep` of a `grid` of rows and columns, behind a class token if any."""
        width = self.decoder_width
        types: dict[str, Any] = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        options: dict[str, Any] = types | dict(bias=True, matmul_dtype=self.matmul_dtype)
        tokens = Projection("bmd,de->bme", (hidden.shape[-1], width), ("embed", None), name="embed", **options)(hidden)
        init = named(nn.initializers.normal(0.02), (None, "embed"))
        token = jnp.asarray(self.param("mask_token", init, (1, width), self.param_dtype)).astype(tokens.dtype)

        before = tokens.shape[1] - keep.shape[1]
        index = jnp.arange(grid[0] * grid[1])
        empty = jnp.broadcast_to(token, (index.shape[0], width))
        patches = jax.vmap(lambda values, places: empty.at[places].set(values))(tokens[:, before:], keep)
        places = jnp.stack([index // grid[1], index % grid[1]], axis=-1)[None]
        patches = patches + sincos(places, width).astype(patches.dtype)

        tokens = jnp.concatenate([tokens[:, :before], patches], axis=1)
        mask = jnp.ones((*tokens.shape[:2], tokens.shape[1]), bool)
        positions = jnp.zeros(tokens.shape[:2], jnp.int32)  # which no block reads
        tokens, _ = self.layers(tokens, None, positions, mask, None, False)
        tokens = Norm("layer", self.norm_epsilon, name="norm", **types)(tokens[:, before:])
        options |= dict(dtype=jnp.float32)
        return Projection("bnd,dq->bnq", (width, num_values), ("embed", None), name="output", **options)(tokens)

    def _trunk(self) -> TransformerConfig:
        return TransformerConfig(
            vocab_size=0,
            length=0,
            width=self.decoder_width,
            depth=self.depth,
            num_heads=self.num_heads,
            norm_epsilon=self.norm_epsilon,
            position="none",
            unroll=self.unroll,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            matmul_dtype=self.matmul_dtype,
        )
