"""Presets: sizes, rates, fabric, and the routes that they lead to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.hardware import load_hardware
from cost_models.network import estimate_exchange_s
from cost_models.topology import PRESET_NAMES, LinkType, NcclSettings, PathType, load_topology
from traces.errors import InputError

CLUSTERS = {"dgx-a100": 8, "dgx-h100": 8, "hgx-h200": 8, "gb200-nvl72": 72, "pcie-8x": 8}


@pytest.mark.parametrize(
    ("name", "gpu", "nvlink_gb_per_s", "net_gb_per_s"),
    [
        ("dgx-a100", "a100-80", 240.0, 24.0),  # PCIe Gen4 carries less than HDR
        ("dgx-h100", "h100-sxm", 370.8, 48.0),
        ("hgx-h200", "h200-sxm", 370.8, 48.0),
        ("gb200-nvl72", "b200", 721.8, 48.0),
    ],
)
def test_nvlink_inside_and_network_between(name: str, gpu: str, nvlink_gb_per_s: float, net_gb_per_s: float) -> None:
    per_node = CLUSTERS[name]
    topology = load_topology(name, nodes=2)
    assert (topology.gpu, topology.gpus_per_node, topology.n_ranks) == (gpu, per_node, 2 * per_node)
    inside, between = topology.route(0, per_node - 1), topology.route(0, per_node)
    assert (inside.kind, inside.path_type) == ("nvlink", PathType.NVL)
    assert inside.bytes_per_s == pytest.approx(nvlink_gb_per_s * 1e9)
    assert (between.kind, between.path_type) == ("net", PathType.NET)
    assert between.bytes_per_s == pytest.approx(net_gb_per_s * 1e9)


def test_pcie_box_has_peer_to_peer_behind_a_switch_only() -> None:
    topology = load_topology("pcie-8x")
    routes = [topology.route(0, rank) for rank in (1, 2, 4)]
    assert [route.kind for route in routes] == ["pcie", "shm", "shm"]
    assert [route.path_type for route in routes] == [PathType.PIX, PathType.PHB, PathType.SYS]
    assert [route.bytes_per_s / 1e9 for route in routes] == [24, 24, 22]


def test_geforce_has_no_peer_to_peer() -> None:
    topology = load_topology("pcie-8x", gpu="rtx4090")
    route = topology.route(0, 1)
    assert (topology.gpu, route.kind, route.path_type) == ("rtx4090", "shm", PathType.PIX)
    names = [topology.links[link].name for link in route.links]
    assert names[1].endswith("cpu:0.0")
    assert names[2].startswith("cpu:0.0")


@pytest.mark.parametrize(
    ("spec", "kind", "size", "measured_gb_per_s", "within"),
    [
        ("h200-nvlink-pair", "nvlink", 2**28, 301.5, 0.05),
        ("h200-nvlink-pair:channels=1", "nvlink", 2**30, 22.2, 0.02),
        ("h200-nvlink-pair:channels=2", "nvlink", 2**30, 44.3, 0.02),
        ("h200-nvlink-pair:channels=4", "nvlink", 2**30, 88.3, 0.02),
        ("h200-shm-pair", "shm", 2**32, 24, 0.02),
        ("h200-socket-pair", "socket", 2**32, 2.6, 0.02),
    ],
)
def test_measured_pairs(spec: str, kind: str, size: int, measured_gb_per_s: float, within: float) -> None:
    topology = load_topology(spec, n_ranks=2)
    there, back = topology.route(0, 1), topology.route(1, 0)
    assert (topology.name, topology.gpu, topology.n_nodes, topology.gpus_per_node) == (spec, "h200-sxm", 1, 2)
    assert there.kind == back.kind == kind
    seconds = estimate_exchange_s(topology, load_hardware("h200-sxm"), [0, 1], [1, 0], size)
    assert size / seconds / 1e9 == pytest.approx(measured_gb_per_s, rel=within)
    shared = {topology.links[link].type for link in set(there.links) & set(back.links)}
    assert shared <= {LinkType.MEM}  # both directions at once at full rate, but for the host's memory
    assert there.host_bytes_per_s > 2 * there.bytes_per_s


def test_rail_fabric_spares_the_spine_on_one_rail() -> None:
    topology = load_topology("dgx-h100", n_ranks=32)
    names = [topology.links[link].target for link in topology.route(3, 11).links]
    assert "spine" not in names
    assert "leaf:3" in names
    relayed = [topology.links[link].target for link in topology.route(3, 12).links]
    assert relayed.index("gpu:4") < relayed.index("leaf:4")  # PXN: through the GPU of the receiver's rail
    assert "spine" not in relayed
    own = load_topology("dgx-h100", n_ranks=32, nccl=NcclSettings(pxn_disable=True))
    names = [own.links[link].target for link in own.route(3, 12).links]
    assert "spine" in names and "leaf:3" in names


def test_nvl72_has_four_rails() -> None:
    topology = load_topology("gb200-nvl72", nodes=2, nccl=NcclSettings(pxn_disable=True))
    leaves = {link.target for link in topology.links if link.target.startswith("leaf")}
    assert leaves == {"leaf:0", "leaf:1", "leaf:2", "leaf:3"}
    assert len(topology.route(1, 72 + 5).links) < len(topology.route(1, 72 + 6).links)


def test_fat_tree_leaves_hold_four_nodes() -> None:
    topology = load_topology("dgx-h100:fabric=fat-tree", n_ranks=64)
    near, far = topology.route(0, 8 * 3 + 5), topology.route(0, 8 * 4)
    assert "spine" not in [topology.links[link].target for link in near.links]
    assert "spine" in [topology.links[link].target for link in far.links]


@pytest.mark.parametrize("fabric", ["rail", "fat-tree"])
def test_oversubscription_narrows_the_spine(fabric: str) -> None:
    topology = load_topology(f"dgx-h100:fabric={fabric},oversubscription=2,nodes-per-leaf=1", n_ranks=16)
    up = [link for link in topology.links if link.target == "spine"]
    ports = 2 if fabric == "rail" else 8
    assert {link.capacity_bytes_per_s for link in up} == {ports * 50e9 / 2}


def test_a100_40_is_a_dgx_a100_too() -> None:
    assert load_topology("dgx-a100", gpu="a100-40").gpu == "a100-40"


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_presets_say_their_source_and_warn_of_nothing(name: str) -> None:
    topology = load_topology(name)
    assert topology.source
    assert topology.warnings == ()
    assert {link.type for link in topology.links} <= set(LinkType)


@given(name=st.sampled_from(sorted(CLUSTERS)), fabric=st.sampled_from(["rail", "fat-tree"]), data=st.data())
def test_routes_are_symmetric_and_as_fast_as_their_slowest_link(name: str, fabric: str, data: st.DataObject) -> None:
    topology = load_topology(f"{name}:fabric={fabric},oversubscription=3", nodes=6)
    ranks = st.integers(0, topology.n_ranks - 1)
    src, dst = data.draw(ranks), data.draw(ranks)
    there, back = topology.route(src, dst), topology.route(dst, src)
    assert (there.path_type, there.kind, there.bytes_per_s) == (back.path_type, back.kind, back.bytes_per_s)
    assert there.latency_s == pytest.approx(back.latency_s)
    if src == dst:
        assert (there.links, there.kind, there.bottleneck) == ((), "local", -1)
        return
    links = [topology.links[link] for link in there.links]
    assert there.bytes_per_s == min(link.capacity_bytes_per_s for link in links)
    assert topology.links[there.bottleneck].capacity_bytes_per_s == there.bytes_per_s
    assert there.latency_s == pytest.approx(sum(link.latency_s for link in links))
    assert (links[0].source, links[-1].target) == (f"gpu:{src}", f"gpu:{dst}")
    assert all(one.target == other.source for one, other in zip(links, links[1:], strict=False))


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("dgx-h100:fabric=torus", "unknown fabric"),
        ("dgx-h100:oversubscription=0.5", "oversubscription"),
        ("dgx-h100:oversubscription=nan", "oversubscription"),
        ("dgx-h100:oversubscription=much", "not a number"),
        ("dgx-h100:nodes-per-leaf=0", "nodes-per-leaf"),
        ("dgx-h100:channels=1", "no option 'channels'"),
        ("h200-nvlink-pair:channels=3", "channels was not measured"),
        ("h200-shm-pair:channels=1", "no option"),
        ("dgx-h100:", "malformed"),
    ],
)
def test_bad_options_are_refused(spec: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        load_topology(spec)
