"""Where the devices of one node go in a drawing: by kind in layers, leaf switches at the bottom, NVSwitches on top.

GPUs stand in rank order. Every other device stands at the mean place of the GPUs that are fewest PCIe, C2C and network
links away, as far as devices of its layer leave room: what belongs together is drawn one above the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cost_models.topology.cluster import ClusterTopology
from cost_models.topology.links import LinkType

if TYPE_CHECKING:
    import networkx as nx

_LAYERS = ("spine", "leaf", "port", "nic", "mem", "cpu", "switch", "gpu", "nvs")
_LEAST_GAP = 0.06
"""Between devices of a layer, where all have room."""


@dataclass(frozen=True)
class DrawnDevice:
    """A device: its name in the graph, its kind, and its place, both axes from 0 to 1."""

    name: str
    kind: str
    x: float
    y: float


@dataclass(frozen=True)
class DrawnLink:
    """One direction of a connection, by the devices' names; ``index`` as in ``ClusterTopology.links``."""

    source: str
    target: str
    index: int
    capacity_bytes_per_s: float


@dataclass(frozen=True)
class Drawing:
    """A node with its links to the leaf switches."""

    devices: tuple[DrawnDevice, ...]
    links: tuple[DrawnLink, ...]


def draw_node(topology: ClusterTopology, node: int = 0) -> Drawing:
    """Places of the devices of a node.

    >>> from cost_models.topology import load_topology
    >>> drawing = draw_node(load_topology("dgx-h100"))
    >>> sorted({device.kind for device in drawing.devices})
    ['cpu', 'gpu', 'mem', 'nic', 'nvs', 'port', 'switch']
    """
    graph = topology.node_graph(node)
    layers: dict[int, dict[str, float]] = {}
    for name, place in _anchors(graph).items():
        layers.setdefault(_LAYERS.index(_kind(graph, name)), {})[name] = place
    devices = [
        DrawnDevice(name, _LAYERS[layer], x, row / max(len(layers) - 1, 1))
        for row, (layer, places) in enumerate(sorted(layers.items()))
        for name, x in _spread(places).items()
    ]
    links = [
        DrawnLink(source, target, data["index"], data["capacity_bytes_per_s"])
        for source, target, data in graph.edges(data=True)
    ]
    return Drawing(tuple(devices), tuple(links))


def _anchors(graph: nx.DiGraph[str]) -> dict[str, float]:
    """Wanted place of each device, from 0 to 1."""
    import networkx as nx

    gpus = sorted((name for name in graph if name.startswith("gpu:")), key=lambda name: int(name[4:]))
    far = (LinkType.SYS, LinkType.NVL)
    tree: nx.Graph[str] = nx.Graph((one, other) for one, other, link in graph.edges.data() if link["type"] not in far)
    hops = {gpu: nx.single_source_shortest_path_length(tree, gpu) if gpu in tree else {} for gpu in gpus}
    found = {}
    for name in graph:
        near = [(hops[gpu].get(name, len(graph)), place) for place, gpu in enumerate(gpus)]
        least = min(near, default=(0, 0))[0]
        nearest = [place for distance, place in near if distance == least]
        found[name] = sum(nearest) / max(len(nearest), 1) / max(len(gpus) - 1, 1)
    return found | {gpu: place / max(len(gpus) - 1, 1) for place, gpu in enumerate(gpus)}


def _spread(places: dict[str, float]) -> dict[str, float]:
    """Places of one layer, moved apart where they are too close.

    >>> _spread({"a": 0.5, "b": 0.5})
    {'a': 0.5, 'b': 0.56}
    """
    gap = min(1 / max(len(places) - 1, 1), _LEAST_GAP)
    xs: dict[str, float] = {}
    for place, name in enumerate(sorted(places, key=lambda name: (places[name], name))):
        room = 1 - (len(places) - 1 - place) * gap
        xs[name] = min(max([places[name], *(x + gap for x in list(xs.values())[-1:])]), room)
    return xs


def _kind(graph: nx.DiGraph[str], name: str) -> str:
    kind = name.partition(":")[0]
    if kind == "nic":
        return "port"
    if kind == "pci":
        return "nic" if any(other.startswith("nic:") for other in graph[name]) else "switch"
    return kind
