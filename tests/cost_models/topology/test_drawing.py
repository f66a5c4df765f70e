"""Drawings: everything of the node is in it, nothing on top of another, the same every time."""

from itertools import combinations

import pytest

from cost_models.topology import load_topology
from cost_models.topology.drawing import draw_node


@pytest.mark.parametrize(
    ("name", "ranks"), [("dgx-h100", 16), ("dgx-a100", 8), ("pcie-8x", 4), ("h200-socket-pair", 2)]
)
def test_drawing(name, ranks):
    topology = load_topology(name, ranks)
    drawing = draw_node(topology)
    graph = topology.node_graph(0)
    assert {device.name for device in drawing.devices} == set(graph)
    assert {link.index for link in drawing.links} == {data["index"] for *_, data in graph.edges(data=True)}
    assert all(0 <= device.x <= 1 and 0 <= device.y <= 1 for device in drawing.devices)
    for one, other in combinations(drawing.devices, 2):
        assert abs(one.x - other.x) + abs(one.y - other.y) > 0.01
    assert drawing == draw_node(load_topology(name, ranks))


def test_gpus_stand_in_rank_order_above_their_nics():
    drawing = draw_node(load_topology("dgx-h100", 16))
    place = {device.name: device.x for device in drawing.devices}
    assert [place[f"gpu:{rank}"] for rank in range(8)] == sorted(place[f"gpu:{rank}"] for rank in range(8))
    assert all(place[f"gpu:{rank}"] == place[f"nic:0.{rank}"] for rank in range(8))
