"""What accelerators can do: FLOP/s at most, the denominator of model FLOPs utilisation, and their native type."""

from __future__ import annotations

import re

# Dense matrix FLOP/s of one jax device in float32, bfloat16 and float16, without sparsity; 0: it has no such units.
# jax's default precision multiplies float32 as bfloat16 on TPU and as TF32 on NVIDIA GPUs that have it.
# A jax device is one core, half a chip, on TPU v2, v3 and v7x; elsewhere it is a chip.
# Sources: cloud.google.com/tpu/docs (peak compute per chip); NVIDIA's data sheets (half of the sparse figures).
_DTYPES = ("float32", "bfloat16", "float16")
PEAK_FLOPS: dict[str, tuple[float, float, float]] = {
    "TPU v2": (23e12, 23e12, 0),
    "TPU v3": (61.5e12, 61.5e12, 0),
    "TPU v4": (275e12, 275e12, 0),
    "TPU v4 lite": (138e12, 138e12, 0),
    "TPU v5 lite": (197e12, 197e12, 0),
    "TPU v5e": (197e12, 197e12, 0),
    "TPU v5": (459e12, 459e12, 0),
    "TPU v5p": (459e12, 459e12, 0),
    "TPU v6 lite": (918e12, 918e12, 0),
    "TPU v6e": (918e12, 918e12, 0),
    "TPU7x": (1153.5e12, 1153.5e12, 0),
    "NVIDIA GB200": (1250e12, 2500e12, 2500e12),
    "NVIDIA B200": (1125e12, 2250e12, 2250e12),
    "NVIDIA GH200": (494.7e12, 989.4e12, 989.4e12),
    "NVIDIA H200": (494.7e12, 989.4e12, 989.4e12),
    "NVIDIA H200 NVL": (417.5e12, 835.5e12, 835.5e12),
    "NVIDIA H100": (494.7e12, 989.4e12, 989.4e12),
    "NVIDIA H100 NVL": (417.5e12, 835.5e12, 835.5e12),
    "NVIDIA H100 PCIe": (378e12, 756e12, 756e12),
    "NVIDIA H800": (494.7e12, 989.4e12, 989.4e12),
    "NVIDIA A100": (156e12, 312e12, 312e12),
    "NVIDIA A800": (156e12, 312e12, 312e12),
    "NVIDIA A40": (74.8e12, 149.7e12, 149.7e12),
    "NVIDIA A30": (82e12, 165e12, 165e12),
    "NVIDIA A10G": (35e12, 70e12, 70e12),
    "NVIDIA A10": (62.5e12, 125e12, 125e12),
    "NVIDIA L40S": (183e12, 362e12, 362e12),
    "NVIDIA L40": (90.5e12, 181e12, 181e12),
    "NVIDIA L4": (60e12, 121e12, 121e12),
    "NVIDIA RTX A6000": (77.4e12, 154.8e12, 154.8e12),
    "NVIDIA GeForce RTX 5090": (104.8e12, 209.5e12, 209.5e12),
    "NVIDIA GeForce RTX 4090": (82.6e12, 165.2e12, 165.2e12),
    "NVIDIA GeForce RTX 3090": (35.6e12, 71e12, 71e12),
    "NVIDIA GeForce RTX 2080 Ti": (13.4e12, 0, 53.8e12),
    "Tesla V100": (15.7e12, 0, 125e12),
    "Tesla T4": (8.1e12, 0, 65e12),
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """FLOP/s of one device of this `jax.Device.device_kind` multiplying `dtype` ("bfloat16", …); None where not known.

    The longest name of PEAK_FLOPS that begins `device_kind` counts, up to a word's end: memory sizes and forms follow
    the chip's name ("NVIDIA A100-SXM4-80GB"). A slice of a GPU (MIG) is not known.
    """
    if dtype not in _DTYPES or " MIG " in device_kind:
        return None
    names = [name for name in PEAK_FLOPS if _begins(device_kind, name)]
    if not names:
        return None
    return PEAK_FLOPS[max(names, key=len)][_DTYPES.index(dtype)] or None


def native_dtype(platform: str, compute_capability: str = "") -> str:
    """What `dtype=auto` is on such devices: bfloat16 where they multiply it natively, else float32.

    `compute_capability` is an NVIDIA GPU's, such as "8.0", where bfloat16 begins; "" where there is none.
    """
    if platform == "tpu":
        return "bfloat16"
    nvidia = platform == "gpu" and re.fullmatch(r"\d+\.\d+", compute_capability)  # AMD's are names: "gfx90a"
    return "bfloat16" if nvidia and float(compute_capability) >= 8.0 else "float32"


def _begins(device_kind: str, name: str) -> bool:
    return device_kind.startswith(name) and not device_kind[len(name) : len(name) + 1].isalnum()
