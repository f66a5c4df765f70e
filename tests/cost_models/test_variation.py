"""Clusters with some part faster or slower."""

from __future__ import annotations

import pytest

from cost_models.hardware import load_hardware
from cost_models.network import estimate_exchange_s
from cost_models.topology import load_topology
from cost_models.variation import PARTS, parse_variation
from traces.errors import InputError

GPU = load_hardware("h100-sxm")
CLUSTER = load_topology("dgx-h100", 16)


def test_rates_of_the_gpu_and_host_are_scaled() -> None:
    varied = parse_variation("flop=2,hbm=0.5,host=4").profile(GPU)
    assert varied.peak("bf16") == 2 * GPU.peak("bf16")
    assert varied.hbm_bytes_per_s == GPU.hbm_bytes_per_s / 2
    assert varied.host.kernel_s == GPU.host.kernel_s / 4
    assert varied.links == GPU.links


@pytest.mark.parametrize(("part", "src", "dst"), [("nvlink", 0, 1), ("net", 0, 8)])
def test_a_slower_link_carries_a_large_message_in_more_time(part: str, src: int, dst: int) -> None:
    variation = parse_variation(f"{part}=0.25")
    size = 2**34
    before = estimate_exchange_s(CLUSTER, GPU, [src], [dst], size)[0]
    after = estimate_exchange_s(variation.topology(CLUSTER), variation.profile(GPU), [src], [dst], size)[0]
    assert after > 2 * before
    other = parse_variation("nvlink=0.25" if part == "net" else "net=0.25")
    same = estimate_exchange_s(other.topology(CLUSTER), other.profile(GPU), [src], [dst], size)[0]
    assert same == pytest.approx(before)


def test_a_faster_network_needs_a_faster_slot() -> None:
    def seconds(what_if: str) -> float:
        variation = parse_variation(what_if)
        return float(estimate_exchange_s(variation.topology(CLUSTER), variation.profile(GPU), [0], [8], 2**34)[0])

    assert seconds("net=2") == pytest.approx(seconds("net=1"))
    assert seconds("net=2,pcie=2") == pytest.approx(seconds("net=1") / 2, rel=0.05)


def test_nothing_varied_is_the_same_cluster() -> None:
    variation = parse_variation("flop=1,net=1")
    assert str(variation) == ""
    assert variation.topology(CLUSTER) is CLUSTER
    assert variation.profile(GPU) == GPU


@pytest.mark.parametrize("text", ["speed=2", "net=0", "net=fast", "net=nan", "net=1e9", "net", "net=1,net=2"])
def test_bad_factors_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="what-if"):
        parse_variation(text)


def test_every_part_can_be_named() -> None:
    assert set(parse_variation(",".join(f"{part}=2" for part in PARTS)).factors) == set(PARTS)
