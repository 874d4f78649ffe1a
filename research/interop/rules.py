"""How another library's tensors become ours, and ours theirs: one invertible rule a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research.models.layers import padded_vocabulary

Array = np.ndarray
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """One of their tensors and the leaves of ours that it holds.

    `{i}` in `theirs` stands for the layer's number; our leaves then have the layers as their first axis: `depth` of
    them, where a model has stacks of different depths, else as many as the caller says. `take` gives
    our leaves from their tensor, in the order of `ours`, and `give` is its inverse. `collection` is what the leaves are
    of: params, or state such as batch_stats.
    """

    theirs: str
    ours: tuple[str, ...]  # "backbone/embed/embedding"
    shape: Shape  # of their tensor
    take: Callable[[Array], Sequence[Array]]
    give: Callable[..., Array]
    collection: str = "params"
    depth: int = 0

    @property
    def layered(self) -> bool:
        return "{i}" in self.theirs

    def names(self, depth: int) -> list[str]:
        return [self.theirs.format(i=i) for i in range(self.depth or depth)] if self.layered else [self.theirs]


def same(theirs: str, ours: str, *shape: int, collection: str = "params") -> Rule:
    """The same array on both sides, but for the shape of it that we keep."""
    return Rule(theirs, (ours,), shape, lambda array: (array,), lambda array: array.reshape(shape), collection)


def linear(
    theirs: str, ours: str, inputs: Shape, outputs: Shape, *, bias: bool = True, transposed: bool = True
) -> list[Rule]:
    """A linear map: their weight [out in], or [in out] where not `transposed`, is our kernel [*inputs, *outputs]."""
    rows, columns = math.prod(inputs), math.prod(outputs)
    turn: Callable[[Array], Array] = (lambda array: array.T) if transposed else (lambda array: array)
    rules = [
        Rule(
            f"{theirs}.weight",
            (f"{ours}/kernel",),
            (columns, rows) if transposed else (rows, columns),
            lambda array: (turn(array).reshape(*inputs, *outputs),),
            lambda array: turn(array.reshape(rows, columns)),
        )
    ]
    if bias:
        rules.append(
            Rule(
                f"{theirs}.bias",
                (f"{ours}/bias",),
                (columns,),
                lambda array: (array.reshape(outputs),),
                lambda array: array.reshape(columns),
            )
        )
    return rules


def norm(theirs: str, ours: str, width: int, *, bias: bool = True) -> list[Rule]:
    rules = [same(f"{theirs}.weight", f"{ours}/scale", width)]
    return [*rules, same(f"{theirs}.bias", f"{ours}/bias", width)] if bias else rules


def reshaped(theirs: str, ours: str, shape: Shape, our_shape: Shape) -> Rule:
    """The same values in the same order."""
    return Rule(theirs, (ours,), shape, lambda array: (array.reshape(our_shape),), lambda array: array.reshape(shape))


def convolution(theirs: str, ours: str, size: int, inputs: int, outputs: int, *, bias: bool = False) -> list[Rule]:
    """A convolution: their weight [out in y x] is our kernel [y x in out]."""
    rules = [
        Rule(
            f"{theirs}.weight",
            (f"{ours}/kernel",),
            (outputs, inputs, size, size),
            lambda array: (array.transpose(2, 3, 1, 0),),
            lambda array: array.transpose(3, 2, 0, 1),
        )
    ]
    return [*rules, same(f"{theirs}.bias", f"{ours}/bias", outputs)] if bias else rules


def batch_norm(theirs: str, ours: str, width: int) -> list[Rule]:
    """A norm with running statistics; torch's count of batches says nothing here and is 0 on the way out."""
    statistics = [
        same(f"{theirs}.running_{name}", f"{ours}/{name}", width, collection="batch_stats") for name in ("mean", "var")
    ]
    count = Rule(f"{theirs}.num_batches_tracked", (), (), lambda array: (), lambda: np.zeros((), np.int64))
    return [*norm(theirs, ours, width), *statistics, count]


def vocabulary(theirs: str, ours: str, vocab_size: int, *rest: int) -> Rule:
    """A table (or bias) with a row a token, which we pad with zeros to a multiple of 128 rows."""
    padding = [(0, padded_vocabulary(vocab_size) - vocab_size)] + [(0, 0)] * len(rest)
    return Rule(
        theirs,
        (ours,),
        (vocab_size, *rest),
        lambda array: (np.pad(array, padding),),
        lambda array: array[:vocab_size],
    )


def offset_table(theirs: str, ours: str, num_rows: int, width: int, *, offset: int) -> Rule:
    """A table whose first `offset` rows nothing looks up (RoBERTa counts positions from 2); we have the others."""
    return Rule(
        theirs,
        (ours,),
        (num_rows + offset, width),
        lambda array: (array[offset:],),
        lambda array: np.pad(array, [(offset, 0), (0, 0)]),
    )


def take_all(tensors: Mapping[str, Array], rules: Iterable[Rule], *, depth: int, where: str) -> dict[str, Any]:
    """Our parameters, of rules that have no other leaves. Raises as `take_variables`."""
    return take_variables(tensors, rules, depth=depth, where=where)["params"]


def give_all(params: Mapping[str, Any], rules: Iterable[Rule], *, depth: int) -> dict[str, Array]:
    """Their tensors from our parameters, of rules that have no other leaves."""
    return give_variables({"params": params}, rules, depth=depth)


def take_variables(
    tensors: Mapping[str, Array], rules: Iterable[Rule], *, depth: int, where: str
) -> dict[str, dict[str, Any]]:
    """Our variables by collection, each as nested dicts, from their tensors; `depth` is the number of `{i}`s.

    Raises:
      ValueError: tensors that are missing, extra or of another shape; all are listed.
    """
    rules = list(rules)
    wanted = {name: rule.shape for rule in rules for name in rule.names(depth)}
    problems = [f"missing {name} {list(shape)}" for name, shape in wanted.items() if name not in tensors]
    problems += [f"extra {name} {list(array.shape)}" for name, array in tensors.items() if name not in wanted]
    problems += [
        f"{name} is {list(tensors[name].shape)}, wanted {list(shape)}"
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if problems:
        raise ValueError(f"{where}: the tensors do not fit config.json ({'; '.join(sorted(problems))})")
    variables: dict[str, dict[str, Any]] = {}
    for rule in rules:
        taken = [rule.take(tensors[name]) for name in rule.names(depth)]
        for number, leaf in enumerate(rule.ours):
            parts = [part[number] for part in taken]
            whole = np.stack(parts) if rule.layered else np.asarray(parts[0], order="C")
            _put(variables.setdefault(rule.collection, {}), leaf, whole)
    return variables


def give_variables(variables: Mapping[str, Any], rules: Iterable[Rule], *, depth: int) -> dict[str, Array]:
    """Their tensors from our variables."""
    tensors = {}
    for rule in rules:
        leaves = [np.asarray(_get(variables[rule.collection], leaf)) for leaf in rule.ours]
        for i, name in enumerate(rule.names(depth)):
            tensors[name] = rule.give(*(leaf[i] if rule.layered else leaf for leaf in leaves))
    return tensors


def _put(tree: dict[str, Any], path: str, leaf: Array) -> None:
    *parents, last = path.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = leaf


def _get(tree: Mapping[str, Any], path: str) -> Any:
    found: Any = tree
    for part in path.split("/"):
        found = found[part]
    return found
