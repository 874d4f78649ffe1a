"""Learning-rate schedules: the share of the peak rate at each step, as constructors for the `schedule` block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Schedule:
    """`warmup_steps` steps of linear growth, then `decay` of the progress from the warmup's end (0) to `num_steps` (1).

    Step s of the warmup has the share (s + 1) / (warmup_steps + 1) (nanoGPT's convention): no step is lost to a rate
    of 0, and the peak is reached at step `warmup_steps`.
    """

    warmup_steps: int
    decay: Callable[[jax.Array], jax.Array | float]

    def __call__(self, step: jax.Array | int, *, num_steps: int) -> jax.Array:
        """The share of the peak rate, a float32 scalar; `step` counts the updates done before.

        Raises:
          ValueError: the warmup is longer than the run.
        """
        if not 0 <= self.warmup_steps < num_steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} does not fit in num_steps={num_steps}; use fewer warmup steps"
            )
        step = jnp.asarray(step, jnp.float32)
        growth = jnp.minimum((step + 1.0) / (self.warmup_steps + 1.0), 1.0)
        progress = jnp.clip((step - self.warmup_steps) / (num_steps - self.warmup_steps), 0.0, 1.0)
        return growth * self.decay(progress)


def constant(*, warmup_steps: int = 0) -> Schedule:
    """The peak rate from the warmup's end on."""
    return Schedule(warmup_steps, lambda progress: 1.0)


def linear(*, warmup_steps: int = 0, final_fraction: float = 0.0) -> Schedule:
    """A straight line from the peak rate to `final_fraction` of it."""
    return Schedule(warmup_steps, lambda progress: 1.0 - (1.0 - final_fraction) * progress)


def cosine(*, warmup_steps: int = 0, final_fraction: float = 0.1) -> Schedule:
    """Half a cosine from the peak rate to `final_fraction` of it (Loshchilov and Hutter 2017, equation 5)."""

    def decay(progress: jax.Array) -> jax.Array:
        return final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))

    return Schedule(warmup_steps, decay)


def wsd(*, warmup_steps: int = 0, decay_fraction: float = 0.2, final_fraction: float = 0.0) -> Schedule:
    """Warmup, stable, decay (Hu et al. 2024): the peak rate, then a line to `final_fraction` of it.

    The line takes the last `decay_fraction` of the steps after the warmup.
    """
    if not 0.0 < decay_fraction <= 1.0:
        raise ValueError(f"decay_fraction={decay_fraction}; wanted a share above 0 and at most 1, such as 0.2")

    def decay(progress: jax.Array) -> jax.Array:
        decayed = jnp.maximum(progress - (1.0 - decay_fraction), 0.0) / decay_fraction
        return 1.0 - (1.0 - final_fraction) * decayed

    return Schedule(warmup_steps, decay)


SCHEDULES = {"constant": constant, "linear": linear, "cosine": cosine, "wsd": wsd}
