"""Ranks on nodes, numbering of links, classes of pairs, and size."""

import time
from itertools import product

import numpy as np
import pytest

from cost_models.topology import ClusterTopology, load_topology
from traces.errors import InputError


def test_ranks_fill_nodes_in_order() -> None:
    topology = load_topology("dgx-h100", n_ranks=12)
    assert (topology.n_nodes, topology.ranks_per_node, topology.gpus_per_node) == (2, 6, 8)
    assert topology.node_of.tolist() == [0] * 6 + [1] * 6
    assert topology.local_rank.tolist() == [*range(6), *range(6)]


def test_first_gpus_of_a_node_are_taken() -> None:
    topology = load_topology("pcie-8x", n_ranks=2)
    assert topology.route(0, 1).kind == "pcie"
    gpus = {link.source for link in topology.links if link.source.startswith("gpu")}
    assert gpus == {"gpu:0", "gpu:1"}


def test_links_are_numbered_as_listed_and_come_in_pairs() -> None:
    topology = load_topology("dgx-h100:fabric=fat-tree,nodes-per-leaf=2", n_ranks=48)
    links = list(topology.links)
    assert [link.index for link in links] == list(range(len(links)))
    for one, other in zip(links[::2], links[1::2], strict=True):
        assert (one.source, one.target) == (other.target, other.source)
        assert one.capacity_bytes_per_s == other.capacity_bytes_per_s
    assert [link.capacity_bytes_per_s for link in links] == topology.link_capacities_bytes_per_s.tolist()
    assert [link.latency_s for link in links] == topology.link_latencies_s.tolist()
    assert topology.links[-1] == links[-1]
    assert topology.links[2:4] == tuple(links[2:4])
    with pytest.raises(IndexError):
        topology.links[len(links)]


def test_link_names_are_unique_within_a_type() -> None:
    topology = load_topology("gb200-nvl72", nodes=2)
    names = [(link.name, link.type) for link in topology.links]
    assert len(set(names)) == len(names)


def test_graph_has_the_devices_and_is_connected() -> None:
    import networkx as nx

    topology = load_topology("dgx-h100", n_ranks=16)
    assert {"gpu:0", "gpu:15", "nvs:1", "cpu:0.1", "nic:1.7", "leaf:0", "spine"} <= set(topology.graph)
    assert any(name.startswith("pci:0000:00:00.0@0") for name in topology.graph)
    assert nx.is_strongly_connected(topology.graph)
    edge = topology.graph["gpu:0"]["nvs:0"]
    assert edge["capacity_bytes_per_s"] == pytest.approx(370.8e9)
    assert topology.links[edge["index"]].name == "gpu:0->nvs:0"
    assert "gpu:0" not in topology.node_graph(1)


def test_graph_keeps_the_faster_of_two_connections() -> None:
    topology = load_topology("gb200-nvl72")
    assert topology.graph["gpu:0"]["cpu:0.0"]["type"] == "C2C"


@pytest.mark.parametrize(
    "topology",
    [
        load_topology("dgx-h100", n_ranks=32),
        load_topology("dgx-a100:fabric=fat-tree,nodes-per-leaf=2", n_ranks=40),
        load_topology("pcie-8x", n_ranks=16),
        load_topology("h200-shm-pair"),
    ],
    ids=lambda topology: topology.name,
)
def test_class_represents_every_pair(topology: ClusterTopology) -> None:
    ranks = np.arange(topology.n_ranks)
    classes = topology.pair_class(ranks[:, None], ranks[None, :])
    assert classes.shape == (topology.n_ranks, topology.n_ranks)
    for src, dst in product(ranks.tolist(), repeat=2):
        route, example = topology.route(src, dst), topology.pair_classes[classes[src, dst]]
        assert (route.path_type, route.kind) == (example.path_type, example.kind)
        assert (route.latency_s, route.bytes_per_s) == (example.latency_s, example.bytes_per_s)


def test_classes_are_few_and_kept() -> None:
    topology = load_topology("dgx-h100", n_ranks=64)
    first = topology.pair_class([0, 0, 0, 0], [0, 1, 8, 9]).tolist()
    assert len(set(first)) == 4
    assert topology.pair_class([5, 9, 1, 63], [5, 10, 17, 0]).tolist() == first
    assert len(topology.pair_classes) == 4
    assert topology.pair_class([], []).shape == (0,)


@pytest.mark.parametrize("pair", [(0, 8), (-1, 0), (8, 0)])
def test_ranks_outside_are_refused(pair: tuple[int, int]) -> None:
    topology = load_topology("dgx-h100")
    with pytest.raises(InputError, match="no such rank"):
        topology.route(*pair)
    with pytest.raises(InputError, match="no such rank"):
        topology.pair_class(*pair)


@pytest.mark.parametrize("fabric", ["rail", "fat-tree"])
def test_16384_ranks_are_quick(fabric: str) -> None:
    start = time.perf_counter()
    topology = load_topology(f"dgx-h100:fabric={fabric}", n_ranks=16384)
    ranks = np.arange(16384)
    classes = topology.pair_class(ranks, np.roll(ranks, -1))
    assert time.perf_counter() - start < 2.0  # 0.03 s alone; several tests run at once
    assert topology.n_nodes == 2048
    assert len(set(classes.tolist())) <= 3
    assert topology.route(0, 16383).kind == "net"


def test_equal_only_to_itself() -> None:
    one, other = load_topology("dgx-h100"), load_topology("dgx-h100")
    assert one != other
    assert len({one, other, one}) == 2
