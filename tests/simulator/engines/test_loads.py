"""Link loads: bytes of a run over capacity and time, on the links that its transfers cross."""

import numpy as np
from pytest import approx

import attnsim
from cost_models.hardware import load_hardware


def test_a_ring_loads_each_gpus_link_with_what_the_gpu_sends():
    result = attnsim.simulate(
        schedule="ring", topology="dgx-h100", gpus=8, heads=8, kv_heads=8, head_dim=128, seq_len="8k",
        pass_="forward", timeline=True, engine="maxplus",
    )  # fmt: skip
    topology, shares = result.topology, np.array(result.link_shares)
    sent = result.bytes_sent_per_rank[0]
    for rank in range(8):
        links = [link for link in topology.links if link.source == f"gpu:{rank}" and link.type == "NVL"]
        efficiency = load_hardware("h100-sxm").links["nvlink"].efficiency
        expected = sent / efficiency / links[0].capacity_bytes_per_s / result.time_s
        assert shares[links[0].index] == approx(expected)
    assert all(shares[link.index] == 0 for link in topology.links if link.type != "NVL")


def test_no_link_is_in_use_for_longer_than_the_run():
    result = attnsim.simulate(
        schedule="ulysses", topology="pcie-8x", gpus=8, hardware="l40s", heads=8, kv_heads=8, head_dim=128,
        seq_len="8k", timeline=True,
    )  # fmt: skip
    assert 0.1 < max(result.link_shares) <= 1
