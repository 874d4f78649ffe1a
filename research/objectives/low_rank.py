"""LoRA: any objective with its backbone frozen, and low-rank updates of chosen kernels trained in its place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.types import Batch, Features, Keys, Loss, Objective, Params, Variables

# The kernels of a transformer's layers, and how many axes behind that of the layers are inputs.
KERNELS = {
    "attention/query": 1,
    "attention/key": 1,
    "attention/value": 1,
    "attention/out": 2,
    "mlp/up": 1,
    "mlp/gate": 1,
    "mlp/down": 1,
}


@dataclass(frozen=True)
class LowRank:
    """W + (alpha / rank) · A B in the place of each target kernel W (Hu et al. 2021, equation 3).

    `params` hold the adapters and the objective's head, `frozen` the backbone. A is normal with variance 1 / inputs, B
    is zero: training starts from the model that was given. `targets` are names of `KERNELS`, whole or their last part.

    Raises:
      ValueError: an unknown target, or a rank below 1.
    """

    objective: Objective
    rank: int
    alpha: float
    targets: Sequence[str]

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"tuning.lora_rank={self.rank}: wanted 1 or more")
        for target in self.targets:
            if not _matching(target):
                last = [name.split("/")[1] for name in KERNELS]
                raise ValueError(f"tuning.lora_targets: no kernel {target!r}; there are {', '.join(last)}")

    @property
    def couples_examples(self) -> bool:
        return self.objective.couples_examples

    @property
    def model(self) -> Any:
        return cast(Any, self.objective).model

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        made = self.objective.init(rng, batch)
        if len(made) > 1:
            beside = ", ".join(sorted(made.keys() - {"params"}))
            raise ValueError(f"tuning.lora_rank adapts parameters, and this objective has {beside} too; set it to 0")
        params = made["params"]
        backbone = params["backbone"]
        if "layers" not in backbone or not set(KERNELS) & set(_kernels(nn.meta.unbox(backbone))):
            raise ValueError("LoRA adapts the kernels of a transformer's layers, and this model has none of them")
        adapters = {}
        for index, name in enumerate(self._chosen(nn.meta.unbox(backbone))):
            box = _kernels(backbone)[name]
            adapters[name.replace("/", "_")] = self._draw(jax.random.fold_in(rng, index), name, box)
        return {
            "params": {"adapters": adapters, **{key: tree for key, tree in params.items() if key != "backbone"}},
            "frozen": {"backbone": backbone},
        }

    def merged(self, variables: Variables) -> Params:
        """Plain parameters of the model: the backbone with the adapters added, and the head."""
        params = variables["params"]
        adapters = params["adapters"]
        backbone = variables["frozen"]["backbone"]
        layers = {name: dict(part) if isinstance(part, Mapping) else part for name, part in backbone["layers"].items()}
        for name in KERNELS:
            adapter = adapters.get(name.replace("/", "_"))
            if adapter is None:
                continue
            room, kernel = name.split("/")
            leaf = layers[room][kernel]["kernel"]
            product = jnp.einsum("lir,lro->lio", adapter["a"], adapter["b"]) * (self.alpha / self.rank)
            added = leaf + product.reshape(leaf.shape).astype(leaf.dtype)
            layers[room] = {**layers[room], kernel: {**layers[room][kernel], "kernel": added}}
        rest = {key: tree for key, tree in params.items() if key != "adapters"}
        return {"backbone": {**backbone, "layers": layers}, **rest}

    def loss(self, variables: Variables, batch: Batch, *, rng: Keys, step: jax.Array, train: bool) -> Loss:
        return self.objective.loss({"params": self.merged(variables)}, batch, rng=rng, step=step, train=train)

    def outputs(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        outputs = getattr(self.objective, "outputs", None)
        return {} if outputs is None else outputs({"params": self.merged(variables)}, batch)

    def features(self, variables: Variables, batch: Batch) -> Features:
        return self.objective.features({"params": self.merged(variables)}, batch)

    def _chosen(self, backbone: Params) -> list[str]:
        found = _kernels(backbone)
        wanted = {name for target in self.targets for name in _matching(target)}
        return [name for name in KERNELS if name in wanted and name in found]

    def _draw(self, rng: jax.Array, name: str, box: Any) -> dict[str, Any]:
        """A [layers, inputs, rank] and B [layers, rank, outputs]; the rank is whole on every device."""
        leaf = nn.meta.unbox(box)
        num_layers, inputs = leaf.shape[0], math.prod(leaf.shape[1 : 1 + KERNELS[name]])
        outputs = math.prod(leaf.shape[1 + KERNELS[name] :])
        first = jax.random.normal(rng, (num_layers, inputs, self.rank), leaf.dtype) * inputs**-0.5
        second = jnp.zeros((num_layers, self.rank, outputs), leaf.dtype)
        return {"a": _named(first), "b": _named(second)}


def _named(leaf: jax.Array) -> Any:
    return nn.LogicallyPartitioned(leaf, names=("layers", None, None))


def _matching(target: str) -> list[str]:
    return [name for name in KERNELS if target in (name, name.split("/")[1])]


def _kernels(backbone: Params) -> dict[str, Any]:
    """The kernels of the layers by name."""
    found = {}
    for name in KERNELS:
        room, kernel = name.split("/")
        if kernel in backbone["layers"].get(room, {}):
            found[name] = backbone["layers"][room][kernel]["kernel"]
    return found
