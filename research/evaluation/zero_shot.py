"""Zero-shot classification: the class whose description is nearest, no label ever shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from research.evaluation.embeddings import unit
from research.evaluation.retrieval import ranks

_CHUNK = 1024  # vectors at a time


def class_vectors(prompts: np.ndarray) -> np.ndarray:
    """One vector a class [C D] from those of its prompts [C T D]: each at length one, averaged, at length one again
    (Radford et al. 2021, section 3.1.4: an ensemble over the embedding space).

    Raises:
      ValueError: another number of axes, or values that are not finite.
    """
    if prompts.ndim != 3:
        raise ValueError(f"prompts came in shape {prompts.shape}; wanted [C T D], T templates of each of C classes")
    each = unit(prompts.reshape(-1, prompts.shape[-1])).reshape(prompts.shape)
    return unit(each.mean(axis=1))


def zero_shot_accuracy(
    vectors: np.ndarray, labels: np.ndarray, prompts: np.ndarray, *, at: Sequence[int] = (1, 5)
) -> dict[str, float]:
    """`accuracy`, and `accuracy_at_k` for the other cutoffs of `at`: the share of vectors [N D] whose class, of labels
    int [N], is among the k nearest by cosine similarity to `class_vectors` of prompts [C T D].

    A class that others equal comes last among them. A cutoff that takes in every class is left out, as it says nothing.

    Raises:
      ValueError: vectors and labels of different number, or a label outside the classes.
    """
    labels = np.asarray(labels)
    if len(vectors) != len(labels):
        raise ValueError(f"{len(vectors)} vectors came with {len(labels)} labels; give one each")
    if labels.min() < 0 or labels.max() >= len(prompts):
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}, and there are prompts of {len(prompts)} classes"
        )
    classes, asked = class_vectors(prompts), unit(vectors)
    found = np.concatenate(
        [
            ranks(asked[start : start + _CHUNK] @ classes.T, labels[start : start + _CHUNK])
            for start in range(0, len(asked), _CHUNK)
        ]
    )
    names = {cutoff: "accuracy" if cutoff == 1 else f"accuracy_at_{cutoff}" for cutoff in at if cutoff < len(classes)}
    return {name: float((found <= cutoff).mean()) for cutoff, name in names.items()}
