"""Max-min shares: known cases, the textbook algorithm on random ones, and what max-min means."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from cost_models.network import max_min_rates


def entries(paths):
    flow = np.repeat(np.arange(len(paths)), [len(path) for path in paths])
    return flow, np.array([link for path in paths for link in path], dtype=np.int64)


def textbook(paths, capacities, ceilings):
    """One bottleneck at a time, in plain Python; a ceiling is one more link that only its flow crosses."""
    paths = [[*path, len(capacities) + flow] for flow, path in enumerate(paths)]
    left = dict(enumerate([*capacities, *ceilings]))
    rates = {}
    while len(rates) < len(paths):
        shares = {}
        for link in left:
            waiting = [flow for flow, path in enumerate(paths) if link in path and flow not in rates]
            if waiting:
                shares[link] = left[link] / len(waiting)
        tight = min(shares, key=shares.get)
        for flow, path in enumerate(paths):
            if tight in path and flow not in rates:
                rates[flow] = shares[tight]
                for link in path:
                    left[link] -= shares[tight]
    return [rates[flow] for flow in range(len(paths))]


def test_three_flows_two_links():
    """Flow 0 crosses both links, 1 the narrow one, 2 the wide one: the wide one's rest goes to flow 2."""
    assert max_min_rates(*entries([[0, 1], [0], [1]]), [10.0, 40.0], [np.inf] * 3).tolist() == [5.0, 5.0, 35.0]


def test_a_flow_without_links_has_its_ceiling():
    assert max_min_rates(*entries([[], [0]]), [4.0], [7.0, np.inf]).tolist() == [7.0, 4.0]


@st.composite
def cases(draw):
    capacities = draw(st.lists(st.floats(1.0, 100.0), min_size=1, max_size=6))
    links = st.lists(st.integers(0, len(capacities) - 1), min_size=1, unique=True)
    paths = draw(st.lists(links, min_size=1, max_size=8))
    ceilings = draw(st.lists(st.floats(0.5, 200.0), min_size=len(paths), max_size=len(paths)))
    return paths, capacities, ceilings


@given(cases())
def test_equals_the_textbook(case):
    paths, capacities, ceilings = case
    rates = max_min_rates(*entries(paths), capacities, ceilings)
    assert rates.tolist() == approx(textbook(paths, capacities, ceilings), rel=1e-9)


@given(cases())
def test_no_link_is_overloaded_and_each_flow_has_a_bottleneck(case):
    paths, capacities, ceilings = case
    rates = max_min_rates(*entries(paths), capacities, ceilings)
    flow, link = entries(paths)
    load = np.bincount(link, rates[flow], minlength=len(capacities))
    assert (load <= np.array(capacities) * (1 + 1e-9)).all()
    for each, path in enumerate(paths):
        full = [x for x in path if load[x] >= capacities[x] * (1 - 1e-9)]
        fastest = [max(rates[other] for other, way in enumerate(paths) if x in way) for x in full]
        assert rates[each] == ceilings[each] or any(rates[each] >= peak * (1 - 1e-9) for peak in fastest)


@given(st.integers(0, 2**32 - 1))
def test_weights_are_what_flows_take(seed):
    """Whole weights: as if the link were crossed so often by a flow of that rate; and no link is overfull."""
    rng = np.random.default_rng(seed)
    paths = [sorted(rng.choice(4, rng.integers(1, 4), replace=False).tolist()) for _ in range(5)]
    flow, link = entries(paths)
    capacities, weights = rng.uniform(1, 10, 4), rng.integers(1, 4, len(flow)).astype(float)
    rates = max_min_rates(flow, link, capacities, [np.inf] * 5, weights)
    used = np.bincount(link, weights * rates[flow], minlength=4)
    assert (used <= capacities * (1 + 1e-9)).all()
    for number in range(5):  # each has a full link on which nobody has more
        own = link[flow == number]
        full = [each for each in own if used[each] >= capacities[each] * (1 - 1e-9)]
        assert any(rates[number] >= rates[flow[link == each]].max() * (1 - 1e-9) for each in full)


def test_a_flow_of_weight_two_takes_two_thirds():
    assert max_min_rates(*entries([[0], [0]]), [9.0], [np.inf] * 2, [2.0, 1.0]).tolist() == [3.0, 3.0]
