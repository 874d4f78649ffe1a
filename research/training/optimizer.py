"""Optimizers by name: clipping, the update rule, decoupled weight decay, the rate, and multipliers per layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import numpy as np
import optax

from research.build import Block, build
from research.training import transforms
from research.training.schedules import SCHEDULES
from research.training.transforms import is_stacked, names
from research.types import Params

Rate = Callable[[Any], jax.Array]  # of the number of updates done before
ScheduleBlock = Annotated[Mapping, Block("schedule", SCHEDULES)]
_COSINE: Mapping[str, Any] = {"name": "cosine"}


@dataclass(frozen=True)
class Optimizer:
    """`schedule` is the learning rate by step; `transform` makes the transformation for a tree of parameters."""

    schedule: Rate
    rule: optax.GradientTransformation  # everything between clipping and multipliers
    clip_norm: float
    check: Callable[[Params], None]

    def transform(self, params: Params, multipliers: Any = None) -> optax.GradientTransformation:
        """The whole chain; `params` may be abstract.

        `multipliers` is a tree like `params` of floats, or of arrays that broadcast over the layer axis. They come
        last, so that they scale decay too; a leaf or layer with a multiplier of 0 keeps every bit and has no part in
        the clipping norm. Moments are float32 whatever the parameters are.

        Raises:
          ValueError: the rule does not suit these parameters.
        """
        self.check(params)
        chain = [optax.clip_by_global_norm(self.clip_norm)] if self.clip_norm else []
        chain.append(self.rule)
        if multipliers is not None:
            chain = [transforms.select(multipliers), *chain, transforms.multiply(multipliers)]
        return transforms.in_float32(optax.chain(*chain))


def adamw(
    *,
    peak_rate: float,
    num_steps: int,
    schedule: ScheduleBlock = _COSINE,
    weight_decay: float = 0.01,
    decay_embeddings: bool = False,
    clip_norm: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> Optimizer:
    """Adam with decoupled weight decay, multiplied by the rate (Loshchilov and Hutter 2019; PyTorch's convention)."""
    rate = _rate(peak_rate, num_steps, schedule)
    rule = _decayed(optax.scale_by_adam(beta1, beta2, epsilon), rate, weight_decay, decay_embeddings)
    return _optimizer(rate, rule, clip_norm)


def adam(
    *,
    peak_rate: float,
    num_steps: int,
    schedule: ScheduleBlock = _COSINE,
    clip_norm: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> Optimizer:
    """Adam (Kingma and Ba 2015), without decay."""
    rate = _rate(peak_rate, num_steps, schedule)
    return _optimizer(rate, _decayed(optax.scale_by_adam(beta1, beta2, epsilon), rate, 0.0, False), clip_norm)


def sgd(
    *,
    peak_rate: float,
    num_steps: int,
    schedule: ScheduleBlock = _COSINE,
    weight_decay: float = 0.0,
    decay_embeddings: bool = False,
    clip_norm: float = 1.0,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> Optimizer:
    """Gradient descent with momentum (0: none); the decay does not enter the momentum."""
    rate = _rate(peak_rate, num_steps, schedule)
    scaled = optax.trace(momentum, nesterov) if momentum else optax.identity()
    return _optimizer(rate, _decayed(scaled, rate, weight_decay, decay_embeddings), clip_norm)


def lamb(
    *,
    peak_rate: float,
    num_steps: int,
    schedule: ScheduleBlock = _COSINE,
    weight_decay: float = 0.01,
    decay_embeddings: bool = False,
    clip_norm: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-6,
) -> Optimizer:
    """Adam with a trust ratio for every parameter of every layer (You et al. 2020)."""
    rate = _rate(peak_rate, num_steps, schedule)
    rule = optax.chain(
        optax.scale_by_adam(beta1, beta2, epsilon),
        _decay(weight_decay, decay_embeddings),
        transforms.scale_by_trust_ratio(),
        optax.scale_by_learning_rate(rate),
    )
    return _optimizer(rate, rule, clip_norm)


def adafactor(
    *,
    peak_rate: float,
    num_steps: int,
    schedule: ScheduleBlock = _COSINE,
    weight_decay: float = 0.0,
    decay_embeddings: bool = False,
    clip_norm: float = 1.0,
    decay_rate: float = 0.8,
    update_clip: float = 1.0,
    multiply_by_parameter_scale: bool = True,
    min_dim_size_to_factor: int = 128,
) -> Optimizer:
    """Adafactor (Shazeer and Stern 2018), without momentum; each layer has factors and a scale of its own.

    With `multiply_by_parameter_scale` the rate is relative to each parameter's RMS: peaks near 1e-2 suit it.
    """
    rate = _rate(peak_rate, num_steps, schedule)
    parts = [
        transforms.scale_by_factored_rms(decay_rate=decay_rate, min_dim_size_to_factor=min_dim_size_to_factor),
        transforms.clip_by_rms(update_clip),
    ]
    if multiply_by_parameter_scale:
        parts.append(transforms.scale_by_parameter_rms())
    return _optimizer(rate, _decayed(optax.chain(*parts), rate, weight_decay, decay_embeddings), clip_norm)


def muon(
    *,
    peak_rate: float,
    num_steps: int,
    adam_rate: float = 1e-3,
    schedule: ScheduleBlock = _COSINE,
    weight_decay: float = 0.01,
    decay_embeddings: bool = False,
    clip_norm: float = 1.0,
    momentum: float = 0.95,
    nesterov: bool = True,
    num_iterations: int = 5,
    rms: float = 0.2,
    beta1: float = 0.9,
    beta2: float = 0.95,
    epsilon: float = 1e-8,
    matmul_dtype: Literal["", "bfloat16"] = "",
) -> Optimizer:
    """Muon (Jordan et al. 2024) for the kernels under "layers"; AdamW with the peak `adam_rate` for all else.

    `rms` is the size of an update before the rate (see `scale_by_muon`). Both rates follow the one schedule. The page's
    `matmul_dtype` is that of the orthogonalisation's products too.
    """
    rate = _rate(peak_rate, num_steps, schedule)
    orthogonal = transforms.scale_by_muon(
        momentum=momentum, nesterov=nesterov, num_iterations=num_iterations, rms=rms, matmul_dtype=matmul_dtype
    )
    adam_scaled = optax.scale_by_adam(beta1, beta2, epsilon)
    rules: dict[Any, optax.GradientTransformation] = {
        "muon": _decayed(orthogonal, rate, weight_decay, decay_embeddings),
        "adam": _decayed(adam_scaled, _rate(adam_rate, num_steps, schedule), weight_decay, decay_embeddings),
    }
    return _optimizer(rate, optax.partition(rules, _muon_labels), clip_norm, _check_muon)


OPTIMIZERS = {"adamw": adamw, "adam": adam, "sgd": sgd, "lamb": lamb, "adafactor": adafactor, "muon": muon}


def layer_multipliers(params: Params, *, freeze_backbone: bool, freeze_layers: int, layer_decay: float) -> Any:
    """A tree of multipliers for finetuning, 1 for everything outside "backbone".

    Layer i of n has layer_decay^(n - i), what lies below the layers (embeddings, stem) layer_decay^(n + 1), the norm
    above them 1 (Howard and Ruder 2018; BEiT's convention). The first `freeze_layers` layers have 0 and, if there are
    any, what lies below them too; `freeze_backbone` gives all of the backbone 0. Leaves are floats, or arrays
    [layers 1 …] for stacked parameters.

    Raises:
      ValueError: more layers to freeze than there are, or a decay outside (0, 1].
    """
    depths = {leaf.shape[0] for path, leaf in jax.tree.leaves_with_path(params["backbone"]) if is_stacked(path)}
    depth = max(depths, default=0)
    if not 0 <= freeze_layers <= depth:
        raise ValueError(f"freeze_layers={freeze_layers}; the backbone has {depth} layers, use 0 to {depth}")
    if not 0.0 < layer_decay <= 1.0:
        raise ValueError(f"layer_decay={layer_decay}; wanted a factor above 0 and at most 1, such as 0.8")

    def multiplier(path: Any, leaf: Any) -> float | np.ndarray:
        keys = names(path)
        if keys[0] != "backbone":
            return 1.0
        if freeze_backbone:
            return 0.0
        if is_stacked(path):
            index = np.arange(leaf.shape[0], dtype=np.float32)
            values = np.where(index < freeze_layers, 0.0, layer_decay ** (leaf.shape[0] - index))
            return values.astype(np.float32).reshape(-1, *[1] * (len(leaf.shape) - 1))
        if keys[1] == "final_norm":
            return 1.0
        return 0.0 if freeze_layers else layer_decay ** (depth + 1)

    return jax.tree.map_with_path(multiplier, params)


def state_shardings(opt_state: Any, params: Any, shardings: Any, default: Any) -> Any:
    """A sharding for every leaf of the optimizer state: that of the parameter whose path ends its own, else `default`.

    Works on shapes alone (`jax.eval_shape(transform.init, params)`); the shapes must agree too, so that factored
    moments, counters and placeholders take the default.
    """
    leaves = jax.tree.leaves_with_path(params)
    known = {
        names(path): (leaf.shape, sharding)
        for (path, leaf), sharding in zip(leaves, jax.tree.leaves(shardings), strict=True)
    }

    def find(path: Any, leaf: Any) -> Any:
        keys = names(path)
        for start in range(len(keys)):  # the longest suffix first
            shape, sharding = known.get(keys[start:], (None, default))
            if shape == leaf.shape:
                return sharding
        return default

    return jax.tree.map_with_path(find, opt_state)


def _rate(peak_rate: float, num_steps: int, schedule: Mapping[str, Any]) -> Rate:
    share = build(schedule, SCHEDULES, kind="schedule")
    share(0, num_steps=num_steps)  # a warmup that does not fit is an error now, not under jit
    return lambda step: peak_rate * share(step, num_steps=num_steps)


def _optimizer(
    rate: Rate,
    rule: optax.GradientTransformation,
    clip_norm: float,
    check: Callable[[Params], None] = lambda params: None,
) -> Optimizer:
    if clip_norm < 0.0:
        raise ValueError(f"clip_norm={clip_norm}; wanted a positive norm, or 0 for no clipping")
    return Optimizer(rate, rule, clip_norm, check)


def _decayed(
    scaled: optax.GradientTransformation, rate: Rate, weight_decay: float, decay_embeddings: bool
) -> optax.GradientTransformation:
    return optax.chain(scaled, _decay(weight_decay, decay_embeddings), optax.scale_by_learning_rate(rate))


def _decay(weight_decay: float, decay_embeddings: bool) -> optax.GradientTransformation:
    """Decay of kernels (and embeddings), never of scales and biases."""
    decayed = ("kernel", "embedding") if decay_embeddings else ("kernel",)

    def mask(params: Any) -> Any:
        return jax.tree.map_with_path(lambda path, leaf: names(path)[-1] in decayed, params)

    return optax.add_decayed_weights(weight_decay, mask) if weight_decay else optax.identity()


def _muon_labels(params: Any) -> Any:
    def label(path: Any, leaf: Any) -> str:
        return "muon" if is_stacked(path) and names(path)[-1] == "kernel" else "adam"

    return jax.tree.map_with_path(label, params)


def _check_muon(params: Params) -> None:
    if "muon" not in jax.tree.leaves(_muon_labels(params)):
        raise ValueError('muon needs kernels under "layers" and this model has none; use adamw')
