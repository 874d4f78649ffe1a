"""Memory of the contrastive losses on 256 chips, compiled ahead of time for a TPU v5e 16x16; no TPU is needed.

python -m venv .venv-tpu && .venv-tpu/bin/pip install -c constraints.txt 'jax[tpu]' jaxtyping
.venv-tpu/bin/python -m tests.benchmarks.contrastive_memory
Prints the temporaries a device of a loss and its gradients, from the compiler's memory analysis, and keeps them as
contrastive_memory.json beside this script. The analysis counts the main memory of a chip; a ring's buffers mostly find
room in its 128 MiB of vector memory, so they are given without that as well.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax  # noqa: E402 - after the environment is set
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec  # noqa: E402

from research.ops.contrastive import CHUNK, clip, nt_xent, siglip  # noqa: E402
from tests.benchmarks.keep import origin

HERE = Path(__file__).resolve().parent
TOPOLOGY, WIDTH = "v5e:16x16", 768
BATCH_SIZES = (32_768, 1_048_576)
DTYPES = ("bfloat16", "float32")
CASES = [(siglip, "plain"), (siglip, "gathered"), (siglip, "chunked"), (clip, "chunked"), (nt_xent, "chunked")]
SCALARS = {siglip: ("scale", "bias"), clip: ("scale",), nt_xent: ("temperature",)}
WITHOUT_VECTOR_MEMORY = {"xla_vf_vmem_memory_space_assignment": False}
REFUSAL = re.compile(r"HLO temporaries \(([\d.]+)G\) exceeds available HBM \(([\d.]+)G\)")


def lower(loss: Any, form: str, batch_size: int, dtype: str, mesh: Mesh) -> jax.stages.Lowered:
    """The mean loss, with the gradients of both sides and of the scalars."""

    def mean(first, second, scalars):
        return jnp.mean(loss(first, second, form=form, **scalars))

    split, whole = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data",), ()))
    side = jax.ShapeDtypeStruct((batch_size, WIDTH), dtype, sharding=split)
    scalars = {name: jax.ShapeDtypeStruct((), jnp.float32, sharding=whole) for name in SCALARS[loss]}
    with jax.set_mesh(mesh):
        # The gradients lie as the vectors do: left alone, the compiler gives a whole one to every device.
        out = (whole, (split, split, whole))
        traced = jax.jit(jax.value_and_grad(mean, argnums=(0, 1, 2)), out_shardings=out).trace(side, side, scalars)
        return traced.lower(lowering_platforms=("tpu",))


def mebibytes(lowered: jax.stages.Lowered, options: dict[str, Any]) -> dict[str, float]:
    try:
        analysis = lowered.compile(compiler_options=options).memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if (refusal := REFUSAL.search(str(error))) is None:
            raise
        wanted, available = (round(float(gibibytes) * 1024, 1) for gibibytes in refusal.groups())
        return {"temporaries": wanted, "does_not_fit_into": available}
    assert analysis is not None
    return {"temporaries": round(analysis.temp_size_in_bytes / 2**20, 3)}


def main() -> None:
    devices = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    figures = []
    for dtype in DTYPES:
        for loss, form in CASES:
            for batch_size in BATCH_SIZES:
                began = time.perf_counter()
                lowered = lower(loss, form, batch_size, dtype, mesh)
                figure: dict[str, Any] = dict(loss=loss.__name__, form=form, batch_size=batch_size, dtype=dtype)
                figure["mebibytes"] = mebibytes(lowered, {})
                figure["compile_seconds"] = round(time.perf_counter() - began, 1)
                if form == "chunked":
                    figure["mebibytes_without_vector_memory"] = mebibytes(lowered, WITHOUT_VECTOR_MEMORY)
                print(json.dumps(figure), flush=True)
                figures.append(figure)
    summary = {
        "command": "python -m tests.benchmarks.contrastive_memory",
        **origin(("jax", "jaxlib", "libtpu", "numpy")),
        "topology": TOPOLOGY,
        "width": WIDTH,
        "chunk": CHUNK,
        "a_device": figures,
    }
    (HERE / "contrastive_memory.json").write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
