"""Flows over shared links: fair shares, capacity, and conservation of bytes, on random cases and on preset clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.hardware import load_hardware
from cost_models.network import exchange_demands
from cost_models.topology import load_topology
from simulator.engines.flows import Ask
from simulator.engines.fluid import Network
from simulator.engines.maxmin import fill
from tests.simulator.engines.textbook import PlainFlow, end_times_ns, max_min


@st.composite
def networks(draw: st.DrawFn, most: int = 8) -> tuple[list[PlainFlow], list[float]]:
    capacities = draw(st.lists(st.sampled_from([1e9, 2e9, 5e9, 7e9]), min_size=1, max_size=5))
    links = st.lists(st.integers(0, len(capacities) - 1), min_size=1, max_size=4, unique=True)
    flows = []
    for _ in range(draw(st.integers(1, most))):
        crossed = draw(links)
        weights = [draw(st.sampled_from([1.0, 1.25, 3.0])) for _ in crossed]
        most_alone = min(capacities[k] / w for k, w in zip(crossed, weights, strict=True))
        ceiling = most_alone * draw(st.sampled_from([1.0, 0.5, 0.11]))
        start_ns, n_bytes = draw(st.integers(0, 3)) * 1000, draw(st.integers(1, 9)) * 1000.0
        flows.append(PlainFlow(start_ns, n_bytes, ceiling, tuple(zip(crossed, weights, strict=True))))
    return flows, capacities


@given(networks())
def test_shares_are_those_of_the_textbook(case: tuple[list[PlainFlow], list[float]]) -> None:
    flows, capacities = case
    rates = [rate for rate, _ in fill(flows, dict(enumerate(capacities)))]
    assert rates == pytest.approx(max_min(flows, capacities), rel=1e-6)


@given(networks())
def test_each_flow_is_at_its_ceiling_or_has_the_most_of_a_full_link(case: tuple[list[PlainFlow], list[float]]) -> None:
    flows, capacities = case
    settled = fill(flows, dict(enumerate(capacities)))
    for flow, (rate, limit) in zip(flows, settled, strict=True):
        if limit < 0:
            assert rate == flow.ceiling
            continue
        on_it = [(w, r) for f, (r, _) in zip(flows, settled, strict=True) for k, w in f.crosses if k == limit]
        assert sum(w * r for w, r in on_it) == pytest.approx(capacities[limit])
        assert rate >= max(r for _, r in on_it) * (1 - 1e-9)


@dataclass
class Run:
    """Flows through a network, checked at every change: link loads, and bytes moved since the last."""

    ends_ns: list[int]
    delivered: list[float]
    network: Network


def run(flows: list[PlainFlow], capacities: list[float], overhead_ns: int = 0) -> Run:
    network = Network(capacities)
    ends, delivered = [-1] * len(flows), [0.0] * len(flows)
    now, started = 0, [False] * len(flows)
    under_way: dict[int, tuple[float, int]] = {}

    def arrive(number: int) -> None:
        ends[number] = now

    while min(ends) < 0:
        for number, flow in enumerate(flows):
            if not started[number] and flow.start_ns == now:
                started[number] = True
                moving_ns = round(flow.n_bytes / flow.ceiling * 1e9)
                ask = Ask(moving_ns, overhead_ns, flow.ceiling, flow.crosses, str(number))
                network.start(ask, now, lambda number=number: arrive(number))
        network.finish(now)
        network.settle(now)
        loads = dict.fromkeys(range(len(capacities)), 0.0)
        rates = {int(flow.ask.who): flow.rate for on in network._shares._on.values() for flow in on}
        for number, rate in rates.items():
            for link, weight in flows[number].crosses:
                loads[link] += weight * rate
        assert all(load <= capacities[link] * (1 + 1e-9) for link, load in loads.items())
        for number, (rate, since) in under_way.items():
            delivered[number] += rate * (now - since) / 1e9
        under_way = {number: (rate, now) for number, rate in rates.items()}
        later = [flow.start_ns for flow in flows if flow.start_ns > now]
        times = later + ([network.next_ns] if network.next_ns is not None else [])
        now = min(times, default=now)
    return Run(ends, delivered, network)


@given(networks(6))
def test_flows_end_when_the_textbook_says_and_deliver_what_they_sent(case: tuple[list[PlainFlow], list[float]]) -> None:
    flows, capacities = case
    result = run(flows, capacities)
    # each end is rounded to a nanosecond, and moves the later ones by as much
    assert result.ends_ns == pytest.approx(end_times_ns(flows, capacities), abs=2 * len(flows))
    for flow, delivered in zip(flows, result.delivered, strict=True):
        assert delivered == pytest.approx(flow.n_bytes, abs=flow.ceiling / 1e9 * 2)


@given(networks())
def test_saturated_links_are_those_that_slowed_somebody(case: tuple[list[PlainFlow], list[float]]) -> None:
    flows, capacities = case
    result = run(flows, capacities)
    saturation = result.network.saturation
    assert not saturation.full, "nothing is full once all has been sent"
    for link, by in saturation.slowed_ns.items():
        for who, time_ns in by.items():
            assert link in {k for k, _ in flows[int(who)].crosses}
            assert 0 < time_ns <= saturation.full_ns[link]
    alone_ns = [flow.start_ns + flow.n_bytes / flow.ceiling * 1e9 for flow in flows]
    late = {str(i) for i in range(len(flows)) if result.ends_ns[i] > alone_ns[i] + 1}
    assert late <= {who for by in saturation.slowed_ns.values() for who in by}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=6), st.integers(0, 3))
def test_on_a_single_link_another_flow_never_speeds_one_up(many: list[tuple[int, int]], start: int) -> None:
    flows = [PlainFlow(1000 * at, 1000.0 * size, 1e9, ((0, 1.0),)) for at, size in many]
    more = PlainFlow(1000 * start, 5000.0, 1e9, ((0, 1.0),))
    alone, together = run(flows, [1e9]).ends_ns, run([*flows, more], [1e9]).ends_ns
    assert all(b >= a - len(flows) for a, b in zip(alone, together[:-1], strict=True))


def test_a_flow_that_meets_nobody_takes_its_time_alone_to_the_nanosecond() -> None:
    flows = [PlainFlow(0, 1234.0, 0.7e9, ((0, 1.0),)), PlainFlow(3000, 4321.0, 0.9e9, ((0, 1.0),))]
    expected = [flow.start_ns + round(flow.n_bytes / flow.ceiling * 1e9) + 17 for flow in flows]
    assert run(flows, [1e9], overhead_ns=17).ends_ns == expected


@pytest.mark.parametrize(("together", "capacity"), [(2, 1.0e9), (3, 1.0e9), (2, 1.5e9), (3, 0.7e9)])
def test_flows_that_share_alike_end_at_the_nearest_nanosecond(together: int, capacity: float) -> None:
    flows = [PlainFlow(0, 1001.0, min(capacity, 1e9), ((0, 1.0),))] * together
    alone_ns = round(1001.0 / min(capacity, 1e9) * 1e9)
    expected = round(alone_ns * together * min(capacity, 1e9) / capacity)
    assert run(flows, [capacity], overhead_ns=5).ends_ns == [expected + 5] * together


def test_a_flow_keeps_to_a_ceiling_that_changes_under_way() -> None:
    network = Network([1e9])
    flow = network.start(Ask(1000, 0, 1e9, ((0, 1.0),)), 0, lambda: None)
    network.settle(0)
    assert network.limit(flow, 0.5e9) and not network.limit(flow, 0.5e9)
    network.settle(100)
    assert (flow.rate, network.next_ns) == (0.5e9, 100 + 2 * 900)
    assert network.limit(flow, 0.25e9)
    network.settle(300)
    assert (flow.rate, network.next_ns) == (0.25e9, 300 + 4 * 800)


def test_a_link_is_full_only_while_somebody_could_use_more() -> None:
    flows = [PlainFlow(0, 1000.0, 1e9, ((0, 1.0),)), PlainFlow(0, 3000.0, 1e9, ((0, 1.0),))]
    result = run(flows, [1e9])
    assert result.ends_ns == [2000, 4000]
    assert result.network.saturation.full_ns == {0: 2000}
    assert result.network.saturation.slowed_ns == {0: {"0": 2000, "1": 2000}}


def test_only_flows_that_a_change_reaches_are_given_new_rates() -> None:
    network = Network([1e9, 1e9, 10e9])
    for link in (0, 0, 1, 1):
        network.start(Ask(1000, 0, 1e9, ((link, 1.0), (2, 1.0)), str(link)), 0, lambda: None)
    network.settle(0)
    network.start(Ask(1000, 0, 1e9, ((0, 1.0), (2, 1.0)), "0"), 100, lambda: None)
    changes, _ = network._shares.resolve()
    assert [(flow.ask.who, rate) for flow, rate in changes] == [("0", pytest.approx(1e9 / 3))] * 3


@pytest.mark.parametrize("name", ["pcie-8x", "dgx-h100:fabric=fat-tree,oversubscription=4,nodes-per-leaf=1"])
@given(st.data())
def test_laws_hold_on_preset_clusters(name: str, data: st.DataObject) -> None:
    topology, profile = load_topology(name, 16), load_hardware("h100-sxm")
    capacities = topology.link_capacities_bytes_per_s.tolist()
    ranks = st.integers(0, 15)
    pairs = data.draw(st.lists(st.tuples(ranks, ranks).filter(lambda p: p[0] != p[1]), min_size=1, max_size=8))
    src, dst = np.array(pairs).T
    flows = []
    for demand in exchange_demands(topology, profile, src, dst, 2**24):
        assert demand is not None
        start_ns = 10_000 * data.draw(st.integers(0, 3))
        crosses = tuple(zip(demand.links, demand.weights, strict=True))
        flows.append(PlainFlow(start_ns, 2.0**24, demand.ceiling_bytes_per_s, crosses))
    result = run(flows, capacities)
    for flow, delivered, end_ns in zip(flows, result.delivered, result.ends_ns, strict=True):
        assert delivered == pytest.approx(flow.n_bytes, abs=flow.ceiling / 1e9 * 2)
        assert end_ns >= flow.start_ns + round(flow.n_bytes / flow.ceiling * 1e9)
