"""NCCL's search: known machines, its own graph dumps, and that no link carries more than it has."""

import xml.etree.ElementTree as ET  # our own fixtures
from pathlib import Path

import pytest

from cost_models.network import graphs
from cost_models.network.channels import BALANCED_TREE, RING
from cost_models.network.graphs import find_graph, find_nvls
from cost_models.network.node import Node
from cost_models.network.search import Search
from cost_models.topology import load_topology
from cost_models.variation import parse_variation

FIXTURES = Path(__file__).parents[3] / ".." / "shared" / "fixtures"
needs_fixtures = pytest.mark.skipif(not FIXTURES.exists(), reason="no shared fixtures")


def node_of(topology, several=None):
    return Node(topology.transports[0], topology.n_nodes > 1 if several is None else several)


def load(*ranks_of_node):
    return node_of(load_topology(*ranks_of_node))


def shape(graph):
    return len(graph.channels), graph.intra_gb_per_s


KNOWN = {
    "dgx-a100": ((12, 20), None),
    "dgx-h100": ((12, 30), (8, 40)),
    "hgx-b200": ((16, 45), (8, 80)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_nvswitch_nodes(name):
    """240, 360 and 720 GB/s of rings, as NVIDIA's logs have it."""
    node = load(name)
    assert shape(find_graph(node, RING)) == KNOWN[name][0]
    nvls = find_nvls(node)
    assert (shape(nvls) if nvls.channels else None) == KNOWN[name][1]


def test_between_nodes_each_nic_carries_one_channel():
    graph = find_graph(load("dgx-h100", 16), RING)
    assert shape(graph) == (8, 48)
    assert sorted(channel.net_in for channel in graph.channels) == list(range(8))
    assert sorted(channel.net_out for channel in graph.channels) == list(range(8))
    assert graph.type_inter.name == "PIX"


def test_without_another_nic_rings_relay_through_gpus():
    """A ring must come back to the NIC it came in by, from another GPU: over NVLink, through the NIC's own GPU."""
    graph = find_graph(load("dgx-h100", 16), RING, cross_nic=0)
    assert all(channel.net_in == channel.net_out for channel in graph.channels)
    assert graph.type_inter.name == "PXN"
    assert graph.bus_gb_per_s < find_graph(load("dgx-h100", 16), RING).bus_gb_per_s  # relays take NVLink, too


@pytest.mark.parametrize("several", [False, True], ids=["one", "two"])
@pytest.mark.parametrize("name", ["dgx-a100", "dgx-h100", "pcie-8x", "gb200-nvl72"])
@pytest.mark.parametrize("pattern", [RING, BALANCED_TREE])
def test_no_link_carries_more_than_it_has(name, several, pattern):
    node = node_of(load_topology(name, 16, 2), several)
    graph = find_graph(node, pattern)
    load = dict.fromkeys(range(len(node.capacities)), 0.0)
    for channel in graph.channels:
        gpus = channel.gpus
        assert sorted(gpus) == list(range(node.n_gpus))
        hops = [node.gpu_ways[pair] for pair in zip(gpus, gpus[1:], strict=False)]
        if channel.net_in >= 0:
            end = gpus[-1] if pattern == RING else gpus[0]
            hops += [node.in_way(channel.net_in, gpus[0]), node.out_ways[end, channel.net_out]]
        elif pattern == RING:
            hops.append(node.gpu_ways[gpus[-1], gpus[0]])
        for way in hops:
            for link, share in zip(way.links, way.shares, strict=True):
                load[link] += share * (graph.intra_gb_per_s if way.inside else graph.inter_gb_per_s)
    assert all(used <= node.capacities[link] + 1e-3 for link, used in load.items())


def test_a_group_of_two_of_a_node_has_its_own_channels():
    topology = load_topology("dgx-h100")
    pair = Node(topology.transports[0], False, (2, 5))
    assert shape(find_graph(pair, RING)) == (12, 30)
    assert pair.signature == Node(topology.transports[0], False, (6, 7)).signature


def test_many_gpus_on_one_switch_only_make_rings_longer():
    graph = find_graph(load("gb200-nvl72"), RING)
    assert shape(graph) == (16, 45)
    assert all(sorted(channel.gpus) == list(range(72)) for channel in graph.channels)


def read_dump(name, pattern):
    (graph,) = (each for each in ET.parse(FIXTURES / "nccl_graph" / name).getroot() if each.get("id") == pattern)
    orders = [tuple(int(gpu.get("dev"), 16) for gpu in channel.iter("gpu")) for channel in graph]
    return graph, orders


DUMPS = {
    "h200x2_vm_topo.xml": ("h200x2_vm_graph.xml", False),
    "yccl_4xA6000_2socket_topo.xml": ("yccl_4xA6000_graph.xml", False),
    "panlichen_8x3090_pcie_topo.xml": ("panlichen_8x3090_2node_graph.xml", True),
}


@needs_fixtures
@pytest.mark.parametrize("topo", DUMPS)
def test_rings_are_those_of_the_dump(topo):
    dump, several = DUMPS[topo]
    expected, orders = read_dump(dump, "0")
    graph = find_graph(node_of(load_topology(FIXTURES / "nccl_topo" / topo), several), RING)
    assert shape(graph) == (int(expected.get("nchannels")), float(expected.get("speedintra")))
    assert graph.inter_gb_per_s == float(expected.get("speedinter"))
    assert graph.type_intra.name == expected.get("typeintra")
    assert graph.same_channels == (expected.get("samechannels") == "1")
    assert [channel.gpus for channel in graph.channels] == orders


@needs_fixtures
@pytest.mark.parametrize("topo", DUMPS)
def test_trees_are_those_of_the_dump(topo):
    """Of the 2-node 3090s the speed between nodes only: that dump is older than the search's last step for trees."""
    dump, several = DUMPS[topo]
    expected, orders = read_dump(dump, "1")
    node = node_of(load_topology(FIXTURES / "nccl_topo" / topo), several)
    count = len(find_graph(node, RING).channels)
    graph = find_graph(node, BALANCED_TREE, count, count)
    assert len(graph.channels) == int(expected.get("nchannels"))
    assert graph.inter_gb_per_s == float(expected.get("speedinter"))
    if not several:
        assert graph.intra_gb_per_s == float(expected.get("speedintra"))
        assert sorted(channel.gpus for channel in graph.channels) == sorted(orders)


@needs_fixtures
def test_azure_ncv4_with_the_nvlinks_that_its_dump_has(tmp_path):
    """The published topology names each GPU as its own peer; the graph was made with pairs, as the machine has."""
    text = (FIXTURES / "nccl_topo" / "azure_ncv4_topo.xml").read_text()
    for one, other in (("0001", "0002"), ("0003", "0004")):
        mark = f'<nvlink target="{one}:00:00.0"', f'<nvlink target="{other}:00:00.0"'
        text = text.replace(mark[0], "@").replace(mark[1], mark[0]).replace("@", mark[1])
    path = tmp_path / "ncv4.xml"
    path.write_text(text)
    expected, orders = read_dump("azure_ncv4_graph.xml", "0")
    graph = find_graph(node_of(load_topology(path)), RING)
    assert shape(graph) == (int(expected.get("nchannels")), float(expected.get("speedintra")))
    assert [channel.gpus for channel in graph.channels] == orders


@pytest.mark.parametrize("scale", ["", "nvlink=0.45", "pcie=0.7", "net=0.4"])
@pytest.mark.parametrize("name", ["dgx-h100", "dgx-a100", "pcie-8x"])
def test_a_search_that_is_spared_would_have_found_nothing(monkeypatch, name, scale):
    """Whole searches, each as it is asked for, with and without the test that spares it; and many are spared."""
    spared, reachable, may_improve = [], [], graphs._can_improve

    def never_spare(wanted, known, least, most, cuts):
        spared.append(not may_improve(wanted, known, least, most, cuts))
        reachable.append((most, cuts.least_hops))
        return True

    class Unspared(Search):
        def run(self):
            known, found = self.best, super().run()
            if found is not known:
                most, least_hops = reachable[-1]
                assert not spared[-1]
                assert len(found.channels) <= most and found.hops >= len(found.channels) * least_hops
            return found

    monkeypatch.setattr(graphs, "_can_improve", never_spare)
    monkeypatch.setattr(graphs, "Search", Unspared)
    monkeypatch.setattr(graphs, "_FOUND", {})
    topology = load_topology(name, 8)
    topology = parse_variation(scale).topology(topology) if scale else topology
    for several in (False, True):
        node = node_of(topology, several)
        find_graph(node, BALANCED_TREE, *[len(find_graph(node, RING).channels)] * 2)
    assert 0.1 < sum(spared) / len(spared) < 1


@pytest.mark.parametrize("several", [False, True], ids=["one", "two"])
@pytest.mark.parametrize("pattern", [RING, BALANCED_TREE])
def test_long_channels_leave_every_gpu_its_links(several, pattern):
    """72 GPUs of 721.8 GB/s: those in the middle pass every channel on, so that 15 of 48 GB/s fit, not 16."""
    node = node_of(load_topology("gb200-nvl72", 144, 2), several)
    graph = find_graph(node, pattern)
    load = dict.fromkeys(range(len(node.capacities)), 0.0)
    for channel in graph.channels:
        for hop in zip(channel.gpus, channel.gpus[1:], strict=False):
            for link in node.gpu_ways[hop].links:
                load[link] += graph.intra_gb_per_s
    assert max(used / node.capacities[link] for link, used in load.items()) <= 1
    assert len(graph.channels) * graph.intra_gb_per_s == pytest.approx(720, rel=0.01)
