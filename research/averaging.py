"""Averages of trained models: uniform soups of finetuned runs, and lines between finetuned and pretrained weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research import provenance
from research.batch import Dataset
from research.trained import Trained, open_trained
from research.training.checkpoint import Checkpoints


def average(
    runs: Sequence[Path],
    workdir: Path,
    *,
    shares: str = "",
    command: Sequence[str],
    say: Callable[[str], None] = print,
) -> None:
    """Writes a workdir whose parameters are the mean of the runs' (Wortsman et al. 2022, "Model soups", recipe 1; with
    a pretrained model among them "Robust fine-tuning of zero-shot models", equation 1).

    Heads are averaged over the runs that have the first one's head and labels (and units, where they tell a number),
    backbones over all, in float64; of two towers everything.

    Raises:
      ValueError: fewer than two runs, shares that do not fit, a workdir in use, models of different shape or tokens, or
        with batch statistics (those of averaged weights are no average), a teacher or a queue.
    """
    if len(runs) < 2:
        raise ValueError("an average needs two runs or more; name them behind the flags")
    weights = _shares(shares, len(runs))
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise ValueError(f"--workdir={workdir} is in use; give a new folder")
    page = provenance.read_config(runs[0])
    if page is None or "objective" not in page:
        raise ValueError(f"{runs[0]} is no run of ours; begin with a run, published weights may come after it")
    opened = [open_trained(run) for run in runs]
    first = opened[0]
    for run, trained in zip(runs, opened, strict=True):
        if trained.model_state:
            kept = ", ".join(sorted(trained.model_state))
            raise ValueError(f"{run} has {kept} beside its parameters, which have no mean; average models without")
    for run, trained in zip(runs[1:], opened[1:], strict=True):
        _check(first, trained, f"{run} and {runs[0]}")
    with_head = [_same_head(first, trained) for trained in opened]
    whole = {key: value for key, value in first.params.items() if key != "head"}  # the backbone, or two towers
    params = {key: _mean([trained.params[key] for trained in opened], weights) for key in whole}
    if "head" in first.params:  # a tied head without bias has no parameters
        kept = [index for index, same in enumerate(with_head) if same]
        params["head"] = _mean([opened[index].params["head"] for index in kept], [weights[index] for index in kept])
    about = {key: value for key, value in first.about.items() if key != "lora"}
    sources = [
        {"run": str(run), "step": trained.step, "share": share, "head": same}
        for run, trained, share, same in zip(runs, opened, weights, with_head, strict=True)
    ]
    dataset = Dataset(splits={}, spec=first.spec, tokenizer=str(about["tokenizer"]), facts={"average_of": sources})
    with Checkpoints(workdir / "checkpoints", about=about) as checkpoints:
        checkpoints.save(0, params=params, state={}, host={}, metrics={})
    page = {**page, "tuning": {}}  # the weights are plain ones, whatever they were trained as
    provenance.begin(workdir, page, command=command, dataset=dataset)
    for source in sources:
        part = "" if source["head"] else ", its backbone alone"
        say(f"{source['share']:.3g} of {source['run']}, step {source['step']}{part}")
    say(f"{workdir}: the average; `python -m research.evaluate --workdir={workdir}` scores it")


def _shares(text: str, count: int) -> list[float]:
    if not text:
        return [1.0 / count] * count
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or min(found) < 0 or sum(found) <= 0:
        raise ValueError(f"--shares={text}: wanted {count} numbers of 0 or more, one for each run, such as 0.7,0.3")
    return [share / sum(found) for share in found]


def _check(first: Trained, other: Trained, names: str) -> None:
    # Sizes are compared as the parameters have them: 0 on a page may mean "as wide as the model says".
    free = ("dtype", "param_dtype", "dropout", "unroll", "remat", "mlp_dim", "num_kv_heads", "head_dim")
    models = [{key: value for key, value in each.about["model"].items() if key not in free} for each in (first, other)]
    differing = sorted(key for key in models[0].keys() | models[1].keys() if models[0].get(key) != models[1].get(key))
    shapes = [
        jax.tree.map(jnp.shape, {key: value for key, value in each.params.items() if key != "head"})
        for each in (first, other)
    ]
    if not differing and shapes[0] != shapes[1]:
        differing = ["mlp_dim or num_kv_heads"]
    if differing:
        raise ValueError(f"{names} differ in model.{', model.'.join(differing)}; average models of one shape")
    sizes = ("image_size", "num_channels", "sample_rate", "audio_length")
    if any(getattr(first.spec, size) != getattr(other.spec, size) for size in sizes):
        raise ValueError(f"{names} read images or sounds of other sizes; average models that read the same")
    vocabularies = [each.tokenizer.get_vocab() if each.tokenizer else {} for each in (first, other)]
    if vocabularies[0] != vocabularies[1]:
        raise ValueError(f"{names} read different tokens; average models with one tokenizer")


def _same_head(first: Trained, other: Trained) -> bool:
    about = [
        (each.about["head"].get("name", ""), each.spec.label_names, each.spec.target_mean, each.spec.target_scale)
        for each in (first, other)
    ]
    shapes = [jax.tree.map(jnp.shape, dict(each.params.get("head", {}))) for each in (first, other)]
    return about[0] == about[1] and shapes[0] == shapes[1]


def _mean(trees: Sequence[Mapping[str, Any]], shares: Sequence[float]) -> Any:
    total = sum(shares)

    def leaf(*parts: Any) -> jax.Array:
        wide = sum(np.asarray(part, np.float64) * (share / total) for part, share in zip(parts, shares, strict=True))
        return jnp.asarray(wide, parts[0].dtype)

    return jax.tree.map(leaf, *trees)
