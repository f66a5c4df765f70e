"""Reduction by the network: off unless it is enabled, by NCCL's estimates where it is."""

import pytest
from pytest import approx

from cost_models.hardware import load_hardware
from cost_models.network import communicator, estimate_collective
from cost_models.network.tuner import candidates
from cost_models.topology import NcclSettings, load_topology, parse_nccl_settings
from traces.errors import InputError

GPU = load_hardware("h100-sxm")
ENABLED = parse_nccl_settings({"NCCL_COLLNET_ENABLE": "1"})


def choices(n_ranks, kind, nccl):
    topology = load_topology("dgx-h100", n_ranks, nccl=nccl)
    comm = communicator(topology, range(n_ranks))
    return {each.algorithm: each for each in candidates(comm, kind, 2**30)}


def test_it_is_off_by_default_and_on_one_node():
    for n_ranks, nccl in ((64, NcclSettings()), (8, ENABLED)):
        assert not {"CollNetDirect", "CollNetChain"} & set(choices(n_ranks, "all_reduce", nccl))
    topology = load_topology("dgx-h100", 64)
    with pytest.raises(InputError, match="cannot be done so"):
        estimate_collective(topology, GPU, "all_reduce", range(64), 2**30, algorithm="CollNetDirect")


def test_estimates_worked_by_hand():
    """8 heads; as a head a GPU talks to 7, and to 7 other heads: 14 x 24 GB/s of its 370.8."""
    reduce = choices(64, "all_reduce", ENABLED)
    assert reduce["CollNetDirect"].gb_per_s == approx(8 * 24 * 0.85 / 2)
    assert reduce["CollNetDirect"].latency_us == approx(2 * (3.7 + 0.4 * 7) + 31)
    assert reduce["CollNetChain"].gb_per_s == approx(8 * 48 / 2)
    assert reduce["CollNetChain"].latency_us == approx(2 * 7 * 2.8 + 30)
    assert reduce["NVLS"].latency_us == 25 + 18
    assert reduce["NVLS"].gb_per_s == approx(8 * min(2 * 40 * 0.85 * 7 / 8, 40) * 64 / 126)
    gather = choices(64, "all_gather", ENABLED)
    assert gather["CollNetDirect"].gb_per_s == approx(8 * 0.9 * 24)
    assert "CollNetChain" not in gather


def test_its_latency_does_not_grow_with_nodes():
    few, many = (
        estimate_collective(load_topology("dgx-h100", n, nccl=ENABLED), GPU, "all_reduce", range(n), 2**20)
        for n in (32, 512)
    )
    assert few.algorithm == many.algorithm == "NVLS"
    assert many.seconds == approx(few.seconds, rel=0.1)


def test_gpus_without_switches_have_no_heads():
    topology = load_topology("pcie-8x", 16, gpu="l40s", nccl=ENABLED)
    assert not communicator(topology, range(16)).collnet.channels
    assert estimate_collective(topology, load_hardware("l40s"), "all_gather", range(16), 2**30).algorithm == "Ring"
