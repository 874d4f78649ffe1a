"""A teacher's soft labels: a finetuned classifier reads the training rows once, before its student trains on them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from tokenizers import Tokenizer

from research.batch import Dataset
from research.data.rows import WithArray
from research.data.splits import fingerprint
from research.data.stream import eval_batches
from research.objectives.classification import Classification
from research.trained import Trained, open_trained

_SIZES = ("image_size", "num_channels", "sample_rate", "audio_length")


def with_soft_labels(dataset: Dataset, teacher: Path, *, batch_size: int) -> Dataset:
    """The data with the teacher's log-probabilities beside each training row.

    Raises:
      ValueError: the teacher is no classifier of these labels that reads these tokens, in rows as long as these, or
        images or sounds of this size.
    """
    trained = open_trained(teacher)
    _check(trained, dataset, teacher)
    objective, variables = cast(Classification, trained.objective), trained.variables
    read = jax.jit(lambda variables, batch: jax.nn.log_softmax(objective.logits(variables, batch)))
    train, found = dataset.splits["train"], []
    for batch in eval_batches(train.examples, batch_size=batch_size):
        found.append(np.asarray(read(variables, batch))[batch["example_mask"]])
    rows = WithArray(train.examples, "soft_labels", np.concatenate(found))
    known = fingerprint(str(dataset.facts.get("fingerprint", "")), _digest(variables))
    return dataclasses.replace(
        dataset,
        splits={**dataset.splits, "train": dataclasses.replace(train, examples=rows)},
        facts={**dataset.facts, "fingerprint": known},
    )


def _check(trained: Trained, dataset: Dataset, teacher: Path) -> None:
    if not isinstance(trained.objective, Classification):
        kind = trained.about["objective"].get("name", "model without a head")
        raise ValueError(f"teacher={teacher} is a {kind}; give a finetuned classifier")
    if trained.spec.label_names != dataset.spec.label_names:
        raise ValueError(f"teacher={teacher} knows {trained.spec.label_names}, the data {dataset.spec.label_names}")
    sizes = [{key: getattr(spec, key) for key in _SIZES} for spec in (trained.spec, dataset.spec)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"teacher={teacher} reads {sizes[0]}, the data are {sizes[1]}; give it what it was trained on")
    if not dataset.tokenizer:
        return
    ours = Tokenizer.from_str(dataset.tokenizer)
    if trained.tokenizer is None or trained.tokenizer.get_vocab() != ours.get_vocab():
        raise ValueError(
            f"teacher={teacher} reads other tokens; start the student from a run with the teacher's tokenizer, such as "
            "the one that the teacher was finetuned from (weights=scratch with a model block for a smaller one)"
        )
    longest = trained.about["model"]["length"]
    if dataset.spec.length > longest > 0:
        raise ValueError(f"teacher={teacher} has {longest} positions, data.length={dataset.spec.length}; use {longest}")


def _digest(variables: Any) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
