"""The bound on a step against figures worked out by hand."""

import pytest

from research.planning.roofline import axis_bandwidths, bound
from research.planning.topologies import parse_topology
from research.planning.values import Cost
from research.training.sharding import MESH_AXES


def mesh(**sizes: int) -> dict[str, int]:
    return {axis: sizes.get(axis, 1) for axis in MESH_AXES}


def test_the_slowest_of_compute_memory_and_links_bounds_the_step():
    topology = parse_topology("v5e:2x2")
    cost = Cost(flops=197e12, traffic=2 * 819e9, sent={("all-gather", "fsdp"): 75e9, ("all-reduce", "fsdp"): 25e9})
    found = bound(cost, 4 * 100e12, topology, mesh(fsdp=4), "bfloat16")
    assert found.compute == pytest.approx(1.0)
    assert found.memory == pytest.approx(2.0)
    assert found.sending == {"fsdp": pytest.approx(1.0)}  # 100 GB over two sides of 50 GB/s, no ring
    assert found.step == pytest.approx(2.0)
    assert found.limited_by == "memory"
    assert found.mfu == pytest.approx(400e12 / (2.0 * 4 * 197e12))


def test_an_unknown_peak_gives_no_bound():
    found = bound(Cost(flops=1e9), 1e9, parse_topology("cpu:8"), mesh(data=8), "float32")
    assert found.step is None and found.mfu is None


def test_axes_take_the_sides_of_the_torus_that_make_them():
    ring = parse_topology("v5e:16x16")
    assert axis_bandwidths(ring, mesh(fsdp=256)) == {"fsdp": 4 * 50e9}
    assert axis_bandwidths(ring, mesh(fsdp=16, tensor=16)) == {"fsdp": 2 * 50e9, "tensor": 2 * 50e9}
    cube = parse_topology("v5p:4x4x4")
    assert axis_bandwidths(cube, mesh(fsdp=16, tensor=4)) == {"fsdp": 4 * 100e9, "tensor": 2 * 100e9}


def test_what_goes_over_slices_or_hosts_has_the_network():
    slices = axis_bandwidths(parse_topology("2*v5e:16x16"), mesh(replica=2, fsdp=256))
    assert slices == {"replica": 3.125e9, "fsdp": 4 * 50e9}
    hosts = axis_bandwidths(parse_topology("2*h100:8"), mesh(replica=2, fsdp=8))
    assert hosts["fsdp"] == 450e9 and hosts["replica"] == 50e9
