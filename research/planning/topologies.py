"""Machines by name: `v5e:16x16`, `2*v5p:4x4x4`, `h100:8`, `cpu:8`, and what one device of each has."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Literal

from research.training.devices import peak_flops

GIB = 2.0**30


@dataclass(frozen=True)
class Chip:
    """One jax device of a kind. Bytes, and bytes a second; `link` is one direction of one link, `network` a device's
    part of what its host has to other hosts or slices.
    """

    kind: str  # as jax.Device.device_kind says it, and training/devices.py knows it
    platform: Literal["tpu", "gpu", "cpu"]
    memory: float  # what a program may have of it
    bandwidth: float
    link: float
    num_links: int
    network: float
    per_host: int
    host_memory: float
    bfloat16: bool = True  # computes in it natively
    largest: tuple[int, ...] = ()  # of TPUs, the largest slice
    per_chip: int = 1  # jax devices a chip


# Sources. TPUs: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}: memory, its bandwidth, interconnect (both directions
# of all links of a chip: 300, 400, 1200, 800 and 1200 GB/s), virtual machines of 4 chips and their network. Of the
# memory the runtime keeps 0.25 to 1.25 GiB, as the compiler says when a program does not fit ("of 15.75G hbm").
# GPUs: NVIDIA's data sheets: memory, its bandwidth, half of the NVLink figure (which is both directions; PCIe where
# there is none); hosts as in DGX and HGX: one adapter of 400 Gb/s (A100: 200) a GPU, 2 TB of memory (A100: 1 TB).
# XLA keeps XLA_PYTHON_CLIENT_MEM_FRACTION (0.75) of a GPU's memory for itself, and no program has more.
CHIPS: dict[str, Chip] = {
    "v4": Chip("TPU v4", "tpu", 30.75 * GIB, 1228e9, 25e9, 6, 6.25e9, 4, 407 * GIB, largest=(16, 16, 16)),
    "v5e": Chip("TPU v5 lite", "tpu", 15.75 * GIB, 819e9, 50e9, 4, 3.125e9, 4, 192e9, largest=(16, 16)),
    "v5p": Chip("TPU v5", "tpu", 95.74 * GIB, 2765e9, 100e9, 6, 6.25e9, 4, 448e9, largest=(16, 16, 24)),
    "v6e": Chip("TPU v6 lite", "tpu", 31.25 * GIB, 1638e9, 100e9, 4, 12.5e9, 4, 720e9, largest=(16, 16)),
    # A jax device is half a chip of v7x: half of everything.
    "v7x": Chip("TPU7x", "tpu", 94.75 * GIB, 3690e9, 50e9, 6, 6.25e9, 8, 960e9, largest=(16, 16, 36), per_chip=2),
    "h200": Chip("NVIDIA H200", "gpu", 141e9, 4.8e12, 450e9, 1, 50e9, 8, 2e12),
    "h100": Chip("NVIDIA H100", "gpu", 80 * GIB, 3.35e12, 450e9, 1, 50e9, 8, 2e12),
    "a100": Chip("NVIDIA A100", "gpu", 80 * GIB, 2.039e12, 300e9, 1, 25e9, 8, 1e12),
    "a100-40": Chip("NVIDIA A100", "gpu", 40 * GIB, 1.555e12, 300e9, 1, 25e9, 8, 1e12),
    "l4": Chip("NVIDIA L4", "gpu", 24e9, 300e9, 32e9, 1, 1.5e9, 8, 384e9),
    "rtx4090": Chip("NVIDIA GeForce RTX 4090", "gpu", 24 * GIB, 1.008e12, 32e9, 1, 1.25e9, 8, 512e9),
    "rtx3090": Chip("NVIDIA GeForce RTX 3090", "gpu", 24 * GIB, 936e9, 32e9, 1, 1.25e9, 8, 256e9),
    "rtx2080ti": Chip("NVIDIA GeForce RTX 2080 Ti", "gpu", 11 * GIB, 616e9, 16e9, 1, 1.25e9, 8, 128e9, bfloat16=False),
    # The devices share one memory, and what its bandwidth is we do not know.
    "cpu": Chip("cpu", "cpu", 0.0, 0.0, 0.0, 1, 1.25e9, 0, 0.0, bfloat16=False),
}
_KNOWN = (
    "TPU slices v4:AxBxC, v5e:AxB, v5p:AxBxC, v6e:AxB, v7x:AxBxC (several: 2*v5e:16x16), GPUs by number "
    f"({', '.join(f'{name}:8' for name, chip in CHIPS.items() if chip.platform == 'gpu')}; several hosts: 4*h100:8), "
    "and cpu:8"
)


@dataclass(frozen=True)
class Topology:
    """`num_slices` slices, or hosts with GPUs, of `shape` each: TPUs by the sides of their torus, others by number."""

    name: str
    chip: Chip
    shape: tuple[int, ...]
    num_slices: int = 1

    @property
    def per_slice(self) -> int:
        """Devices in a slice; in a host, of GPUs."""
        return math.prod(self.shape) * self.chip.per_chip

    @property
    def num_devices(self) -> int:
        return self.num_slices * self.per_slice

    @property
    def num_chips(self) -> int:
        return self.num_devices // self.chip.per_chip

    @property
    def num_hosts(self) -> int:
        return self.num_slices * max(1, -(-self.per_slice // self.per_host))

    @property
    def per_host(self) -> int:
        return min(self.chip.per_host, self.per_slice) or self.per_slice

    @property
    def capacity(self) -> float:
        """Bytes that a program may have on one device."""
        if self.chip.platform == "gpu":
            return self.chip.memory * float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75"))
        return self.chip.memory or self.host_memory / self.num_devices

    @property
    def host_memory(self) -> float:
        """Bytes; of `cpu` what this machine has."""
        return self.chip.host_memory or float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))

    def peak_flops(self, dtype: str) -> float | None:
        """FLOP/s of one device, None where that is not known (a CPU)."""
        return peak_flops(self.chip.kind, dtype)

    def compute_dtype(self, wanted: str) -> str:
        """What `auto` is on these devices."""
        return wanted if wanted != "auto" else "bfloat16" if self.chip.bfloat16 else "float32"


def parse_topology(name: str) -> Topology:
    """The topology of a name.

    Raises:
      ValueError: no such kind or shape; those known are listed.
    """
    match = re.fullmatch(r"(?:(\d+)\*)?([\w-]+):(\d+(?:x\d+)*)", name.replace(" ", ""))
    if match is None or match[2] not in CHIPS:
        raise ValueError(f"--topology={name}: no such topology; there are: {_KNOWN}")
    chip, sides = CHIPS[match[2]], [int(side) for side in match[3].split("x")]
    shape = tuple(sides)
    num_slices = int(match[1] or 1)
    if min((*shape, num_slices)) < 1:
        raise ValueError(f"--topology={name}: wanted sizes of 1 or more")
    if chip.platform != "tpu":
        if len(shape) > 1:
            raise ValueError(f"--topology={name}: wanted a number of devices, such as {match[2]}:8")
        if chip.platform == "gpu" and sides[0] > chip.per_host:  # whole hosts
            hosts, rest = divmod(sides[0], chip.per_host)
            if rest:
                raise ValueError(
                    f"--topology={name}: a host has {chip.per_host} of them; use a multiple, or several hosts "
                    f"(2*{match[2]}:4)"
                )
            return Topology(name, chip, (chip.per_host,), num_slices * hosts)
        return Topology(name, chip, shape, num_slices)
    limits = sorted(chip.largest)
    if len(shape) != len(limits) or any(side > most for side, most in zip(sorted(shape), limits, strict=True)):
        largest = "x".join(map(str, chip.largest))
        raise ValueError(
            f"--topology={name}: wanted {len(limits)} sides, at most {match[2]}:{largest}; there are: {_KNOWN}"
        )
    return Topology(name, chip, shape, num_slices)
