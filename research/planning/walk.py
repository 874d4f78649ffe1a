"""A traced step, walked once: operations, memory traffic, what is sent, and the most memory that is held at a time.

XLA's compiler is imitated by three rules. What is computed element by element is fused into what reads it and is in no
memory, unless a matrix product, a loop or several readers of something costly read it. Buffers live from where they are
written to where they are last read. A loop's body needs its memory once, and does its work as often as the loop runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from research.planning.kernels import kernel_flops
from research.planning.placement import SAME_SHAPE, Rules
from research.planning.values import Axes, Cost, Value, from_spec, no_axes, sent_bytes, used

_CALLS = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "remat",
    "remat2",
    "checkpoint",
}
_VIEWS = SAME_SHAPE | {"reshape", "squeeze", "broadcast_in_dim", "transpose", "slice", "sharding_constraint", "iota"}
_COSTLY = {"exp", "log", "log1p", "tanh", "erf", "erf_inv", "logistic", "pow", "sin", "cos", "div", "cbrt"}
_COSTLY |= {"random_bits", "threefry2x32", "random_fold_in"}
_HEAVY = {"dot_general", "conv_general_dilated", "gather", "sort", "scan", "while", "cond", "shard_map", "pallas_call"}
_HEAVY |= {"dynamic_update_slice", "top_k", "rng_bit_generator", "cumsum", "cumlogsumexp", "cummax", "custom_call"}
_IN_PLACE = {"dynamic_update_slice", "scan", "while"}
_MANUAL = {"psum": "all-reduce", "psum_invariant": "all-reduce", "all_gather": "all-gather"}
_MANUAL |= {"reduce_scatter": "reduce-scatter", "psum_scatter": "reduce-scatter", "ppermute": "collective-permute"}
_MANUAL |= {"all_to_all": "all-to-all", "pmax": "all-reduce", "pmin": "all-reduce"}


_KNOWN_BYTES = 1 << 20
_ROW = 128


@dataclass
class _Op:
    """One operation with all calls around it opened, or a loop."""

    name: str
    params: Mapping[str, Any]
    inputs: list[Value]
    outputs: list[Value]
    gathers: list[tuple[Value, float]] = field(default_factory=list)  # what is gathered, and its bytes then
    inner: float = 0.0  # memory that a body needs
    summed: float = 0.0  # bytes of a gradient that devices sum in a copy of its own
    rows: Sequence[Value] = ()  # inputs that a loop reads a row at a time, until it ends
    largest: list[tuple[float, str]] = field(default_factory=list)
    where: str = ""


class Walk:
    """Walks jaxprs for a mesh: `rules` place values, `platform` chooses among branches by platform."""

    def __init__(self, rules: Rules, platform: str) -> None:
        self.rules, self.sizes, self.platform = rules, rules.sizes, platform
        self.channels: set[int] = set()  # of convolutions

    def program(self, jaxpr: Any, axes: Sequence[Axes], weights: Sequence[bool]) -> Cost:
        """The cost of a whole step with donated state. `axes` lay out its inputs, `weights` tell parameters among them.

        The peak does not count inputs, nor outputs, which take the place of inputs.
        """
        # What nothing reads is not computed: accumulation sums weights of losses in a pass that needs no model.
        body, _ = dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars), instantiate=True)
        inputs = [
            _value(variable.aval, each, weight=weight, origin="input")
            for variable, each, weight in zip(body.invars, axes, weights, strict=True)
        ]
        cost = self._body(body, _constants(jaxpr), inputs, donated=True)[0]
        cost.traffic += 2.0 * sum(value.local_bytes(self.sizes) for value in inputs)
        return cost

    def _body(
        self, jaxpr: Any, constants: Sequence[Value], inputs: Sequence[Value], *, donated: bool = False, sliced: int = 0
    ) -> tuple[Cost, list[Value]]:
        """The cost of a body and its results; the last `sliced` inputs are cut out of larger arrays in each turn."""
        cost, ops = Cost(), list[_Op]()
        environment = dict(zip(jaxpr.constvars, constants, strict=True)) | dict(zip(jaxpr.invars, inputs, strict=True))
        outputs = self._open(jaxpr, environment, ops, cost, "")
        _store(ops, [] if donated else outputs)
        first = inputs[len(inputs) - sliced :] if sliced else []
        self._sweep(ops, outputs, cost, donated=donated, first=first)
        return cost, outputs

    def _open(self, jaxpr: Any, environment: dict[Any, Value], ops: list[_Op], cost: Cost, where: str) -> list[Value]:
        """Appends the operations of a jaxpr, those of calls within it in their place."""

        def read(atom: Any) -> Value:
            return environment[atom] if not hasattr(atom, "val") else _value(atom.aval, no_axes(atom.aval.shape))

        for equation in jaxpr.eqns:
            name, params = equation.primitive.name, equation.params
            inputs = [read(atom) for atom in equation.invars]
            here = "/".join(part for part in (where, str(equation.source_info.name_stack)) if part)
            inner = params.get("jaxpr", params.get("call_jaxpr"))
            branch = inputs[0].branch if name == "cond" else None
            if branch is not None:
                inner, inputs = params["branches"][branch], inputs[1:]
            if (name in _CALLS or branch is not None) and inner is not None:
                body, constants = (inner.jaxpr, _constants(inner)) if hasattr(inner, "jaxpr") else (inner, [])
                bound = dict(zip(body.constvars, constants, strict=True)) | dict(zip(body.invars, inputs, strict=True))
                results = self._open(body, bound, ops, cost, here)
            else:
                op = self._operation(name, params, inputs, [each.aval for each in equation.outvars], cost, here)
                ops.append(op)
                results = op.outputs
            environment.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _operation(
        self, name: str, params: Mapping[str, Any], inputs: list[Value], avals: Sequence[Any], cost: Cost, where: str
    ) -> _Op:
        if name == "scan":
            return self._scan(params, inputs, cost, where)
        if name == "while":
            return self._while(params, inputs, cost, where)
        if name == "cond":
            return self._cond(params, inputs, cost, where)
        if name == "shard_map":
            return self._shard_map(params, inputs, avals, cost, where)
        if name == "platform_index":
            return _Op(name, params, [], [self._platform(params)], where=where)
        if name in _MANUAL:
            self._manual(_MANUAL[name], params, inputs, avals, cost)
        placed = self.rules.place(name, params, inputs, [aval.shape for aval in avals])
        weight = bool(inputs) and all(value.weight or not value.shape for value in inputs)
        weight &= any(value.weight for value in inputs)
        outputs = [_value(aval, axes, weight=weight) for aval, axes in zip(avals, placed.axes, strict=True)]
        op = _Op(name, params, inputs, outputs, where=where)
        if name == "conv_general_dilated":
            self.channels |= {value.shape[-1] for value in outputs}
        cost.flops += placed.flops
        if placed.flops:
            cost.traffic += self._product_traffic(inputs, outputs)
        if name == "pallas_call":
            cost.flops += kernel_flops(params, inputs)
        for index, axes in placed.gathers:
            self._gather(op, inputs[index], axes, cost)
        for kind, axes in placed.reduces:
            size = outputs[0].local_bytes(self.sizes, without=axes)
            cost.sent[kind, _joined(axes)] += sent_bytes(kind, size, self.rules.parts(axes))
            if self.platform == "cpu" and self.rules.is_gradient(outputs[0].shape):
                op.summed = size
            if kind == "reduce-scatter":
                op.inner += size
                op.largest.append((size, f"{name} {list(outputs[0].shape)} before its sum, {where}"))
        return op

    def _product_traffic(self, inputs: Sequence[Value], outputs: Sequence[Value]) -> float:
        """Bytes that a product at least reads and writes: of one among activations without its largest array, which a
        kernel need not have in memory (attention's scores)."""
        gathered = [used(value.axes) if value.weight else () for value in inputs]
        sizes = [
            value.local_bytes(self.sizes, without=tuple(axes)) for value, axes in zip(inputs, gathered, strict=True)
        ]
        sizes += [value.local_bytes(self.sizes) for value in outputs]
        return sum(sizes) - (0.0 if any(value.weight for value in inputs) else max(sizes))

    def _gather(self, op: _Op, value: Value, axes: Sequence[str], cost: Cost) -> None:
        size = value.local_bytes(self.sizes, without=axes)
        op.gathers.append((value, size))
        cost.sent["all-gather", _joined(axes)] += sent_bytes("all-gather", size, self.rules.parts(axes))

    def _scan(self, params: Mapping[str, Any], inputs: list[Value], cost: Cost, where: str) -> _Op:
        num_consts, num_carry, length = params["num_consts"], params["num_carry"], params["length"]
        body = params["jaxpr"]
        consts, carry, stacked = (
            inputs[:num_consts],
            inputs[num_consts : num_consts + num_carry],
            inputs[num_consts + num_carry :],
        )
        rows = [_value_like(value, value.shape[1:], value.axes[1:]) for value in stacked]
        constants = _constants(body)
        for _ in range(2):  # a sum that starts from zeros lies as what is added to it
            start = [_value_like(value, value.shape, value.axes) for value in carry]
            found, outputs = self._body(
                body.jaxpr, constants, [*consts, *start, *rows], sliced=len(rows) if length > 1 else 0
            )
            changed = False
            for before, after in zip(carry, outputs[:num_carry], strict=True):
                if not used(before.axes) and used(after.axes):
                    before.axes, changed = after.axes, True
            if not changed:
                break
        cost.add(found, times=length)
        results = [_value_like(value, value.shape, value.axes) for value in outputs[:num_carry]]
        for value in outputs[num_carry:]:
            rows = _value_like(value, (length, *value.shape), ((), *value.axes))
            rows.stored = bool(value.memory())  # a constant is made again in each turn
            results.append(rows)
        cost.traffic += sum(
            value.local_bytes(self.sizes)
            for value in (*stacked, *results[num_carry:])
            if value.stored and not value.weight
        )
        kept = stacked if length > params["unroll"] else []  # a loop that turns once is none to XLA
        return _Op("scan", {}, inputs, results, inner=found.peak, rows=kept, largest=found.largest, where=where)

    def _while(self, params: Mapping[str, Any], inputs: list[Value], cost: Cost, where: str) -> _Op:
        """Once: how often it turns is not known."""
        skipped = params["cond_nconsts"]
        body = params["body_jaxpr"]
        given = inputs[skipped:]
        found, outputs = self._body(body.jaxpr, _constants(body), given)
        cost.add(found)
        return _Op("while", {}, inputs, outputs, inner=found.peak, largest=found.largest, where=where)

    def _cond(self, params: Mapping[str, Any], inputs: list[Value], cost: Cost, where: str) -> _Op:
        each = [self._body(branch.jaxpr, _constants(branch), inputs[1:]) for branch in params["branches"]]
        found, outputs = max(each, key=lambda item: item[0].flops)
        cost.add(found)
        peak = max(item[0].peak for item in each)
        return _Op("cond", {}, inputs, outputs, inner=peak, largest=found.largest, where=where)

    def _shard_map(
        self, params: Mapping[str, Any], inputs: list[Value], avals: Sequence[Any], cost: Cost, where: str
    ) -> _Op:
        """The body sees what one device has: its arrays are no longer divided by the axes that it handles itself."""
        manual = set(params.get("manual_axes") or self.sizes)
        body = params["jaxpr"]
        body, constants = (body.jaxpr, _constants(body)) if hasattr(body, "jaxpr") else (body, [])
        local = []
        for value, spec, variable in zip(inputs, params["in_specs"], body.invars, strict=True):
            wanted = from_spec(spec, len(value.shape), self.sizes)
            gone = tuple(sorted((used(value.axes) & manual) - used(wanted)))
            if gone:
                size = value.local_bytes(self.sizes, without=gone)
                cost.sent["all-gather", _joined(gone)] += sent_bytes("all-gather", size, self.rules.parts(gone))
            rest = tuple(tuple(axis for axis in axes if axis not in manual) for axes in value.axes)
            local.append(_value(variable.aval, rest, weight=value.weight))
            local[-1].known = value.known
        found, outputs = self._body(body, constants, local)
        cost.add(found)
        results = []
        for aval, spec, value in zip(avals, params["out_specs"], outputs, strict=True):
            wanted = from_spec(spec, len(aval.shape), self.sizes)
            results.append(_value(aval, tuple(w or v for w, v in zip(wanted, value.axes, strict=True))))
        return _Op("shard_map", {}, inputs, results, inner=found.peak, largest=found.largest, where=where)

    def _manual(
        self, kind: str, params: Mapping[str, Any], inputs: Sequence[Value], avals: Sequence[Any], cost: Cost
    ) -> None:
        names = params.get("axes", params.get("axis_name", ()))
        names = tuple(name for name in ((names,) if isinstance(names, str) else names) if self.sizes.get(name, 1) > 1)
        if not names:
            return
        for value, aval in zip(inputs, avals, strict=False):
            size = max(value.local_bytes(self.sizes), _value(aval, no_axes(aval.shape)).local_bytes(self.sizes))
            cost.sent[kind, _joined(names)] += sent_bytes(kind, size, self.rules.parts(names))

    def _platform(self, params: Mapping[str, Any]) -> Value:
        """Which branch `jax.lax.platform_dependent` takes on the platform that is planned for."""
        names = {"gpu": ("gpu", "cuda")}.get(self.platform, (self.platform,))
        value = Value((), 4.0, ())
        for index, platforms in enumerate(params["platforms"]):
            if platforms is None or any(name in platforms for name in names):
                value.branch = index
                break
        return value

    def _buffer(self, value: Value) -> float:
        """Bytes that a value takes in memory. A TPU has rows of 128: heads of 64 are filled up, while smaller rows
        are turned, and channels of a convolution are not innermost."""
        size, row = value.local_bytes(self.sizes), value.shape[-1] if value.shape else 0
        filled = self.platform == "tpu" and len(value.shape) >= 4 and _ROW / 2 <= row < _ROW
        return size * _ROW / row if filled and row not in self.channels else size

    def _sweep(
        self, ops: Sequence[_Op], outputs: Sequence[Value], cost: Cost, *, donated: bool, first: Sequence[Value]
    ) -> None:
        """Lifetimes of what is stored: the peak, and what is held then."""
        last: dict[Value, int] = {}
        for index, op in enumerate(ops):
            for value in op.inputs:
                for root in value.memory():
                    last[root] = index
        end = len(ops)
        returned = {root for value in outputs for root in value.memory()}
        for root in returned:
            last[root] = end
        free = set(outputs) if donated else set()
        sizes: dict[Value, float] = {}
        held, live = 0.0, dict[Value, tuple[float, str]]()

        def hold(value: Value, size: float, what: str) -> None:
            nonlocal held
            sizes[value] = size
            held += size
            live[value] = (size, what)

        def release(index: int, but: Collection[Value] = ()) -> None:
            nonlocal held
            for value in dying[index]:
                if value in live and value not in but:
                    held -= live.pop(value)[0]

        dying: list[list[Value]] = [[] for _ in range(end + 1)]
        for value, index in last.items():
            dying[index].append(value)
        for value in first:
            hold(value, value.local_bytes(self.sizes), "slice of a layer's parameters or activations")
        gathered: dict[tuple[Value, float], Value] = {}
        # A gathered parameter is held until its last use in this body.
        uses: dict[tuple[Value, float], int] = {}
        for index, op in enumerate(ops):
            for value, size in op.gathers:
                for root in value.memory() or (value,):
                    uses[root, size] = index
        # XLA on CPU sums all gradients in one operation, which has them twice.
        sums = [(op.summed, f"sum of a gradient {op.where}") for op in ops if op.summed]
        summing = max((index for index, op in enumerate(ops) if op.summed), default=-1)
        for index, op in enumerate(ops):
            # Fusions write over what they read last, but for those of XLA on CPU.
            in_place = op.name in _IN_PLACE or (op.name not in _HEAVY and self.platform != "cpu")
            if in_place:
                release(index, but={root for value in op.rows for root in value.memory()})
            for value, size in op.gathers:
                for root in value.memory() or (value,):
                    if (root, size) not in gathered:
                        copy = gathered[root, size] = Value((), size, ())
                        hold(copy, size, f"gathered {value.origin} {op.where}")
                        dying[uses[root, size]].append(copy)
            for value in op.outputs:
                if value.stored and value not in live and value not in free and last.get(value, -1) >= index:
                    size = self._buffer(value)
                    hold(value, size, f"{op.name} {list(value.shape)} {op.where}")
            copies = sums if index == summing else []
            inner = op.inner + sum(size for size, _ in copies)
            if held + inner > cost.peak:
                cost.peak = held + inner
                cost.largest = sorted([*live.values(), *op.largest, *copies], reverse=True)[:12]
            release(index)


def _store(ops: Sequence[_Op], outputs: Sequence[Value]) -> None:
    """Decides which results are buffers, and of which buffers the others are computed."""
    readers: Counter[Value] = Counter()
    by_heavy: set[Value] = set()
    for op in ops:
        for value in set(op.inputs):
            readers[value] += 1
            if op.name in _HEAVY or op.name.startswith("scatter"):
                by_heavy.add(value)
    wanted = set(outputs)
    for op in ops:
        fused = op.name not in _HEAVY and not op.name.startswith(("reduce_", "scatter", "arg"))
        roots = tuple(dict.fromkeys(root for value in op.inputs for root in value.memory()))
        small = not roots or (op.name in _VIEWS and len(roots) == 1)
        for value in op.outputs:
            if not fused or (value in wanted and roots):
                value.stored = True
                continue
            costly = op.name in _COSTLY and readers[value] > 1
            read_whole = value in by_heavy and not (small and (value.weight or _same_bytes(value, roots)))
            value.stored = costly or read_whole
            if not value.stored:
                value.roots = roots
                value.origin = value.origin or (roots[0].origin if roots else "")


def _same_bytes(value: Value, roots: Sequence[Value]) -> bool:
    return (
        not roots or float(np.prod(value.shape)) * value.itemsize == float(np.prod(roots[0].shape)) * roots[0].itemsize
    )


def _value(aval: Any, axes: Axes, *, weight: bool = False, origin: str = "") -> Value:
    return Value(tuple(aval.shape), _itemsize(aval), axes, weight=weight, origin=origin)


def _value_like(value: Value, shape: tuple[int, ...], axes: Axes) -> Value:
    return Value(shape, value.itemsize, axes, weight=value.weight, origin=value.origin)


def _itemsize(aval: Any) -> float:
    dtype = getattr(aval, "dtype", None)
    if dtype is None:
        return 0.0
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return 16.0
    return 1.0 if dtype == np.bool_ else float(dtype.itemsize)


def _constants(closed: Any) -> list[Value]:
    found = [_value(jax.typeof(each), no_axes(np.shape(each))) for each in closed.consts]
    for value, each in zip(found, closed.consts, strict=True):
        if value.whole_bytes <= _KNOWN_BYTES:
            value.known = each
    return found


def _joined(axes: Sequence[str]) -> str:
    return "+".join(sorted(axes))
