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
        ("h200-nvlink-pair", 2, ["gpu:0->nvs:0", "gpu:0->cpu:0.0"], "cut off: got ranks 0, 1"),
        ("dgx-h100", 8, ["gpu:9->nvs:0"], "no such link"),
        ("dgx-h100", 16, ["nic:7.0"], "no such port"),
    ],
)
def test_what_cannot_be_routed_around_is_refused(topology: str, ranks: int, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        lose(load_topology(topology, ranks), names)


@pytest.mark.parametrize("factor", [0.0, 1.5, -1.0])
def test_shares_out_of_range_are_refused(factor: float) -> None:
    with pytest.raises(InputError, match="out of range"):
        slow_links(load_topology("dgx-h100"), {"gpu:0->nvs:0": factor})
