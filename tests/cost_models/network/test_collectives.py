"""Collectives: NCCL's choice and what overrides it, bytes by algorithm, NICs used together, SMs, groups, bad input."""

import numpy as np
import pytest
from pytest import approx

from cost_models.hardware import load_hardware
from cost_models.network import COLLECTIVES, estimate_collective, estimate_collective_s
from cost_models.network.terms import NCCL_TERMS, Terms
from cost_models.topology import NcclSettings, load_topology, slow_links
from traces.errors import InputError

GPU = load_hardware("h100-sxm")
MIB, GIB = 2**20, 2**30
NODE = load_topology("dgx-h100")
TWO_NODES = load_topology("dgx-h100", 16)


@pytest.mark.parametrize("kind", COLLECTIVES)
def test_alone_or_without_data_it_costs_nothing(kind):
    assert estimate_collective_s(NODE, GPU, kind, [3], GIB) == 0
    assert estimate_collective_s(NODE, GPU, kind, range(8), 0) == 0


@pytest.mark.parametrize("topology", [NODE, TWO_NODES, load_topology("pcie-8x", gpu="l40s")], ids=lambda t: t.name)
@pytest.mark.parametrize("kind", COLLECTIVES)
def test_a_hundred_times_the_bytes_take_longer(topology, kind):
    """By more than NCCL's choice, made with other constants than the time, can be wrong."""
    ranks = range(topology.n_ranks)
    times = [estimate_collective_s(topology, GPU, kind, ranks, 100**power) for power in range(1, 6)]
    assert all(later > earlier for earlier, later in zip(times, times[1:], strict=False))


def test_ring_gather_then_scatter_is_ring_all_reduce():
    gather, scatter, reduce = (
        estimate_collective(NODE, GPU, kind, range(8), n, algorithm="Ring", protocol="Simple").seconds
        for kind, n in (("all_gather", GIB), ("reduce_scatter", 8 * GIB), ("all_reduce", 8 * GIB))
    )
    assert gather + scatter == approx(reduce, rel=0.06)  # the own part is copied once instead of twice
    assert gather + scatter > reduce


@pytest.mark.parametrize(
    ("topology", "kind", "n_bytes", "expected"),
    [
        (NODE, "all_reduce", 2**15, ("Ring", "LL", 24)),
        (NODE, "all_reduce", GIB, ("NVLS", "Simple", 16)),
        (NODE, "all_gather", 2 * MIB, ("Ring", "LL128", 24)),
        (NODE, "all_gather", GIB, ("Ring", "Simple", 24)),
        (NODE, "broadcast", GIB, ("Ring", "Simple", 24)),
        (NODE, "all_to_all", GIB, ("Sends", "", 32)),
        (TWO_NODES, "all_reduce", GIB, ("NVLSTree", "Simple", 16)),
        (load_topology("dgx-h100", 4, 4), "all_gather", 2**10, ("Ring", "LL", 4)),
        (load_topology("dgx-a100"), "all_reduce", GIB, ("Ring", "Simple", 24)),
    ],
)  # fmt: skip
def test_choice(topology, kind, n_bytes, expected):
    found = estimate_collective(topology, GPU, kind, range(topology.n_ranks), n_bytes)
    assert (found.algorithm, found.protocol, found.channels) == expected


@pytest.mark.parametrize(
    ("channels", "kind", "rank_mib", "measured_us"),
    [
        (1, "all_gather", 1024, 70823.9), (1, "reduce_scatter", 1024, 29287.7), (1, "all_reduce", 1024, 51140.6),
        (1, "all_reduce", 16, 806.6), (2, "all_gather", 64, 2238.2), (4, "all_gather", 16, 293.6),
        (4, "reduce_scatter", 256, 1871.4), (4, "all_reduce", 256, 3242.3), (4, "all_reduce", 1024, 12951.9),
    ],
)  # fmt: skip
def test_rings_over_few_channels_take_the_time_that_was_measured(channels, kind, rank_mib, measured_us):
    """Two H100 (NV18), NCCL 2.28.9: what a channel copies is NCCL's constant; all-gathers over one gave ``KEPT``."""
    pair = load_topology(f"h200-nvlink-pair:channels={channels}", 2)
    found = estimate_collective_s(pair, GPU, kind, range(2), rank_mib * MIB)
    assert found * 1e6 == approx(measured_us, rel=0.04)


def test_ll_over_one_channel_is_as_slow_as_one_channel():
    """All-gather of 512 KiB a rank, 128.5 us measured; NCCL takes LL as if it had all of its channels."""
    pair = load_topology("h200-nvlink-pair:channels=1", 2)
    found = estimate_collective(pair, GPU, "all_gather", range(2), 2**19)
    assert found.protocol == "LL" and found.seconds > 80e-6


@pytest.mark.parametrize(("n", "measured_gb_per_s"), [(2, 384), (3, 479)])
def test_ll128_of_few_b200_is_bound_by_what_its_channels_handle(n, measured_gb_per_s):
    """1 GiB, forced Ring/LL128, NCCL 2.31.2 (NVIDIA/nccl#2343: 382 to 386, and about 479); NCCL's tuner says 640."""
    found = estimate_collective(
        load_topology("hgx-b200", n), load_hardware("b200"), "all_reduce", range(n), GIB, algorithm="Ring",
        protocol="LL128",
    )  # fmt: skip
    assert 2 * (n - 1) / n * GIB / found.seconds / 1e9 == approx(measured_gb_per_s, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "rank_mib", "measured_us"),
    [
        ("all_gather", 4, 33.8), ("all_gather", 32, 167.6), ("reduce_scatter", 64, 175.7), ("all_reduce", 8, 49.2),
        ("all_reduce", 128, 516.8),
    ],
)  # fmt: skip
def test_ll128_of_two_h100_without_any_fit(kind, rank_mib, measured_us):
    """Two H100 (NV18), NCCL 2.28.9, Ring and LL128 forced, by each rank's input."""
    terms = Terms(NCCL_TERMS["nvlink"], NCCL_TERMS["net"])
    pair = load_topology("h200-nvlink-pair", 2)
    found = estimate_collective(
        pair, GPU, kind, range(2), rank_mib * MIB, algorithm="Ring", protocol="LL128", terms=terms
    )
    assert found.seconds * 1e6 == approx(measured_us, rel=0.2)


def test_choice_can_be_overridden():
    usual = estimate_collective(NODE, GPU, "all_reduce", range(8), GIB)
    ring = estimate_collective(NODE, GPU, "all_reduce", range(8), GIB, algorithm="Ring")
    low = estimate_collective(NODE, GPU, "all_reduce", range(8), GIB, algorithm="Ring", protocol="LL")
    assert (ring.algorithm, low.protocol) == ("Ring", "LL")
    assert usual.seconds < ring.seconds < low.seconds
    with pytest.raises(InputError, match="PAT"):
        estimate_collective(NODE, GPU, "all_reduce", range(8), GIB, algorithm="PAT")


def test_variables_restrict_the_choice_and_the_channels():
    node = load_topology("dgx-h100", nccl=NcclSettings(nvls_enable=False, max_nchannels=4))
    found = estimate_collective(node, GPU, "all_reduce", range(8), GIB)
    assert (found.algorithm, found.channels) == ("Ring", 4)
    assert 1.75 * GIB / found.seconds < 4 * 36.7e9
    without = load_topology("dgx-h100", nccl=NcclSettings(algo=("Tree",)))
    assert estimate_collective(without, GPU, "all_reduce", range(8), GIB).algorithm == "Tree"


def test_pat_is_weighed_with_one_gpu_per_node_only():
    spread = load_topology("dgx-h100", 8, 8)
    assert estimate_collective(spread, GPU, "all_gather", range(8), MIB, algorithm="PAT").seconds > 0
    with pytest.raises(InputError):
        estimate_collective(TWO_NODES, GPU, "all_gather", range(16), MIB, algorithm="PAT")


def test_all_gather_over_nodes_uses_every_nic():
    seconds = estimate_collective_s(TWO_NODES, GPU, "all_gather", range(16), GIB)
    assert 15 * GIB / seconds / 1e9 > 6 * 48


def test_all_to_all_over_nodes_is_bound_by_each_ranks_nic():
    seconds = estimate_collective_s(TWO_NODES, GPU, "all_to_all", range(16), 16 * GIB)
    assert 40 < 8 * GIB / seconds / 1e9 < 48  # PCIe Gen5 is slower than the NIC; rapidsmpf measured 38


def test_groups_alike_cost_alike():
    pairs = [estimate_collective_s(TWO_NODES, GPU, "all_gather", [r, r + 1], GIB) for r in (0, 2, 8, 14)]
    assert pairs == [pairs[0]] * 4


@pytest.mark.parametrize(
    ("kind", "ranks", "n_bytes"),
    [("gossip", [0, 1], 1), ("all_gather", [0, 0], 1), ("all_gather", [], 1), ("all_gather", [0, 8], 1)]
    + [("all_gather", [-1, 0], 1), ("all_gather", [0, 1], -1)],
)
def test_bad_input(kind, ranks, n_bytes):
    with pytest.raises(InputError):
        estimate_collective_s(NODE, GPU, kind, np.array(ranks, dtype=np.int64), n_bytes)


@pytest.mark.parametrize("kind", COLLECTIVES)
def test_a_slow_link_slows_every_collective_that_crosses_it(kind):
    slow = slow_links(NODE, {"gpu:3->nvs:0": 0.25})
    usual, slower = (estimate_collective_s(each, GPU, kind, range(8), GIB) for each in (NODE, slow))
    assert 2 < slower / usual < 4.2
    apart = [4, 5, 6, 7]
    assert estimate_collective_s(slow, GPU, kind, apart, GIB) == estimate_collective_s(NODE, GPU, kind, apart, GIB)


def test_a_slow_port_of_the_second_node_slows_the_cluster():
    link = next(link.name for link in TWO_NODES.links if link.source == "nic:1.2")
    slow = slow_links(TWO_NODES, {link: 0.5})
    usual, slower = (estimate_collective_s(each, GPU, "all_gather", range(16), GIB) for each in (TWO_NODES, slow))
    assert slower / usual == approx(48 / 25, rel=0.05)


def test_nvls_trees_over_nodes_fill_once_and_go_as_fast_as_switches_or_nics():
    """Two nodes: the switches' 476 GB/s (measured 470 to 487); more: each NIC carries the data twice, 8 of 48 GB/s."""
    size = 2**35
    for nodes, bus_gb_per_s in ((2, 476), (4, 384), (8, 384)):
        n = 8 * nodes
        cluster = load_topology("dgx-h100", n)
        found = estimate_collective(cluster, GPU, "all_reduce", range(n), size, algorithm="NVLSTree")
        assert size * 2 * (n - 1) / n / found.seconds / 1e9 == approx(bus_gb_per_s, rel=0.05)


def bus_gb_per_s(topology, size=2**34):
    n = topology.n_ranks
    seconds = estimate_collective_s(topology, GPU, "all_gather", range(n), size / n)
    return size * (n - 1) / n / seconds / 1e9


def test_rings_over_an_oversubscribed_fat_tree_are_bound_by_its_spine():
    """8 rings leave each node over its leaf's 400 GB/s / 4; on one leaf, or on rails, they do not meet the spine."""
    whole = bus_gb_per_s(load_topology("dgx-h100", 32))
    tree = "dgx-h100:fabric=fat-tree,oversubscription=4,nodes-per-leaf="
    assert bus_gb_per_s(load_topology(tree + "1", 32)) == approx(100 * whole / 384, rel=0.05)
    assert bus_gb_per_s(load_topology(tree + "4", 32)) == approx(whole)
    assert bus_gb_per_s(load_topology("dgx-h100:oversubscription=4", 32)) == approx(whole)


def test_rings_that_are_hashed_onto_one_link_share_it():
    """4 links of 100 GB/s for 8 rings of 48: two fit, and any seed puts more onto one of them."""
    whole = bus_gb_per_s(load_topology("dgx-h100", 16))
    shares = {
        bus_gb_per_s(load_topology(f"dgx-h100:fabric=fat-tree,nodes-per-leaf=1,spines=4,ecmp-seed={seed}", 16)) / whole
        for seed in range(4)
    }
    assert all(min(abs(share - 100 / 48 / crowd) for crowd in range(3, 9)) < 0.04 for share in shares)


@pytest.mark.parametrize("size", [2**12, 2**20, GIB])
def test_a_reduce_goes_along_the_ring_as_a_broadcast_does(size):
    reduced, sent = (estimate_collective(NODE, GPU, kind, range(8), size) for kind in ("reduce", "broadcast"))
    assert reduced == sent and reduced.algorithm == "Ring"
    assert reduced.seconds < estimate_collective(NODE, GPU, "all_reduce", range(8), size, algorithm="Ring").seconds
