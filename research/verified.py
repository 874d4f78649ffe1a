"""The hall's part of `verify`: a page at reduced size, with what its checks need of data, models and objectives."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.batch import AXES, Dataset, Source
from research.build import build
from research.checks.subject import NUM_STEPS, HostBatch, Subject
from research.data.rows import read_rows
from research.data.stream import TrainStream
from research.experiment import Experiment, Page, build_objective, open_experiment
from research.objectives import OBJECTIVES
from research.objectives.low_rank import LowRank
from research.prepared import tuned_multipliers
from research.reduced import reduce, with_key
from research.run import Run
from research.training.optimizer import OPTIMIZERS
from research.training.sharding import unboxed
from research.training.state import abstract_params
from research.types import Objective

_LOOKED_AT = 4096  # rows


def open_subject(page: Mapping[str, Any]) -> Subject:
    """What `checks.verify` takes, of a page as it was read.

    Raises:
      ValueError: anything on the page, or in the data, that cannot work.
    """
    experiment = open_experiment(reduce(page), say=lambda line: None)
    small, dataset, objective = experiment.page, experiment.dataset, experiment.objective
    examples = dataset.splits["train"].examples

    def stream(process_index: int, process_count: int) -> TrainStream:
        share = small.batch_size // process_count
        rows = slice(process_index * share, (process_index + 1) * share)
        return TrainStream(examples, seed=small.seed, batch_size=small.batch_size, rows=rows)

    batches = [stream(0, 1).batch_at(step) for step in range(NUM_STEPS)]
    params = unboxed(abstract_params(objective, jax.tree.map(jnp.asarray, batches[0])))
    multipliers = tuned_multipliers(small, params)
    optimizer = build(small.optimizer, OPTIMIZERS, kind="optimizer", num_steps=small.num_steps)
    return Subject(
        objective=objective,
        remat=_otherwise(small, dataset, "remat", "full"),
        bfloat16=build_objective(dataclasses.replace(small, dtype="bfloat16"), dataset.spec, None)[0],
        packed=_packed(examples, small.batch_size),
        fixed=functools.partial(_fixed, objective),
        batches=batches,
        stream=stream,
        axes=AXES,
        rules=tuple(small.mesh.get("rules", ())),
        transform=optimizer.transform(params, multipliers),
        multipliers=_trained(small, params, multipliers),
        run=lambda mesh: Run(_on(experiment, mesh)),
        causal=OBJECTIVES[small.objective["name"]].causal,
        seed=small.seed,
    )


def _packed(examples: Source, batch_size: int) -> HostBatch | None:
    """A batch of the first rows that hold several documents; None where the first few thousand do not."""
    rows = read_rows(examples, np.arange(min(len(examples), _LOOKED_AT)))
    if "segment_ids" not in rows:
        return None
    several = np.flatnonzero(rows["segment_ids"].max(axis=1) > 1)
    if not several.size:
        return None
    chosen = np.resize(several, batch_size)
    return {**{key: value[chosen] for key, value in rows.items()}, "example_id": np.arange(batch_size, dtype=np.uint32)}


def _fixed(objective: Any, batch: HostBatch) -> tuple[Objective, HostBatch]:
    """Masks are drawn for whole rows: where there are any, the batch brings them, under keys that are free."""
    if isinstance(objective, LowRank):
        inner, batch = _fixed(objective.objective, batch)
        return dataclasses.replace(objective, objective=inner), batch
    if not hasattr(objective, "corrupt"):
        return objective, batch
    seen, chosen = objective.corrupt(jax.tree.map(jnp.asarray, dict(batch)), jax.random.key(0))
    fixed = copy.copy(objective)
    object.__setattr__(fixed, "corrupt", lambda batch, noise: (batch["tags"], batch["loss_mask"]))
    return fixed, {**batch, "tags": np.asarray(seen), "loss_mask": np.asarray(chosen)}


def _otherwise(page: Page, dataset: Dataset, key: str, value: Any) -> Objective | None:
    """The objective with a key of its model changed; None where the model has no such key."""
    model, changed = with_key(page.model, key, value)
    return build_objective(dataclasses.replace(page, model=model), dataset.spec, None)[0] if changed else None


def _on(experiment: Experiment, mesh: Mapping[str, int]) -> Experiment:
    return dataclasses.replace(
        experiment, page=dataclasses.replace(experiment.page, mesh={**experiment.page.mesh, **mesh})
    )


def _trained(page: Page, params: Any, multipliers: Any) -> Any:
    """The multipliers of all parameters, 0 for a locked tower's."""
    lock = page.model.get("lock", "")
    ones = jax.tree.map(lambda leaf: 1.0, params) if multipliers is None else multipliers
    return {**ones, lock: jax.tree.map(lambda leaf: 0.0, params[lock])} if lock else ones
