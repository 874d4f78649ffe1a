"""What a Pallas kernel computes, counted in its own jaxpr."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.planning.values import Value


def kernel_flops(params: Mapping[str, Any], inputs: Sequence[Value]) -> float:
    """Operations of a kernel's matrix products over its grid; of splash attention only those of the blocks that its
    table (int8: 0 skipped, 1 masked, 2 whole) does not skip."""
    tables = [value.known for value in inputs[:2] if value.itemsize == 1 and len(value.shape) == 3]
    # The last of its two tables of bytes; the first says which block is fetched next.
    share = 1.0 if not tables or tables[-1] is None else float(np.mean(np.asarray(tables[-1]) > 0))
    body = params["jaxpr"]
    grid = math.prod(size for size in params["grid_mapping"].grid if isinstance(size, int))
    return share * grid * _product_flops(getattr(body, "jaxpr", body))


def _product_flops(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (summed, _), _ = equation.params["dimension_numbers"]
            width = math.prod(equation.invars[0].aval.shape[place] for place in summed)
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * width
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        held = [each if isinstance(each, tuple) else (each,) for each in equation.params.values()]
        bodies = [getattr(each, "jaxpr", each) for group in held for each in group]
        total += times * sum(_product_flops(each) for each in bodies if hasattr(each, "eqns"))
    return total
