"""What a block of random augmentation may say: probabilities, ranges and counts, refused in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Array


def check_probability(key: str, value: float) -> None:
    """Raises ValueError where `value` is no probability."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"augmentation.{key}={value}; wanted a probability from 0 (never) to 1 (always)")


def check_number(
    key: str, value: float | int, *, lowest: float | int, highest: float | int = math.inf, unit: str
) -> None:
    """Raises ValueError where `value` lies outside [lowest, highest] or is not finite."""
    if not lowest <= value <= highest or math.isinf(value):
        to = "or more" if math.isinf(highest) else f"to {highest:g}"
        raise ValueError(f"augmentation.{key}={value}; wanted {lowest:g} {to}: {unit}")


def check_range(
    key: str, value: Sequence[float], *, lowest: float = -math.inf, highest: float = math.inf, unit: str
) -> None:
    """Raises ValueError unless `value` is (low, high), low <= high, both finite and within [lowest, highest]."""
    if len(value) != 2 or not lowest <= value[0] <= value[1] <= highest or any(map(math.isinf, value)):
        above = "" if math.isinf(lowest) else f" from {lowest:g} on"
        below = "" if math.isinf(highest) else f" up to {highest:g}"
        raise ValueError(f"augmentation.{key}={value}; wanted two numbers (low, high){above}{below}: {unit}")


def check_keys(keys: Array, num_examples: int) -> None:
    """Raises ValueError where there is not one key an example."""
    if keys.shape != (num_examples,):
        raise ValueError(
            f"augmentation got keys of shape {keys.shape} for {num_examples} examples; wanted one typed key an "
            "example, as ops.masking.example_keys makes them"
        )
