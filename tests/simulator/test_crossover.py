"""The closed forms say what the simulation does: seconds, and which of ring, all-gather and Ulysses is faster."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.crossover import LinkFigures, estimate_forward_s, find_crossovers
from cost_models.hardware import load_hardware
from cost_models.masks import parse_mask
from cost_models.topology import load_topology
from cost_models.workload import AttentionWorkload
from simulator.crossover import advise
from simulator.request import SimulationRequest
from simulator.simulate import simulate

RATES = st.floats(1e9, 4e11)


def workload(seq_len: int, heads: int = 32, kv_heads: int = 8, mask: str = "causal") -> AttentionWorkload:
    return AttentionWorkload(1, seq_len, heads, kv_heads, 128, 128, "bf16", parse_mask(mask, seq_len))


@given(RATES, RATES, RATES, st.sampled_from([2, 4, 8, 16, 32]), st.sampled_from(["causal", "full"]))
def test_law_the_fastest_changes_at_the_crossovers(
    ring: float, gather: float, scatter: float, ranks: int, mask: str
) -> None:
    """Just above a crossover one is faster, just below the other; causal masks are half dense up to S."""
    links, rate = LinkFigures(ring, gather, scatter), 6e14
    for other in ("allgather", "ulysses"):
        found = find_crossovers(workload(2**24, mask=mask), ranks, rate, links)
        edge = found.ring_over_all_gather_seq_len if other == "allgather" else found.ring_over_ulysses_seq_len
        for factor, ring_is_faster in ((1.05, True), (0.95, False)):
            seq_len = int(edge * factor)
            if not 4096 * ranks < seq_len < 2**30:
                continue
            seconds = estimate_forward_s(workload(seq_len, mask=mask), ranks, rate, links)
            assert (seconds["ring"] < seconds[other]) is ring_is_faster


@given(RATES, RATES, st.sampled_from([2, 4, 8, 16, 32, 64]), st.sampled_from([(32, 8), (64, 8), (8, 8), (32, 4)]))
def test_law_all_gather_beats_ulysses_on_few_ranks(
    gather: float, scatter: float, ranks: int, shape: tuple[int, int]
) -> None:
    links = LinkFigures(1e10, gather, scatter)
    work = workload(2**20, *shape)
    edge = find_crossovers(work, ranks, 6e14, links).all_gather_over_ulysses_ranks
    seconds = estimate_forward_s(work, ranks, 6e14, links)
    if not math.isclose(ranks, edge, rel_tol=1e-6):
        assert (seconds["allgather"] < seconds["ulysses"]) is (ranks < edge)


def test_with_equal_rates_it_is_the_published_rule() -> None:
    """All-gather sends less if W - 1 < H/K: 8 ranks at 64 : 8 heads, 4 at 32 : 8."""
    links = LinkFigures(1e10, 1e10, 1e10)
    assert find_crossovers(workload(2**20, 32, 8), 4, 6e14, links).all_gather_over_ulysses_ranks == 5.0
    assert find_crossovers(workload(2**20, 64, 64), 4, 6e14, links).all_gather_over_ulysses_ranks == 2.0


def test_full_attention_hides_a_hop_at_half_the_tokens() -> None:
    """c >= F / B of RingAttention's section 3 for MHA in bf16: 2 bytes an element, K and V, 4 D c^2 FLOP."""
    links = LinkFigures(1e11, 1e11, 1e11)
    full = find_crossovers(workload(2**20, 32, 32, "full"), 8, 3.12e14, links).hidden_seq_len
    assert full / 8 == pytest.approx(3.12e14 / 1e11)
    causal = find_crossovers(workload(2**20, 32, 32), 8, 3.12e14, links).hidden_seq_len
    assert causal == pytest.approx(2 * full, rel=1e-5)


CASES = [
    ("dgx-h100", 8, "64k"),
    ("dgx-h100", 8, "512k"),
    ("dgx-h100", 16, "128k"),
    ("dgx-h100", 32, "1M"),
    ("pcie-8x", 8, "64k"),
]


@pytest.mark.parametrize(("topology", "gpus", "seq_len"), CASES)
def test_closed_forms_agree_with_the_simulation(topology: str, gpus: int, seq_len: str) -> None:
    """Within 15 %: of merges, packs, host, wave effects and interference the closed forms know nothing."""
    request = SimulationRequest(
        heads=32, kv_heads=8, head_dim=128, seq_len=seq_len, gpus=gpus, topology=topology, pass_="forward",
        engine="maxplus", timeline=False, interference=False,
    )  # fmt: skip
    resolved = request.resolve()
    profile = load_hardware(str(resolved.hardware))
    advice = advise(resolved.workload, resolved.topology, profile, profile.default_kernel)
    simulated = {name: simulate(replace(request, schedule=name)).time_s for name in advice.forward_s}
    for name, seconds in advice.forward_s.items():
        assert seconds == pytest.approx(simulated[name], rel=0.15), name
    for one, other in (("ring", "allgather"), ("ring", "ulysses"), ("allgather", "ulysses")):
        apart = simulated[one] / simulated[other]
        if not 0.85 < apart < 1.18:
            assert (advice.forward_s[one] < advice.forward_s[other]) is (apart < 1)


def test_one_gpu_needs_no_links() -> None:
    profile = load_hardware("h100-sxm")
    advice = advise(workload(2**14), load_topology("dgx-h100", 1), profile, "cudnn")
    assert len({round(seconds, 12) for seconds in advice.forward_s.values()}) == 1
