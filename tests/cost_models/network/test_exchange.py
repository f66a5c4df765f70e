"""Exchanges: a flow alone is its link's curve, shared links are shared fairly, size and shape do what they should."""

import numpy as np
import pytest
from pytest import approx

from cost_models.hardware import load_hardware
from cost_models.network import communicator, estimate_exchange_s
from cost_models.topology import NcclSettings, load_topology
from traces.errors import InputError

GPU = load_hardware("h100-sxm")
MIB = 2**20


def ring(n_ranks):
    return np.arange(n_ranks), np.roll(np.arange(n_ranks), -1)


def test_one_pair_is_the_curve():
    seconds = estimate_exchange_s(load_topology("dgx-h100"), GPU, [0, 1], [1, 0], 64 * MIB)
    assert seconds == approx(GPU.links["nvlink"].transfer_s(64 * MIB, 370.8e9, channels=16))


def test_ring_through_nvswitch_shares_nothing_but_has_fewer_channels():
    seconds = estimate_exchange_s(load_topology("dgx-h100"), GPU, *ring(8), 16 * MIB)
    assert seconds == approx(GPU.links["nvlink"].transfer_s(16 * MIB, 370.8e9, channels=4))
    assert seconds[0] > GPU.links["nvlink"].transfer_s(16 * MIB, 370.8e9)


def measured_pair(channels):
    spec = "h200-nvlink-pair" + (f":channels={channels}" if channels else "")
    return load_topology(spec, 2, nccl=NcclSettings(version=(2, 28)))


@pytest.mark.parametrize(
    ("channels", "mib", "both_us", "one_way_us"),
    [
        (None, 1, 19.5, 18.5), (None, 16, 84.5, 73.5), (None, 256, 890.4, 759.4), (None, 1024, 2970.1, 2897.3),
        (1, 1, 61.9, 51.5), (1, 16, 789.4, 492.6), (1, 1024, 48443.3, 31592.9),
        (4, 1, 38.8, 37.0), (4, 16, 407.2, 257.2), (4, 32, 788.5, 503.6), (4, 64, 794.0, 525.1),
    ],
)  # fmt: skip
def test_sends_between_two_h100_take_the_time_that_was_measured(channels, mib, both_us, one_way_us):
    """Two H100 SXM (NV18), NCCL 2.28.9; the curve is fitted to 1 channel and to all, 4 channels are held out.

    One send of two channels, up to 32 MiB of the group's four, becomes one of four above.
    """
    pair, gpu = measured_pair(channels), load_hardware("h100-sxm")
    both = estimate_exchange_s(pair, gpu, [0, 1], [1, 0], mib * MIB).max()
    one_way = estimate_exchange_s(pair, gpu, [0], [1], mib * MIB)[0]
    assert both * 1e6 == approx(both_us, rel=0.14)
    assert one_way * 1e6 == approx(one_way_us, rel=0.14)
    assert one_way < both


def test_two_messages_of_a_group_share_the_channels_of_one():
    """K and V, 30 MB each, over at most four channels: each has two, and both have the same two."""
    pair = measured_pair(4)
    size = 30_000_000
    apart = estimate_exchange_s(pair, GPU, [0, 1], [1, 0], 2 * size, largest=0.5)
    assert 2 * size / apart / 1e9 == approx(2 * 22.1, rel=0.02)
    assert estimate_exchange_s(pair, GPU, [0, 1], [1, 0], 2 * size).max() < 0.6 * apart.max()


def test_two_flows_into_one_gpu_have_half_each():
    node, curve = load_topology("dgx-h100"), GPU.links["nvlink"]
    seconds = estimate_exchange_s(node, GPU, [0, 1], [2, 2], 512 * MIB)
    assert seconds == approx(curve.overhead_s(512 * MIB, 32) + 512 * MIB / (curve.efficiency * 370.8e9 / 2))


def test_opposite_directions_do_not_share():
    node = load_topology("pcie-8x", gpu="l40s")
    both = estimate_exchange_s(node, GPU, [0, 1], [1, 0], MIB)
    assert both[0] == estimate_exchange_s(node, GPU, [0], [1], MIB)[0]


def test_ring_over_the_node_boundary_is_bound_by_one_nic():
    cluster = load_topology("dgx-h100", 16)
    seconds = estimate_exchange_s(cluster, GPU, *ring(16), 256 * MIB)
    crossing = np.array([7, 15])
    assert 256 * MIB / seconds[crossing] == approx(0.96 * 48e9, rel=0.01)
    inside = GPU.links["nvlink"].transfer_s(256 * MIB, 370.8e9, channels=4)  # as many as NCCL gives the farthest peer
    assert np.delete(seconds, crossing) == approx(inside)


@pytest.mark.parametrize(("n_ranks", "channels"), [(32, 4), (64, 2), (128, 1), (512, 1)])
def test_a_flow_to_another_node_has_fewer_channels_in_a_large_group(n_ranks, channels):
    """Four of 14 GB/s fill a port; they are halved while four for every eight ranks are more than the group has."""
    cluster = load_topology("dgx-h100", n_ranks)
    hop_s = estimate_exchange_s(cluster, GPU, *ring(n_ranks), 2**30)[7]
    assert 2**30 / hop_s / 1e9 == approx(min(0.96 * 48, 14 * channels), rel=0.01)


@pytest.mark.parametrize(
    ("nodes", "channels", "measured_gb_per_s"), [(2, 4, 42.5), (4, 4, 44.2), (8, 2, 26.1), (16, 1, 14.5)]
)
def test_a_ring_over_nodes_of_b200_has_the_channels_and_rates_that_were_measured(nodes, channels, measured_gb_per_s):
    """64 MiB, sendrecv_perf of NCCL 2.29.7 over 400 Gb/s a GPU (simulator/replay/data); nothing is fitted."""
    cluster, profile = load_topology("hgx-b200", 8 * nodes, nodes), load_hardware("b200")
    source, target = ring(8 * nodes)
    hop_s = estimate_exchange_s(cluster, profile, source, target, 64 * MIB)
    assert communicator(cluster, source).send_channels(64 * MIB) == channels
    assert 64 * MIB / hop_s.max() / 1e9 == approx(measured_gb_per_s, rel=0.07)
    assert np.delete(hop_s, np.arange(7, 8 * nodes, 8)).max() < hop_s.max(), (
        "hops inside have as many channels, faster ones"
    )


@pytest.mark.parametrize(("mib", "measured_us"), [(256, 1423.3), (512, 2785.4), (1024, 5503.4)])
def test_a_ring_on_eight_a100_takes_the_time_that_was_measured(mib, measured_us):
    """sendrecv_perf -g 8 (li-plus/playground cuda/nccl.md); a channel's rate is from 128 MiB, nothing from these."""
    seconds = estimate_exchange_s(load_topology("dgx-a100"), load_hardware("a100-80"), *ring(8), mib * MIB)
    assert seconds * 1e6 == approx(measured_us, rel=0.03)


def test_a_small_group_among_many_ranks_has_its_own_channels():
    cluster = load_topology("dgx-h100", 128)
    src = np.arange(128)
    pairs = np.where(src < 64, src + 64, src - 64)
    assert estimate_exchange_s(cluster, GPU, src, pairs, 2**30).max() < 2**30 / 45e9


def test_oversubscribed_spine_is_shared():
    """Two nodes on different leaves: 8 flows of 24 GB/s (PCIe Gen4) alone, over 8 x 25 / 4 GB/s together."""
    text = "dgx-a100:fabric=fat-tree,nodes-per-leaf=1,oversubscription="
    src, dst = np.arange(8), np.arange(8, 16)
    times = [estimate_exchange_s(load_topology(text + x, 16), GPU, src, dst, 2**32)[0] for x in ("1", "4")]
    assert times[1] / times[0] == approx(24 / 6.25, rel=0.01)


def test_a_flow_to_itself_or_of_nothing_costs_nothing():
    node = load_topology("dgx-h100")
    assert estimate_exchange_s(node, GPU, [0, 1, 2], [0, 2, 1], np.array([MIB, 0, MIB]))[:2].tolist() == [0.0, 0.0]
    assert estimate_exchange_s(node, GPU, [3], [3], MIB).tolist() == [0.0]


def test_sizes_by_flow():
    node = load_topology("dgx-h100")
    column = estimate_exchange_s(node, GPU, *ring(8), np.full(8, MIB))
    assert column.tolist() == estimate_exchange_s(node, GPU, *ring(8), MIB).tolist()
    assert np.argmax(estimate_exchange_s(node, GPU, *ring(8), MIB * np.arange(1, 9))) == 7


def test_alike_nodes_agree_at_16384_ranks():
    seconds = estimate_exchange_s(load_topology("dgx-h100", 16384), GPU, *ring(16384), MIB)
    assert np.ptp(seconds.reshape(-1, 8), axis=0).max() == 0
    assert seconds.shape == (16384,)


@pytest.mark.parametrize("arguments", [([0, 1], [1], [1, 2, 3]), ([[0]], [[1]], 1), ([0], [1], -1), ([0], [99], 1)])
def test_bad_input(arguments):
    with pytest.raises(InputError):
        estimate_exchange_s(load_topology("dgx-h100"), GPU, *arguments)
