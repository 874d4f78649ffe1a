"""Between runs and published weights: what `research.convert` does."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from research.build import build
from research.data.tokenizers import frame, from_json, own_frame
from research.inference.text_model import vocabulary_logits
from research.interop import is_published, write_folder, write_image_folder, write_pair_folder
from research.interop.verify import TOLERANCE, difference, differences, image_outputs, pair_outputs
from research.models import ALL_MODELS, PAIR_MODELS
from research.objectives.inputs import run_inputs
from research.trained import Trained, assemble, open_trained
from research.training.checkpoint import Checkpoints

_SPECIAL = ("pad", "unk", "bos", "eos", "mask")


def convert(
    origin: Path, to: Path, *, step: int | None = None, say: Callable[[str], None] = print
) -> tuple[Path, Trained]:
    """Turns a run into a published folder, or the other way round; returns that folder, and the run's model.

    Raises:
      ValueError: `origin` is neither, `to` is in use, or the model is of no published family.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(f"--to={to} is in use; give a new folder")
    trained = open_trained(origin, step=step)
    size = sum(leaf.size for leaf in jax.tree.leaves(trained.params)) / 1e6
    if is_published(origin) and not (origin / "checkpoints").is_dir():
        for name in trained.unused:
            say(f"not used: {name}")
        _write_run(to, trained)
        say(f"{to}: a run with {size:.2f} M parameters; use it as --config.init_from or as --workdir of predict")
        return origin, trained
    architecture = write_published(to, trained)
    say(f"{to}: {architecture} with {size:.2f} M parameters; open it with transformers.Auto….from_pretrained")
    return to, trained


def write_published(folder: Path, trained: Trained) -> str:
    """Writes a model in the layout of transformers; returns its architecture. Raises as `convert`."""
    name = trained.about["model"]["name"]
    config: Any = build(trained.about["model"], ALL_MODELS, kind="model")
    ids, tokens = _special_tokens(trained)
    if name in PAIR_MODELS:
        return write_pair_folder(
            folder,
            model=config,
            params=jax.tree.map(np.asarray, trained.params),
            tokenizer=trained.about["tokenizer"],
            ids=ids,
            tokens=tokens,
            size=trained.spec.image_size,
        )
    if trained.spec.image_size:
        return write_image_folder(
            folder,
            model=config,
            head=trained.about["head"],
            task=trained.about["objective"].get("name", "features"),
            variables=jax.tree.map(np.asarray, trained.variables),
            size=trained.spec.image_size,
            label_names=trained.spec.label_names,
        )
    if not hasattr(config, "norm_position"):
        raise ValueError(f"no published family has a {name} model; bert, roberta, gpt2 and llama are written")
    tokenizer = from_json(trained.about["tokenizer"])
    keeps = not trained.trained_here or all(
        own_frame(tokenizer, pair=pair) == frame(tokenizer, pair=pair) for pair in (False, True)
    )
    of_vectors = trained.about["head"]["name"] == "embedding"  # of pairs or SimCSE: a sentence encoder
    return write_folder(
        folder,
        model=config,
        name=name,
        head=trained.about["head"],
        task="features" if of_vectors else trained.about["objective"].get("name", "features"),
        params=jax.tree.map(np.asarray, trained.params),
        tokenizer=trained.about["tokenizer"],
        ids=ids,
        tokens=tokens,
        label_names=trained.spec.label_names,
        target_mean=trained.spec.target_mean,
        target_scale=trained.spec.target_scale,
        keep_frame=keeps,
    )


def _special_tokens(trained: Trained) -> tuple[dict[str, int], dict[str, str]]:
    """Ids and contents of the tokenizer's special tokens, by transformers' names."""
    ids, tokens = {}, {}
    for kind in _SPECIAL:
        index = getattr(trained.spec, f"{kind}_id")
        token = trained.tokenizer.id_to_token(index) if trained.tokenizer is not None and index >= 0 else None
        if token is not None:
            tokens[f"{kind}_token"] = token
            if kind in ("pad", "bos", "eos"):
                ids[f"{kind}_token_id"] = index
    return ids, tokens


def verify(folder: Path, trained: Trained, *, say: Callable[[str], None] = print) -> int:
    """Prints how far both sides are apart in float32, relative to the largest value; 1 where that is too far.

    Raises:
      RuntimeError: they give scores of different shapes.
    """
    if trained.about["model"]["name"] in PAIR_MODELS:
        return verify_pairs(folder, trained, say=say)
    if trained.spec.image_size:
        return verify_images(folder, trained, say=say)
    head = trained.about["head"]
    pools = head["name"] == "embedding" and not head["pooler"]  # sentence-transformers would, beside the model
    found = differences(
        folder,
        functools.partial(outputs, in_float32(trained)),
        vocab_size=trained.spec.vocab_size,
        length=trained.about["model"]["length"],
        head=not pools,
    )
    if pools:
        say("head: not compared, transformers leaves pooling to others")
    return _judge(found, say)


def verify_images(folder: Path, trained: Trained, *, say: Callable[[str], None] = print) -> int:
    """As `verify`, of an image model; the vectors of every position, and the logits of a classifier."""
    single, spec = in_float32(trained), trained.spec
    shape = (2, spec.image_size, spec.image_size, spec.num_channels)
    images = np.random.default_rng(0).random(shape, np.float32)
    config = build(trained.about["model"], ALL_MODELS, kind="model")
    scored = trained.about["objective"].get("name") == "classification"

    def head(model: Any, hidden: jax.Array, mask: jax.Array) -> Any:
        return hidden, model.classify(hidden, mask, train=False) if scored else hidden[:, 0]

    (hidden, scores), _ = run_inputs(single.model, single.variables, {"image": jnp.asarray(images)}, head)
    mean, std = (np.asarray(values, np.float32) for values in (config.pixel_mean, config.pixel_std))
    theirs = image_outputs(folder, (images - mean) / std)
    found = {"vectors": difference(np.asarray(hidden), theirs[0])}
    if scored:
        found["head"] = difference(np.asarray(scores), theirs[1])
    return _judge(found, say)


def verify_pairs(folder: Path, trained: Trained, *, say: Callable[[str], None] = print) -> int:
    """As `verify`, of a dual encoder: the unit vectors of both sides, and the scaled products of all pairs."""
    single, spec, config = in_float32(trained), trained.spec, build(trained.about["model"], ALL_MODELS, kind="model")
    rng = np.random.default_rng(0)
    images = rng.random((4, spec.image_size, spec.image_size, spec.num_channels), np.float32)
    length = config.text_tower.length
    ends = np.maximum(length // np.arange(1, 5), 2)[:, None] - 1
    special = [getattr(spec, f"{kind}_id") for kind in _SPECIAL]
    ordinary = np.setdiff1d(np.arange(spec.vocab_size), special)
    places = np.arange(length)
    tokens = np.where(places < ends, rng.choice(ordinary, (4, length)), spec.eos_id)
    mask = (places <= ends).astype(np.int32)

    def run(model: Any) -> Any:
        where = dict(positions=jnp.asarray(places * mask), segment_ids=jnp.asarray(mask))
        sides = model(jnp.asarray(images), jnp.asarray(tokens, jnp.int32), **where)
        return *sides, model.scale() * jnp.einsum("be,ce->bc", *sides)

    tower = config.image_tower
    mean, std = (np.asarray(values, np.float32) for values in (tower.pixel_mean, tower.pixel_std))
    theirs = pair_outputs(folder, (images - mean) / std, tokens, mask)
    ours = nn.apply(run, single.model)({"params": single.params})
    names = ("images", "texts", "logits")
    return _judge({key: difference(np.asarray(a), b) for key, a, b in zip(names, ours, theirs, strict=True)}, say)


def in_float32(trained: Trained) -> Trained:
    """The same model, computing in float32 whatever it was trained in."""
    single = {"dtype": "float32", "matmul_dtype": ""}
    blocks = {
        name: {key: single.get(key, value) for key, value in trained.about[name].items()} for name in ("model", "head")
    }
    found = assemble({**trained.about, **blocks}, trained.params, trained.step)
    return dataclasses.replace(found, model_state=trained.model_state)


def outputs(trained: Trained, tokens: np.ndarray, mask: np.ndarray, types: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of every position, and what the head makes of them: logits by position or by row, or one vector a row.

    A regression's number is in its own units.
    """
    variables = {"params": trained.params}
    real = jnp.asarray(mask) > 0
    hidden, _ = trained.model.apply(
        variables,
        jnp.asarray(tokens, jnp.int32),
        positions=jnp.where(real, jnp.arange(tokens.shape[1]), 0),
        segment_ids=real.astype(jnp.int32),
        token_types=jnp.asarray(types, jnp.int32),
    )
    kind = trained.about["head"]["name"]
    if kind == "language":
        scores = vocabulary_logits(trained.model, trained.params, hidden)
        scores = scores[..., : trained.about["model"]["vocab_size"]]
    elif kind == "tagging":
        scores = trained.model.apply(variables, hidden, train=False, method="tag")
    elif kind == "spans":
        scores = trained.model.apply(variables, hidden, train=False, method="spans")
    elif kind == "classification":
        logits = cast(Array, trained.model.apply(variables, hidden, real, train=False, method="classify"))
        scores = trained.spec.target_mean + trained.spec.target_scale * logits
    else:
        scores = trained.model.apply(variables, hidden, real, method="embed")
    return np.asarray(hidden, np.float32), np.asarray(scores, np.float32)


def _judge(found: Mapping[str, float], say: Callable[[str], None]) -> int:
    for name, value in found.items():
        say(f"{name}: largest difference {value:.1e} of the largest value")
    equal = all(value <= TOLERANCE for value in found.values())  # a NaN is not
    say(f"{'equal' if equal else 'DIFFERENT'} to {TOLERANCE:.0e}")
    return 0 if equal else 1


def _write_run(workdir: Path, trained: Trained) -> None:
    with Checkpoints(workdir / "checkpoints", about=trained.about) as checkpoints:
        state = {"variables": dict(trained.model_state)} if trained.model_state else {}
        checkpoints.save(0, params=trained.params, state=state, host={}, metrics={})
    if trained.about["tokenizer"]:
        (workdir / "tokenizer.json").write_text(trained.about["tokenizer"], encoding="utf-8")
