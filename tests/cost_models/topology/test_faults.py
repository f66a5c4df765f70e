"""Slow and lost links: what changes, what stays, and who is cut off."""

from __future__ import annotations

import numpy as np
import pytest

from cost_models.hardware import load_hardware
from cost_models.network import estimate_exchange_s, route_flows
from cost_models.topology import load_topology, lose, slow_links
from traces.errors import InputError


def test_a_slow_link_slows_what_crosses_it_and_nothing_else() -> None:
    whole, gpu = load_topology("dgx-h100", 16), load_hardware("h100-sxm")
    slow = slow_links(whole, {"gpu:3->nvs:0": 0.25})
    src = np.arange(16)
    dst = (src + 1) % 8 + src // 8 * 8
    before, after = (estimate_exchange_s(each, gpu, src, dst, 2**28) for each in (whole, slow))
    assert np.flatnonzero(after != before).tolist() == [3] and after[3] > 2 * before[3]
    assert slow.route(4, 3).bytes_per_s == whole.route(4, 3).bytes_per_s, "the other direction is whole"
    capacities = slow.link_capacities_bytes_per_s / whole.link_capacities_bytes_per_s
    assert sorted(set(capacities.tolist())) == [0.25, 1.0] and (capacities < 1).sum() == 1
    assert slow.links[int(np.argmin(capacities))].capacity_bytes_per_s == whole.route(3, 4).bytes_per_s / 4


def test_a_lost_nvlink_is_routed_around_over_pcie() -> None:
    whole = load_topology("dgx-h100", 16)
    cut = lose(whole, ["gpu:3->nvs:0"])
    assert [cut.route(*pair).kind for pair in ((3, 4), (4, 3), (4, 5), (11, 12))] == ["shm", "shm", "nvlink", "nvlink"]
    assert not any(link.name in ("gpu:3->nvs:0", "nvs:0->gpu:3") for link in cut.links)
    names = [cut.links[link].name for link in cut.route(3, 4).links]
    assert names[0].startswith("gpu:3->") and names[-1].endswith("->gpu:4")


@pytest.mark.parametrize("name", ["nic:1.3", "nic:1.3->leaf:3", "leaf:3->nic:1.3"])
def test_a_lost_port_leaves_its_gpu_another_one(name: str) -> None:
    whole = load_topology("dgx-h100", 16)
    cut = lose(whole, [name])
    names = [cut.links[link].name for link in cut.route(11, 3).links]
    assert any(each.startswith("nic:1.") for each in names) and not any("nic:1.3" in each for each in names)
    routes = route_flows(cut, np.arange(8, 16), np.arange(8))
    load = np.bincount(routes.link)
    assert load.max() == 2, "two GPUs share a port"
    other = [cut.links[link].name for link in cut.route(4, 12).links]
    assert "nic:0.4->leaf:4" in other and "leaf:4->nic:1.4" in other, "other rails are as before"


@pytest.mark.parametrize(
    ("topology", "ranks", "names", "message"),
    [
        ("dgx-h100", 16, ["leaf:2->spine"], "cut off.*ranks 2, 10"),
        ("dgx-h100:fabric=fat-tree,nodes-per-leaf=1", 16, ["leaf:1->spine"], "ranks 8, 9, 10, 11, 12, 13, 14, 15"),
        ("pcie-8x", 16, ["nic:1.0", "nic:1.1"], "without nic:1.1 ranks are cut off: got ranks 8, 9"),
        ("dgx-h100", 8, ["gpu:3->nvs:0", "gpu:3->pci:0000:30:00.0@0"], "ranks are cut off: got ranks 3;"),
        ("h200-nvlink-pair", 2, ["gpu:0->nvs:0", "gpu:0->cpu:0.0"], "cut off: got ranks 0, 1"),
        ("dgx-h100", 8, ["gpu:9->nvs:0"], "no such link"),
        ("dgx-h100", 16, ["nic:7.0"], "no such link or port"),
    ],
)
def test_what_cannot_be_routed_around_is_refused(topology: str, ranks: int, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        lose(load_topology(topology, ranks), names)


@pytest.mark.parametrize("factor", [0.0, 1.5, -1.0])
def test_shares_out_of_range_are_refused(factor: float) -> None:
    with pytest.raises(InputError, match="out of range"):
        slow_links(load_topology("dgx-h100"), {"gpu:0->nvs:0": factor})


def test_flows_are_hashed_over_spines_with_a_seed() -> None:
    def loads(seed: int) -> list[int]:
        topology = load_topology(f"dgx-h100:fabric=fat-tree,nodes-per-leaf=1,spines=8,ecmp-seed={seed}", 32)
        routes = route_flows(topology, np.arange(32), (np.arange(32) + 8) % 32)
        assert [tuple(topology.route(r, (r + 8) % 32).links) for r in range(32)] == [
            tuple(routes.link[routes.flow == r].tolist()) for r in range(32)
        ]
        uplinks = [link.index for link in topology.links if link.name.startswith("leaf:") and "->spine" in link.name]
        assert len(uplinks) == 4 * 8
        return np.bincount(routes.link, minlength=len(topology.links))[uplinks].tolist()

    assert loads(0) == loads(0) != loads(1)
    assert sum(loads(0)) == 32 and max(loads(0)) > 1, "eight flows of a leaf collide on eight links"


def test_hashed_flows_that_collide_are_slower() -> None:
    gpu, ranks = load_hardware("h100-sxm"), np.arange(32)
    spread, hashed = (
        estimate_exchange_s(load_topology(name, 32), gpu, ranks, (ranks + 8) % 32, 2**26)
        for name in ("dgx-h100:fabric=fat-tree,nodes-per-leaf=1", "dgx-h100:fabric=fat-tree,nodes-per-leaf=1,spines=8")
    )
    assert np.ptp(spread) < 1e-9 and hashed.max() > 1.9 * spread.max() and hashed.min() == pytest.approx(spread.min())


def test_a_lost_uplink_is_avoided_while_another_is_left() -> None:
    whole = load_topology("dgx-h100:fabric=fat-tree,nodes-per-leaf=1,spines=2", 32)
    cut = lose(whole, ["leaf:1->spine:0"])
    ranks = np.arange(32)
    crossed = {cut.links[link].name for link in route_flows(cut, ranks, (ranks + 8) % 32).link}
    assert not crossed & {"leaf:1->spine:0", "spine:0->leaf:1"} and {"leaf:2->spine:0", "leaf:1->spine:1"} <= crossed
    with pytest.raises(InputError, match="ranks are cut off: got ranks 8, 9"):
        lose(cut, ["spine:1->leaf:1"])
    with pytest.raises(InputError, match="leaf:2->spine:1 ranks are cut off: got ranks 16"):
        lose(cut, ["leaf:2->spine:1"])
