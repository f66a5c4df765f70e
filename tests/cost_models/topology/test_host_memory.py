"""Host memory: what a NUMA node sustains, and that staged transfers cross the right one."""

import pytest
from pytest import approx

from cost_models.topology import LinkType, NcclSettings, load_topology
from cost_models.topology.host_memory import SUSTAINED_SHARE, numa_nodes_per_socket, socket_bytes_per_s
from traces.errors import InputError


@pytest.mark.parametrize(
    ("cpu", "peak_gb_per_s"),
    [
        (("x86_64", "AuthenticAMD", 23, 49), 204.8),  # Rome, as a file by hand has it
        (("x86_64", "AuthenticAMD", 143, 49), 204.8),  # and as NCCL writes it
        (("x86_64", "AuthenticAMD", 175, 1), 204.8),  # Milan
        (("x86_64", "AuthenticAMD", 25, 17), 460.8),  # Genoa
        (("x86_64", "GenuineIntel", 6, 143), 307.2),
        (("x86_64", "GenuineIntel", 6, 106), 204.8),
    ],
)
def test_sockets(cpu, peak_gb_per_s):
    assert socket_bytes_per_s(*cpu) == approx(peak_gb_per_s * SUSTAINED_SHARE * 1e9)


def test_numa_nodes_of_a_socket():
    assert [numa_nodes_per_socket(labels) for labels in (["0"], ["0", "1"], ["0", "1", "2", "3"], ["7"])] == [
        1,
        1,
        2,
        4,
    ]


def crossed(topology, src, dst):
    links = [topology.links[link] for link in topology.route(src, dst).links]
    return [link.name for link in links if link.type is LinkType.MEM]


def test_buffers_lie_near_the_receiver_or_the_sender_or_where_processes_are_bound():
    assert crossed(load_topology("pcie-8x"), 0, 4) == ["cpu:0.1->mem:0.1", "mem:0.1->cpu:0.1"]
    sender = load_topology("pcie-8x", nccl=NcclSettings(shm_locality=1))
    assert crossed(sender, 0, 4) == ["cpu:0.0->mem:0.0", "mem:0.0->cpu:0.0"]
    bound = load_topology("pcie-8x", host_numa="0")
    assert crossed(bound, 0, 4) == crossed(bound, 4, 0) == crossed(sender, 0, 4)


def test_direct_transfers_cross_no_memory():
    assert not crossed(load_topology("pcie-8x"), 0, 1)
    assert not crossed(load_topology("dgx-h100", 16), 0, 8)


def test_there_is_no_such_numa_node():
    with pytest.raises(InputError, match="NUMA"):
        load_topology("pcie-8x", host_numa="5")
