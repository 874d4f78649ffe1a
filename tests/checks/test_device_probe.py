"""The probe of jax's devices: its numbers, and what is left of them when it dies, hangs or is refused."""

import sys

import jax
import pytest

from research.checks import device_probe
from research.training.devices import native_dtype

DEVICES = '{"step": "devices", "devices": [{"kind": "cpu", "platform": "cpu"}], "num_processes": 1}'


def printed(code: str, **options):
    return device_probe.probe(command=[sys.executable, "-c", code], **options)


def test_the_sum_over_eight_devices_is_that_of_its_terms():
    assert device_probe.sum_over(jax.local_devices()) == sum(range(1, 9))


def test_a_product_is_timed():
    assert 1e6 < device_probe.matmul_flops("float32", 32) < 1e14


@pytest.mark.parametrize(
    ("platform", "memory", "size"),
    [("cpu", 0, 512), ("gpu", 0, 8192), ("gpu", 60 * 10**9, 8192), ("gpu", 10**9, 3840), ("tpu", 10**6, 256)],
)
def test_matrices_fit_a_quarter_of_the_memory(platform, memory, size):
    assert device_probe.suitable_size(platform, memory) == size


def test_what_was_found_before_an_abort_is_kept():
    noise = "import sys; print('a library speaks'); print('later', file=sys.stderr); "
    found = printed(f"{noise} print('''{DEVICES}'''); print('Unknown flag: --a', file=sys.stderr); sys.exit(3)")
    assert found.devices == (device_probe.Device("cpu", "cpu"),)
    assert (found.error, found.failed_at) == ("Unknown flag: --a", "a product of float32 matrices")


def test_what_jax_says_of_a_platform_that_it_passes_over_is_kept():
    line = "E1125 13:32:02.890319   19421 xla_bridge.cc:23] Unable to initialize backend 'cuda': no device"
    found = printed(f"import sys; print({line!r}, file=sys.stderr); print('''{DEVICES}''')")
    assert (found.error, found.complaint) == ("", "Unable to initialize backend 'cuda': no device")


def test_a_probe_that_hangs_is_ended():
    found = printed(f"import time; print('''{DEVICES}''', flush=True); time.sleep(60)", seconds=1)
    assert found.error == "no answer in 1 seconds" and len(found.devices) == 1


def test_a_refused_type_does_not_end_the_probe():
    out = [
        DEVICES,
        '{"step": "float32", "flops": 2.0, "refused": ""}',
        '{"step": "float16", "flops": 0, "refused": "no"}',
    ]
    found = device_probe.read("\n".join(out), "")
    assert (found.flops, found.refused, found.error, found.failed_at) == ({"float32": 2.0}, {"float16": "no"}, "", "")


@pytest.mark.parametrize(
    ("platform", "capability", "dtype"),
    [
        *[("cpu", "", "float32"), ("tpu", "", "bfloat16"), ("gpu", "7.5", "float32"), ("gpu", "8.0", "bfloat16")],
        *[("gpu", "12.0", "bfloat16"), ("gpu", "gfx90a", "float32")],
    ],
)
def test_auto_is_bfloat16_where_it_is_native(platform, capability, dtype):
    assert native_dtype(platform, capability) == dtype
