"""A cluster with slower links, or without some links and ports.

A slow link keeps its place in every route and loses capacity; NCCL, which reads what links should do, would not notice,
so channels and algorithms stay those of the whole cluster. A lost link (both directions of the connection) or a lost
port is gone when NCCL looks: the node becomes a machine of its own, in which routes are found anew, or is refused where
a GPU has no way left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches

from cost_models.topology.cluster import ClusterTopology
from cost_models.topology.links import LinkType
from cost_models.topology.machine import Machine, rebuild
from cost_models.topology.transport import Transport
from traces.errors import InputError

MOST_COMPARED = 2000
"""Links among which those of a similar name are looked for."""


def slow_links(topology: ClusterTopology, factors: Mapping[str, float]) -> ClusterTopology:
    """The cluster with some links at a share of their capacity.

    Parameters
    ----------
    factors : for each link, by name (``gpu:0->nvs:0``), the share of its capacity that is left, in (0, 1].

    Raises
    ------
    InputError
        Where there is no such link, or a share is out of range.

    >>> from cost_models.topology import load_topology
    >>> slow_links(load_topology("dgx-h100"), {"gpu:0->nvs:0": 0.5}).route(0, 5).bytes_per_s / 1e9
    185.4
    """
    for name, factor in factors.items():
        if not 0 < factor <= 1:
            raise InputError(f"share of link {name} is out of range", got=factor, expected="more than 0, at most 1")
    numbers = _numbers(topology, factors)
    return replace(topology, slowed=tuple(sorted((numbers[name], factor) for name, factor in factors.items())))


def lose(topology: ClusterTopology, names: Iterable[str]) -> ClusterTopology:
    """The cluster without some links or ports, by name (``gpu:0->nvs:0``, ``nic:1.3``).

    Raises
    ------
    InputError
        Where there is no such link or port, or where ranks are cut off, naming them.

    >>> from cost_models.topology import load_topology
    >>> load_topology("dgx-h100").route(0, 5).kind, lose(load_topology("dgx-h100"), ["gpu:0->nvs:0"]).route(0, 5).kind
    ('nvlink', 'shm')
    """
    for name in names:
        topology = _lose_link(topology, name) if "->" in name else _lose_port(topology, name)
    return topology


def _numbers(topology: ClusterTopology, names: Iterable[str]) -> dict[str, int]:
    wanted = set(names)
    found = {link.name: link.index for link in topology.links if link.name in wanted}
    for name in sorted(wanted - found.keys()):
        near = get_close_matches(name, (link.name for link in topology.links[:MOST_COMPARED]), 3, 0)
        raise InputError(
            "no such link", got=name, expected=f"one of {topology.name}, as {', '.join(near)}",
            remedy=f"attnsim topology {topology.name} --links lists them",
        )  # fmt: skip
    return found


def _lose_link(topology: ClusterTopology, name: str) -> ClusterTopology:
    number = _numbers(topology, [name])[name]
    numbering = topology.numbering
    node = next((node for node in range(topology.n_nodes) if number in numbering.links_of_node(node)), None)
    ends = set(name.split("->"))
    if node is None:
        return _lose_uplink(topology, number, name)
    if topology.links[number].type is LinkType.MEM:
        raise InputError("memory of the host cannot be lost", got=name, expected="a connection, or nic:NODE.PORT")
    local, machine = number - numbering.start(node), topology.transports[topology.machine_of_node[node]].machine
    if local < len(machine.links):
        links = tuple(link for place, link in enumerate(machine.links) if place // 2 != local // 2)
        return _with_machine(topology, node, replace(machine, links=links), name)
    return _lose_port(topology, next(end for end in ends if end.startswith("nic:")))


def _lose_uplink(topology: ClusterTopology, number: int, name: str) -> ClusterTopology:
    """Without a link between leaf and spine: others are left, if every two leaves still have a spine in common."""
    fabric, spines = topology.fabric, topology.numbering.spines
    assert fabric is not None
    leaf, spine = divmod((number - topology.numbering.spine_link(0)) // 2, spines)
    lost = fabric.lost_uplinks | {(leaf, spine)}
    left = [{each for each in range(spines) if (other, each) not in lost} for other in range(_leaves(topology))]
    if len(left) > 1 and any(left[leaf].isdisjoint(other) for other in left):
        raise _cut_off(name, [rank for rank in range(topology.n_ranks) if _leaf_of(topology, rank) == leaf])
    return replace(topology, fabric=replace(fabric, lost_uplinks=lost))


def _leaves(topology: ClusterTopology) -> int:
    return len(topology.numbering.leaf_bytes_per_s)


def _leaf_of(topology: ClusterTopology, rank: int) -> int:
    node, local = divmod(rank, topology.ranks_per_node)
    egress = topology.transports[topology.machine_of_node[node]].egress
    return topology.numbering.leaf_of(node, egress[local].net) if egress else -1


def _lose_port(topology: ClusterTopology, name: str) -> ClusterTopology:
    for node in range(topology.n_nodes):
        machine = topology.transports[topology.machine_of_node[node]].machine
        for net in machine.nets:
            if topology.numbering.device_name(node, net.device) == name:
                return _with_machine(topology, node, rebuild(machine, frozenset([net.device])), name)
    raise InputError("no such link or port", got=name, expected="as gpu:0->nvs:0 or nic:NODE.PORT")


def _with_machine(topology: ClusterTopology, node: int, machine: Machine, name: str) -> ClusterTopology:
    """The cluster in which one node is another machine, if all its GPUs still reach each other and the network."""
    first = node * topology.ranks_per_node
    transport = Transport(machine, topology.nccl)
    reached = [_count_reached(transport, local, topology.n_nodes > 1) for local in range(len(machine.gpus))]
    if min(reached) < len(machine.gpus):
        raise _cut_off(name, [first + local for local, count in enumerate(reached) if count == min(reached)])
    kinds = list(topology.machine_of_node)
    kinds[node] = len(topology.machines)
    return replace(topology, machines=(*topology.machines, machine), machine_of_node=tuple(kinds))


def _count_reached(transport: Transport, local: int, needs_network: bool) -> int:
    """GPUs of its node, itself included, that a GPU has a way to; none if it should reach the network and cannot."""
    count = len(transport.machine.gpus)
    for other in range(count):
        try:
            if other != local:
                transport.local(local, other)
        except (InputError, KeyError, ValueError):  # no path, or no CPU on the way
            count -= 1
    try:
        return count if not needs_network or transport.egress else 0
    except (InputError, KeyError, ValueError, IndexError):
        return 0


def _cut_off(name: str, ranks: list[int]) -> InputError:
    shown = ", ".join(map(str, ranks[:16])) + (f" and {len(ranks) - 16} more" if len(ranks) > 16 else "")
    return InputError(f"without {name} ranks are cut off", got=f"ranks {shown}", remedy="leave out these GPUs")
