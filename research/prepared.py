"""What a page, an objective and a layout make together, before there is any data: the state's shapes and the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import optax

from research.batch import AXES
from research.build import build
from research.experiment import Page
from research.settings import Tuning
from research.training.feature_cache import check_accumulation
from research.training.optimizer import OPTIMIZERS, Optimizer, layer_multipliers
from research.training.sharding import Layout, batch_shardings, unboxed
from research.training.state import TrainState, abstract_params, abstract_state, shardings_of
from research.training.step import make_train_step
from research.types import Objective


@dataclass(frozen=True)
class Prepared:
    """A step that can be run, or compiled for devices that are not here; nothing is computed yet.

    `abstract` and `batch` are shapes and types with shardings: what `train_step` takes.
    """

    layout: Layout
    optimizer: Optimizer
    transform: optax.GradientTransformation
    abstract: TrainState
    shardings: TrainState
    batch: dict[str, jax.ShapeDtypeStruct]
    batch_shardings: dict[str, Any]
    train_step: Any


def prepare(page: Page, objective: Objective, rows: Mapping[str, Any], layout: Layout) -> Prepared:
    """The jitted step of a page on a layout; `rows` are arrays, or their shapes, with any number of rows first.

    Raises:
      ValueError: a batch, a length or a parameter that does not divide over the mesh, or settings that exclude each
        other.
    """
    check_batch(page, layout)
    shapes: Any = {
        key: jax.ShapeDtypeStruct((page.batch_size, *value.shape[1:]), value.dtype) for key, value in rows.items()
    }
    placed = batch_shardings(shapes, AXES, layout)
    batch = {key: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=placed[key]) for key, shape in shapes.items()}
    offers = {"num_steps": page.num_steps, "matmul_dtype": page.matmul_dtype}
    optimizer: Optimizer = build(page.optimizer, OPTIMIZERS, kind="optimizer", **offers)
    params = unboxed(abstract_params(objective, shapes))
    transform = optimizer.transform(params, tuned_multipliers(page, params))
    abstract = abstract_state(objective, transform, shapes, layout, ema=page.ema_decay > 0.0)
    check_accumulation(objective, abstract.variables, page.accumulate)
    step = make_train_step(objective, transform, seed=page.seed, accumulate=page.accumulate, ema_decay=page.ema_decay)
    shardings = shardings_of(abstract)
    train_step = jax.jit(step, in_shardings=(shardings, placed), out_shardings=(shardings, None), donate_argnums=(0,))
    return Prepared(layout, optimizer, transform, abstract, shardings, batch, placed, train_step)


def tuned_multipliers(page: Page, params: Any) -> Any:
    """How fast each parameter learns, as the page's tuning has it; None where all learn at one rate."""
    tuning: Tuning = build(page.tuning, {"": Tuning}, kind="tuning")
    if not tuning.multiplies:
        return None
    kinds = {name: getattr(tuning, name) for name in ("freeze_backbone", "freeze_layers", "layer_decay")}
    return layer_multipliers(params, **kinds)


def check_batch(page: Page, layout: Layout) -> None:
    """Raises ValueError where the batch does not divide over the devices and microbatches."""
    parts = page.accumulate * layout.batch_parts
    if page.batch_size % parts:
        raise ValueError(
            f"batch_size={page.batch_size} does not divide over {layout.batch_parts} devices x {page.accumulate} "
            f"microbatches; use a multiple of {parts}"
        )
