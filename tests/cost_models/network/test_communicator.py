"""Channels of sends and collectives, by size of the group and message, against what NCCL reports."""

import pytest

from cost_models.network import communicator
from cost_models.topology import NcclSettings, load_topology

MIB = 2**20


def group(name, n_ranks, nodes=None, nccl=None):
    topology = load_topology(name, n_ranks, nodes, nccl=nccl)
    return communicator(topology, range(n_ranks))


def test_the_h200_pair_has_what_nccl_reports():
    """NCCL 2.28.9 on that machine: 24 collective channels, 32 of sends."""
    pair = group("hgx-h200", 2)
    assert (len(pair.ring.channels), pair.n_channels, pair.p2p_channels, pair.p2p_per_peer) == (12, 24, 32, 32)


@pytest.mark.parametrize(
    ("n_ranks", "size", "channels"),
    [(2, MIB, 16), (2, 256 * MIB, 16), (2, 512 * MIB, 32)]
    + [(8, 64 * MIB, 4), (8, 128 * MIB, 8), (8, 256 * MIB, 16), (8, 2**17, 2)],
)
def test_channels_of_a_send(n_ranks, size, channels):
    """32 / n channels to begin with, 64 KiB at least for each, doubled while one has more than 16 MiB."""
    assert group("dgx-h100", n_ranks).send_channels(size) == channels


def test_sends_between_nodes_are_bound_by_the_network():
    """50 GB/s need ceil(50 / 14) = 4 channels; in a large group each peer gets fewer."""
    assert group("dgx-h100", 16).p2p_per_peer == 4
    assert group("dgx-h100", 64).p2p_per_peer == 2
    assert group("dgx-h100", 16, nccl=NcclSettings(nchannels_per_net_peer=2)).p2p_per_peer == 2


def test_pcie_has_two_channels_per_peer():
    assert group("pcie-8x", 8).p2p_per_peer == 2


def test_variables_bound_channels():
    assert group("dgx-h100", 8, nccl=NcclSettings(max_ctas=8)).n_channels == 8
    assert group("dgx-h100", 8, nccl=NcclSettings(min_nchannels=32)).n_channels == 32
    assert group("dgx-h100", 8, nccl=NcclSettings(max_p2p_nchannels=4)).send_channels(2**30) <= 4
    assert group("dgx-h100", 8, nccl=NcclSettings(nvls_enable=False)).nvls_channels == 0


def test_all_sends_of_an_all_to_all_hold_at_most_the_p2p_channels():
    assert group("dgx-h100", 8).all_to_all_channels(8 * MIB) == 32
    assert group("dgx-h100", 8).all_to_all_channels(2**10) == 8


def test_groups_that_are_alike_share_a_communicator():
    topology = load_topology("dgx-h100", 16)
    assert communicator(topology, [0, 8]) is communicator(topology, [8, 0])
    assert communicator(topology, range(8)) is communicator(topology, range(8, 16))


@pytest.mark.parametrize(("n_ranks", "before", "since"), [(16, 2, 4), (32, 2, 4), (64, 1, 2), (128, 1, 1)])
def test_before_2_29_sends_between_nodes_had_two_channels_or_one(n_ranks, before, since):
    """Of 16 channels: two while twice the ranks are at most 64."""
    assert group("dgx-h100", n_ranks, nccl=NcclSettings(version=(2, 28))).p2p_per_peer == before
    assert group("dgx-h100", n_ranks).p2p_per_peer == since
