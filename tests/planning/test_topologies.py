"""Machines by name, and what is known of each."""

import pytest

from research.planning.topologies import CHIPS, parse_topology
from research.training.devices import PEAK_FLOPS


@pytest.mark.parametrize(
    ("name", "devices", "chips", "hosts", "slices"),
    [
        ("v5e:16x16", 256, 256, 64, 1),
        ("2*v5p:4x4x4", 128, 128, 32, 2),
        ("v7x:2x2x2", 16, 8, 2, 1),
        ("h100:8", 8, 8, 1, 1),
        ("h100:32", 32, 32, 4, 4),
        ("2*a100:4", 8, 8, 2, 2),
        ("rtx2080ti:1", 1, 1, 1, 1),
        ("cpu:8", 8, 8, 1, 1),
    ],
)
def test_a_name_says_how_many_there_are(name, devices, chips, hosts, slices):
    found = parse_topology(name)
    assert (found.num_devices, found.num_chips, found.num_hosts, found.num_slices) == (devices, chips, hosts, slices)


@pytest.mark.parametrize("name", ["v5e", "v9:2x2", "v5e:4", "v5e:32x16", "h100:2x2", "h100:12", "v5e:0x4", "tpu"])
def test_another_name_is_refused_and_the_known_are_listed(name):
    with pytest.raises(ValueError, match=f"--topology={name}: "):
        parse_topology(name)
    with pytest.raises(ValueError, match="v5p:AxBxC.*h200:8.*cpu:8"):
        parse_topology("toaster:8")


@pytest.mark.parametrize("name", [name for name in CHIPS if name != "cpu"])
def test_every_chip_has_a_peak(name):
    assert any(CHIPS[name].kind.startswith(known) for known in PEAK_FLOPS)


def test_auto_is_bfloat16_where_it_is_native():
    assert parse_topology("v5e:2x2").compute_dtype("auto") == "bfloat16"
    assert parse_topology("rtx2080ti:1").compute_dtype("auto") == "float32"
    assert parse_topology("rtx2080ti:1").compute_dtype("bfloat16") == "bfloat16"


def test_a_gpu_program_has_the_share_of_memory_that_xla_takes(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert parse_topology("a100:8").capacity == pytest.approx(60 * 2**30)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    assert parse_topology("a100:8").capacity == pytest.approx(40 * 2**30)
