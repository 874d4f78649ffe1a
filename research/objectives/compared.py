"""What objectives that compare examples with each other share."""

from __future__ import annotations

from research.types import Batch


def check_compared(batch: Batch) -> None:
    """Raises ValueError where there is nothing to compare an example with."""
    size = next(iter(batch.values())).shape[0]
    if size < 2:
        raise ValueError(f"batch_size={size}: examples are told apart from others of their batch; use 2 or more")
