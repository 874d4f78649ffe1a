"""Who looks at whom in packed rows."""

from __future__ import annotations

from jaxtyping import Array, Bool, Int

MASKED = -1e30  # a score, finite: a fully masked row (padding) must give finite values and gradients


def attention_mask(
    query_positions: Int[Array, "B L"],
    key_positions: Int[Array, "B M"],
    query_segments: Int[Array, "B L"],
    key_segments: Int[Array, "B M"],
    *,
    causal: bool,
) -> Bool[Array, "B L M"]:
    """True where a query may look: keys of its own segment, and no later position when causal. Segment 0 is padding."""
    mask = (query_segments[:, :, None] == key_segments[:, None, :]) & (key_segments > 0)[:, None, :]
    if causal:
        mask &= key_positions[:, None, :] <= query_positions[:, :, None]
    return mask
