"""Collectives: bytes by algorithm, NICs used together, groups and bad input."""

import numpy as np
import pytest
from pytest import approx

from cost_models.hardware import load_hardware
from cost_models.network import COLLECTIVES, estimate_collective_s
from cost_models.topology import load_topology
from traces.errors import InputError

GPU = load_hardware("h100-sxm")
GIB = 2**30
NODE = load_topology("dgx-h100")
TWO_NODES = load_topology("dgx-h100", 16)


@pytest.mark.parametrize("kind", COLLECTIVES)
def test_alone_or_without_data_it_costs_nothing(kind):
    assert estimate_collective_s(NODE, GPU, kind, [3], GIB) == 0
    assert estimate_collective_s(NODE, GPU, kind, range(8), 0) == 0


@pytest.mark.parametrize("kind", COLLECTIVES)
def test_time_grows_with_bytes(kind):
    times = [estimate_collective_s(NODE, GPU, kind, range(8), 2**power) for power in range(10, 34)]
    assert times == sorted(times)


def test_gather_then_scatter_is_all_reduce():
    gather, scatter, reduce = (
        estimate_collective_s(NODE, GPU, kind, range(8), n)
        for kind, n in (("all_gather", GIB), ("reduce_scatter", 8 * GIB), ("all_reduce", 8 * GIB))
    )
    assert gather + scatter == approx(reduce, rel=0.02)


def test_all_gather_over_nodes_uses_every_nic():
    seconds = estimate_collective_s(TWO_NODES, GPU, "all_gather", range(16), GIB)
    assert 15 * GIB / seconds / 1e9 > 6 * 48


def test_all_to_all_over_nodes_is_bound_by_each_ranks_nic():
    seconds = estimate_collective_s(TWO_NODES, GPU, "all_to_all", range(16), 16 * GIB)
    assert 8 * GIB / seconds / 1e9 == approx(48, rel=0.06)


@pytest.mark.parametrize(
    ("kind", "ranks", "n_bytes"),
    [("gossip", [0, 1], 1), ("all_gather", [0, 0], 1), ("all_gather", [], 1), ("all_gather", [0, 8], 1)]
    + [("all_gather", [-1, 0], 1), ("all_gather", [0, 1], -1)],
)
def test_bad_input(kind, ranks, n_bytes):
    with pytest.raises(InputError):
        estimate_collective_s(NODE, GPU, kind, np.array(ranks, dtype=np.int64), n_bytes)
