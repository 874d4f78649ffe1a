"""How XLA's partitioner places the result of an operation, by simple rules, and what it must move for that.

The rules are those of GSPMD (Xu et al. 2021) as far as this project's models need them: a dimension stays divided
where it passes through; a parameter is gathered where the batch is divided over the same axis (ZeRO-3); a sum over a
divided dimension is reduced, and scattered where the result has the shape of a divided parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from research.planning.values import Axes, Value, from_spec, no_axes, reshaped, used, without_repeats

SAME_SHAPE = frozenset({"convert_element_type", "stop_gradient", "copy", "copy_p", "optimization_barrier", "rev"})


@dataclass
class Placed:
    """Axes of the results; operands to gather, each with over which axes; sums to reduce."""

    axes: list[Axes]
    gathers: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    reduces: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)  # kind and axes, of the first result
    flops: float = 0.0  # on one device


@dataclass(frozen=True)
class Rules:
    """The mesh's sizes, and how parameters of known shapes are divided (for gradients, which lie as they do).

    Without `scatters` (XLA on CPU) a gradient is summed whole on every device, and cut afterwards.
    """

    sizes: Mapping[str, int]
    parameters: Mapping[tuple[int, ...], Axes]
    scatters: bool = True

    def parts(self, axes: Sequence[str]) -> int:
        return math.prod(self.sizes[axis] for axis in axes)

    def place(self, name: str, params: Mapping[str, Any], inputs: Sequence[Value], shapes: Sequence[Any]) -> Placed:
        """Placement of the results, of `shapes`, of an operation that has no body of its own."""
        rule = _RULES.get(name)
        if rule is not None:
            return rule(self, params, inputs, shapes)
        if name.startswith(("reduce_", "arg")) and "axes" in params:
            return self._reduction(params, inputs, shapes)
        if name.startswith("scatter"):
            return self._scatter(params, inputs, shapes)
        return self._elementwise(inputs, shapes)

    def _elementwise(self, inputs: Sequence[Value], shapes: Sequence[tuple[int, ...]]) -> Placed:
        """Results lie as the operands of their shape do; a parameter that lies otherwise than the rest is gathered."""
        placed = Placed([])
        for shape in shapes:
            fitting = [value for value in inputs if value.shape == shape]
            activations = [value for value in fitting if not value.weight]
            axes = self._merged(activations or fitting, len(shape))
            if not fitting:
                axes = self._by_size(inputs, shape)
            for value in activations:  # what was made here (noise, masks) lies as what it meets
                if not used(value.axes) and not value.weight:
                    value.axes = axes
            for index, value in enumerate(inputs):
                if value.weight and activations and value.shape == shape:
                    differing = tuple(sorted(used(value.axes) - used(axes)))
                    if differing:
                        placed.gathers.append((index, differing))
            placed.axes.append(axes)
        return placed

    def _merged(self, values: Sequence[Value], rank: int) -> Axes:
        result: list[tuple[str, ...]] = [()] * rank
        for place in range(rank):
            result[place] = next((value.axes[place] for value in values if value.axes[place]), ())
        return without_repeats(result)

    def _by_size(self, inputs: Sequence[Value], shape: tuple[int, ...]) -> Axes:
        """For operations without a rule: a dimension lies as the first one of an operand of its size."""
        result = []
        for size in shape:
            found = (
                axes
                for value in inputs
                for length, axes in zip(value.shape, value.axes, strict=True)
                if length == size and axes and size > 1
            )
            result.append(next(found, ()))
        return without_repeats(result)

    def _reduction(self, params: Mapping[str, Any], inputs: Sequence[Value], shapes: Sequence[Any]) -> Placed:
        dropped = set(params["axes"])
        axes = tuple(each for place, each in enumerate(inputs[0].axes) if place not in dropped)
        lost = tuple(axis for place in sorted(dropped) for axis in inputs[0].axes[place])
        return Placed([axes] * len(shapes), reduces=self._reduced(shapes[0], axes, lost)[1] if lost else [])

    def _reduced(
        self, shape: tuple[int, ...], axes: Axes, lost: Sequence[str]
    ) -> tuple[Axes, list[tuple[str, tuple[str, ...]]]]:
        """A sum over dimensions that `lost` axes divide: scattered where it is a divided parameter's gradient."""
        lost = tuple(axis for axis in lost if axis not in used(axes))
        wanted = self.gradient_axes(shape)
        scattered = tuple(axis for axis in lost if axis in used(wanted) and self.scatters)
        whole = tuple(axis for axis in lost if axis not in scattered)
        if scattered:
            axes = without_repeats([have or want for have, want in zip(axes, wanted, strict=True)])
        reduces = [("reduce-scatter", scattered)] if scattered else []
        return axes, reduces + ([("all-reduce", whole)] if whole else [])

    def is_gradient(self, shape: tuple[int, ...]) -> bool:
        """Whether a parameter is of this shape, its dimensions in any order."""
        return tuple(sorted(shape)) in self.parameters

    def gradient_axes(self, shape: tuple[int, ...]) -> Axes:
        """How a parameter of this shape lies, in any order of its dimensions; undivided where there is none."""
        if not self.is_gradient(shape):
            return no_axes(shape)
        key = tuple(sorted(shape))
        left = list(zip(key, self.parameters[key], strict=True))
        result = []
        for size in shape:
            place = next(index for index, (length, _) in enumerate(left) if length == size)
            result.append(left.pop(place)[1])
        return tuple(result)

    def _dot(self, params: Mapping[str, Any], inputs: Sequence[Value], shapes: Sequence[Any]) -> Placed:
        (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
        left, right = inputs[:2]
        summed = ((left, left_sum), (right, right_sum))
        # The weight gives way; else the smaller of the two.
        order = [1, 0] if right.weight or (not left.weight and _count(right) <= _count(left)) else [0, 1]
        moved, kept = order
        own = [(left_batch, left_sum), (right_batch, right_sum)]
        values = [left, right]
        gathered: set[str] = set()
        kept_free = {axis for place, axes in enumerate(values[kept].axes) if place not in own[kept][1] for axis in axes}
        kept_summed = [values[kept].axes[place] for place in own[kept][1]]
        for place, axes in enumerate(values[moved].axes):
            if place in own[moved][1]:
                partner = kept_summed[list(own[moved][1]).index(place)]
                gathered |= {axis for axis in axes if axis not in partner}
            elif place not in own[moved][0]:
                gathered |= set(axes) & kept_free
        lost = [axis for value, places in summed for place in places for axis in value.axes[place]]
        lost = [axis for axis in dict.fromkeys(lost) if axis not in gathered]
        pieces = [left.axes[place] or right.axes[other] for place, other in zip(left_batch, right_batch, strict=True)]
        for value, places in ((left, (*left_batch, *left_sum)), (right, (*right_batch, *right_sum))):
            drop = gathered if value is values[moved] else set()
            free = [axes for place, axes in enumerate(value.axes) if place not in places]
            pieces += [tuple(axis for axis in axes if axis not in drop) for axes in free]
        axes = without_repeats(pieces)
        width = math.prod(left.shape[place] for place in left_sum)
        divided = self.parts([*used(axes), *(axis for axis in lost if axis not in used(axes))])
        flops = 2.0 * math.prod(shapes[0]) * width / divided
        axes, reduces = self._reduced(shapes[0], axes, lost)
        placed = Placed([axes], reduces=reduces, flops=flops)
        if gathered:
            placed.gathers.append((moved, tuple(sorted(gathered))))
        return placed

    def _convolution(self, params: Mapping[str, Any], inputs: Sequence[Value], shapes: Sequence[Any]) -> Placed:
        numbers = params["dimension_numbers"]
        left, right = inputs
        result: list[tuple[str, ...]] = [()] * len(shapes[0])
        result[numbers.out_spec[0]] = left.axes[numbers.lhs_spec[0]]
        lost = left.axes[numbers.lhs_spec[1]]
        gathered = tuple(sorted(used(right.axes) - set(lost))) if right.weight else ()
        width = math.prod(right.shape) / right.shape[numbers.rhs_spec[0]]
        axes = without_repeats(result)
        flops = 2.0 * math.prod(shapes[0]) * width / self.parts([*used(axes), *lost])
        axes, reduces = self._reduced(shapes[0], axes, lost)
        return Placed([axes], [(1, gathered)] if gathered else [], reduces, flops)

    def _gather(self, params: Mapping[str, Any], inputs: Sequence[Value], shapes: Sequence[Any]) -> Placed:
        numbers = params["dimension_numbers"]
        operand, indices = inputs[:2]
        window = [
            axes
            for place, axes in enumerate(operand.axes)
            if place not in numbers.collapsed_slice_dims and place not in numbers.operand_batching_dims
        ]
        outer, windows = iter(indices.axes[:-1]), iter(window)
        axes = without_repeats(
            [next(windows, ()) if place in numbers.offset_dims else next(outer, ()) for place in range(len(shapes[0]))]
        )
        looked_up = tuple(axis for place in numbers.collapsed_slice_dims for axis in operand.axes[place])
        conflict = tuple(sorted(used(operand.axes) - used(axes) - set(looked_up))) if operand.weight else ()
        kept = tuple(axis for axis in looked_up if axis not in used(axes))
        return Placed([axes], [(0, conflict)] if conflict else [], [("all-reduce", kept)] if kept else [])

    def _scatter(self, params: Mapping[str, Any], inputs: Sequence[Value], shapes: Sequence[Any]) -> Placed:
        numbers = params["dimension_numbers"]
        operand, indices, updates = inputs[0], inputs[1], inputs[-1]
        if numbers.operand_batching_dims:
            axes = self._by_size([operand, updates], shapes[0])
            return Placed([axes])
        lost = tuple(sorted(used(indices.axes) | used(updates.axes)))
        axes, reduces = self._reduced(shapes[0], operand.axes, lost)
        return Placed([axes], reduces=reduces)

    def _constraint(self, params: Mapping[str, Any], inputs: Sequence[Value], shapes: Sequence[Any]) -> Placed:
        value = inputs[0]
        axes = from_spec(params["sharding"].spec, len(value.shape), self.sizes)
        if not value.weight and not used(value.axes):
            value.axes = axes  # what was made here is made where it is wanted
        gone = tuple(sorted(used(value.axes) - used(axes)))
        return Placed([axes], [(0, gone)] if gone else [])

    def _reshape(self, params: Mapping[str, Any], inputs: Sequence[Value], shapes: Sequence[Any]) -> Placed:
        return Placed([reshaped(inputs[0].shape, inputs[0].axes, shapes[0])])

    def _transpose(self, params: Mapping[str, Any], inputs: Sequence[Value], shapes: Sequence[Any]) -> Placed:
        return Placed([tuple(inputs[0].axes[place] for place in params["permutation"])])

    def _broadcast(self, params: Mapping[str, Any], inputs: Sequence[Value], shapes: Sequence[Any]) -> Placed:
        result: list[tuple[str, ...]] = [()] * len(shapes[0])
        for place, target in enumerate(params["broadcast_dimensions"]):
            if inputs[0].shape[place] == shapes[0][target]:
                result[target] = inputs[0].axes[place]
        return Placed([tuple(result)])

    def _squeeze(self, params: Mapping[str, Any], inputs: Sequence[Value], shapes: Sequence[Any]) -> Placed:
        dropped = {place % len(inputs[0].shape) for place in params["dimensions"]}
        return Placed([tuple(axes for place, axes in enumerate(inputs[0].axes) if place not in dropped)])

    def _same_rank(self, params: Mapping[str, Any], inputs: Sequence[Value], shapes: Sequence[Any]) -> Placed:
        """Slices, padding, concatenations: dimensions keep what divides them."""
        arrays = [value for value in inputs if len(value.shape) == len(shapes[0])]
        return Placed([self._merged(arrays, len(shape)) for shape in shapes])


def _count(value: Value) -> int:
    return math.prod(value.shape)


_RULES: dict[str, Any] = {
    "dot_general": Rules._dot,
    "conv_general_dilated": Rules._convolution,
    "gather": Rules._gather,
    "sharding_constraint": Rules._constraint,
    "reshape": Rules._reshape,
    "transpose": Rules._transpose,
    "broadcast_in_dim": Rules._broadcast,
    "squeeze": Rules._squeeze,
    **dict.fromkeys(
        ("slice", "pad", "concatenate", "dynamic_slice", "dynamic_update_slice", "split"), Rules._same_rank
    ),
}
