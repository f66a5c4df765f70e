"""The bandwidth report: what limits known machines, and its tables and JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
from pytest import approx

from cost_models.hardware import load_hardware
from cost_models.network.bandwidth import measure_bandwidth
from cost_models.network.loads import all_to_all_loads
from cost_models.network.tables import bandwidth_tables, describe_bandwidth
from cost_models.topology import load_topology
from simulator.replay.source import DATA
from traces.errors import InputError

FIXTURES = Path(__file__).parents[3] / ".." / "shared" / "fixtures"
needs_fixtures = pytest.mark.skipif(not FIXTURES.exists(), reason="no shared fixtures")


def report_of(name, *ranks, hardware):
    return measure_bandwidth(load_topology(name, *ranks), load_hardware(hardware))


@pytest.fixture(scope="module")
def two_nodes():
    return report_of("dgx-h100", 16, hardware="h100-sxm")


def patterns(report):
    return {each.pattern: each for each in report.patterns}


def test_a_flat_ring_has_one_nic_and_an_all_gather_all_of_them(two_nodes):
    """The facts (context-parallel-and-masks.md 4.4) have about six times; here the cause is eight ports against one."""
    found = patterns(two_nodes)
    assert found["all_gather"].bytes_per_s / found["ring"].bytes_per_s == approx(7, abs=1)
    assert found["ring"].bytes_per_s == approx(0.96 * 48e9)


def test_patterns_name_the_link_that_limits(two_nodes):
    assert {each.bottleneck.partition("->")[0].partition(":")[0] for each in two_nodes.patterns} <= {"gpu", "pci"}
    node = patterns(report_of("pcie-8x", hardware="l40s"))
    assert node["ring"].bottleneck.startswith("gpu:")
    assert node["all_to_all"].bottleneck == "cpu:0.0->cpu:0.1"
    tree = patterns(report_of("dgx-a100:fabric=fat-tree,oversubscription=4,nodes-per-leaf=1", 64, hardware="a100-80"))
    assert "spine" in tree["all_to_all"].bottleneck


@pytest.mark.parametrize(
    "name", ["dgx-h100", "pcie-8x", "dgx-a100:fabric=fat-tree,oversubscription=2", "h200-shm-pair"]
)
def test_no_pattern_overloads_a_link(name):
    topology = load_topology(name, None, 1 if "pair" in name else 2)
    report = measure_bandwidth(topology, load_hardware(topology.gpu))
    for each in report.patterns:
        assert 0 < each.share <= 1 + 1e-9
        assert each.loads.max() <= 1 + 1e-9


def test_pairs(two_nodes):
    assert (two_nodes.pairs[0, 1].kind, two_nodes.pairs[0, 1].bottleneck) == ("nvlink", "gpu:0->nvs:0")
    assert two_nodes.pairs[0, 8].kind == "net"
    assert len(two_nodes.pairs) == 16 * 15


def test_a_large_cluster_is_as_its_nodes_are():
    """The first node stands for all: the same loads as pair by pair, on its own links and on its leaf's."""
    for name in ("dgx-h100", "dgx-a100:fabric=fat-tree,oversubscription=4"):
        topology = load_topology(name, 144)
        large = all_to_all_loads(topology, np.arange(144))
        exact = np.zeros_like(large)
        from cost_models.network import route_flows

        src, dst = (ends.ravel() for ends in np.indices((144, 144)))
        np.add.at(exact, route_flows(topology, src[src != dst], dst[src != dst]).link, 1)
        own = [*topology.numbering.links_of_node(0), topology.numbering.spine_link(0)]
        assert large[own] == approx(exact[own])


def test_tables_and_json_agree(two_nodes):
    facts = json.loads(json.dumps(describe_bandwidth(two_nodes)))
    assert facts["matrix"][0][0] is None
    assert facts["matrix"][0][8]["gb_per_s"] == approx(0.96 * 48)
    assert [each["pattern"] for each in facts["patterns"]] == ["ring", "ring_of_16_mib", "all_to_all", "all_gather"]
    assert facts["channels"]["rings"] == 8
    titles = [table.title for table in bandwidth_tables(two_nodes)]
    assert len(titles) == 5  # 16 columns in two blocks
    assert not any("row" in table.title for table in bandwidth_tables(report_of("gb200-nvl72", 32, hardware="b200")))


@needs_fixtures
@pytest.mark.parametrize("nodes", [1, 2])
def test_every_fixture_can_be_reported(nodes):
    """One file after the other: hosts of clouds, VMs and workstations; of pairs of hosts every fourth, to be quick."""
    paths = sorted([*FIXTURES.glob("nccl_topo/*.xml"), *FIXTURES.glob("nvidia_smi_topo/*.txt")])
    for path in paths[:: 1 if nodes == 1 else 4]:
        try:
            host = load_topology(path)
            topology = load_topology(path, nodes * host.n_ranks, nodes * host.n_nodes)
        except InputError:  # another version's file; a host without ports as one of two
            continue
        report = measure_bandwidth(topology, load_hardware(topology.gpu or "l40s"))
        assert all(0 < each.share <= 1.01 for each in report.patterns), path.name
        assert bandwidth_tables(report)


@needs_fixtures
def test_a_virtual_topology_that_is_wrong_is_warned_of():
    topology = load_topology(FIXTURES / "nccl_topo" / "ibm_vpc_h100_gx3_topo.xml")
    assert any("0.188 GB/s" in warning and "virtual" in warning for warning in topology.warnings)


def test_a_ring_of_usual_hops_is_limited_by_the_channels_of_a_send():
    found = patterns(report_of("dgx-h100", 8, hardware="h100-sxm"))
    assert found["ring_of_16_mib"].bottleneck == "4 channels of a send"
    assert found["ring_of_16_mib"].bytes_per_s == approx(4 * 22.1e9, rel=1e-3) and found["ring"].bytes_per_s > 290e9


def test_where_buffers_are_bound_to_one_numa_node_its_memory_limits_every_pattern():
    topology = load_topology(DATA / "epyc_4x4090.xml", host_numa="0")
    limits = {each.bottleneck for each in measure_bandwidth(topology, load_hardware("rtx4090")).patterns}
    assert limits == {"cpu:0.0->mem:0.0"}
