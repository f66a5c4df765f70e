"""NCCL's own estimates: worked by hand from its constants, and where protocols are allowed."""

import pytest
from pytest import approx

from cost_models.network import communicator
from cost_models.network.tuner import candidates, choose
from cost_models.topology import NcclSettings, load_topology


def found(name, kind, n_bytes, *ranks):
    topology = load_topology(name, *ranks)
    comm = communicator(topology, range(topology.n_ranks))
    return {(each.algorithm, each.protocol): each for each in candidates(comm, kind, n_bytes)}


def test_ring_on_one_node():
    """8 H100: 360 GB/s of rings; 7 hops of 3.4 us on 8.4 us, (n - 1) / n of the data twice for all-reduce."""
    gather = found("dgx-h100", "all_gather", 2**30)["Ring", "Simple"]
    assert gather.latency_us == approx(8.4 + 7 * 3.4)
    assert gather.gb_per_s == approx(360 * 8 / 7)
    reduce = found("dgx-h100", "all_reduce", 2**30)
    assert reduce["Ring", "LL"].latency_us == approx(6.6 + 14 * 0.6)
    assert reduce["Ring", "LL"].gb_per_s == approx(141 * 8 / 14)
    assert reduce["Ring", "LL128"].gb_per_s == approx(0.92 * 360 * 8 / 14)


def test_nvls_on_one_node():
    """8 heads of 40 GB/s at 85 %, one of them the own; both directions of an all-reduce at once."""
    nvls = found("dgx-h100", "all_reduce", 2**30)["NVLS", "Simple"]
    assert nvls.latency_us == 25
    assert nvls.gb_per_s == approx(8 * 2 * 40 * 0.85 * 7 / 8 * 8 / 14)


def test_trees_are_corrected_by_size():
    small, large = (found("dgx-a100", "all_reduce", size)["Tree", "LL"] for size in (2**18, 2**30))
    assert large.gb_per_s == approx(min(0.92 * 240, 12 * 24) / 3.8 / 2)
    assert small.gb_per_s == approx(large.gb_per_s * 0.4)


def test_two_nodes():
    """NVLSTree: 8 heads, bound by two times 40 GB/s or 57.7 a channel; a step over the network is 20.9 us."""
    tree = found("dgx-h100", "all_reduce", 2**30, 16)["NVLSTree", "Simple"]
    assert tree.latency_us == approx(25 + 2 * 20.9)
    assert tree.gb_per_s == approx(8 * 57.7 * 16 / 30)
    ring = found("dgx-h100", "all_gather", 2**30, 16)["Ring", "Simple"]
    assert ring.latency_us == approx(8.4 + 14 * 3.4 + 14)
    assert ring.gb_per_s == approx(8 * 48 * 16 / 15)


@pytest.mark.parametrize(
    ("name", "ranks", "kind", "expected"),
    [
        ("dgx-h100", (), "broadcast", {"Ring"}),
        ("dgx-h100", (), "all_gather", {"Ring", "NVLS"}),
        ("dgx-h100", (16,), "all_gather", {"Ring"}),
        ("dgx-h100", (4, 4), "reduce_scatter", {"Ring", "PAT"}),
        ("dgx-a100", (), "all_reduce", {"Ring", "Tree"}),
        ("pcie-8x", (), "all_reduce", {"Ring", "Tree"}),
    ],
)
def test_algorithms_that_are_weighed(name, ranks, kind, expected):
    assert {algorithm for algorithm, _ in found(name, kind, 2**20, *ranks)} == expected


@pytest.mark.parametrize(("version", "algorithm"), [((2, 16), "Ring"), ((2, 17), "NVLS"), ((2, 30), "NVLS")])
def test_older_versions_lack_algorithms(version, algorithm):
    topology = load_topology("dgx-h100", nccl=NcclSettings(version=version))
    assert choose(communicator(topology, range(8)), "all_reduce", 2**30).algorithm == algorithm


def test_ll128_needs_nvlink():
    assert ("Ring", "LL128") in found("dgx-a100", "all_gather", 2**20)
    assert ("Ring", "LL128") not in found("pcie-8x", "all_gather", 2**20)


def test_the_choice_is_the_least_time():
    comm = communicator(load_topology("dgx-h100"), range(8))
    for power in range(10, 34):
        best = choose(comm, "all_reduce", 2**power)
        assert all(
            best.time_us(2**power) <= each.time_us(2**power) for each in candidates(comm, "all_reduce", 2**power)
        )


PAIR = load_topology("h200-nvlink-pair", 2, nccl=NcclSettings(version=(2, 28), nvls_enable=False))
"""As two H100 whose NCCL 2.28.9 wrote its choices down (NCCL_DEBUG_SUBSYS=TUNING): by size of the whole vector."""


@pytest.mark.parametrize(("kind", "last_ll"), [("all_gather", 2**21), ("reduce_scatter", 2**21), ("all_reduce", 2**20)])
def test_nccl_of_two_h100_chose_the_same_at_every_size(kind, last_ll):
    pair = communicator(PAIR, range(2))
    for power in range(11, 31):
        found = choose(pair, kind, 2**power)
        assert (found.algorithm, found.protocol) == ("Ring", "LL" if 2**power <= last_ll else "Simple"), power


def test_nccl_of_two_h100_had_the_same_channels():
    """Its log and its graph dump: ring 12 x 30, tree 12 x 60, 24 channels of collectives and 32 of sends."""
    pair = communicator(PAIR, range(2))
    assert [(len(each.channels), each.intra_gb_per_s) for each in (pair.ring, pair.tree)] == [(12, 30), (12, 60)]
    assert (pair.n_channels, pair.p2p_channels, pair.p2p_per_peer) == (24, 32, 32)
