"""Max-min fairness and flows over time, as plainly as a textbook has them; nothing is shared with the engine's code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PlainFlow:
    """A flow: when it starts, what it sends, its ceiling, and (link, weight) of what it crosses."""

    start_ns: int
    n_bytes: float
    ceiling: float
    crosses: tuple[tuple[int, float], ...]


def max_min(flows: list[PlainFlow], capacities: list[float]) -> list[float]:
    """Raise the rates of all flows that can still grow by the most that all of them can, until none can."""
    rates, growing = [0.0] * len(flows), set(range(len(flows)))
    while growing:
        steps = [flows[i].ceiling - rates[i] for i in growing]
        left = list(capacities)
        weight = [0.0] * len(capacities)
        for i, flow in enumerate(flows):
            for link, taken in flow.crosses:
                left[link] -= taken * rates[i]
                weight[link] += taken if i in growing else 0.0
        steps += [left[link] / weight[link] for link in range(len(capacities)) if weight[link] > 0]
        step = max(min(steps), 0.0)
        for i in growing:
            rates[i] += step
            left = [
                left[link] - step * sum(w for k, w in flows[i].crosses if k == link) for link in range(len(capacities))
            ]
        full = {link for link in range(len(capacities)) if left[link] <= 1e-9 * capacities[link]}
        growing -= {i for i in growing if flows[i].ceiling - rates[i] <= 1e-9 * flows[i].ceiling}
        growing -= {i for i in growing if any(link in full for link, _ in flows[i].crosses)}
    return rates


def end_times_ns(flows: list[PlainFlow], capacities: list[float]) -> list[float]:
    """When each flow has sent everything, every rate found anew at every start and end; not rounded."""
    left = [flow.n_bytes for flow in flows]
    ends: list[float] = [-1.0] * len(flows)
    now = 0.0
    while any(end < 0 for end in ends):
        active = [i for i, flow in enumerate(flows) if flow.start_ns <= now and ends[i] < 0]
        rates = max_min([flows[i] for i in active], capacities)
        starts = [flow.start_ns for flow in flows if flow.start_ns > now]
        until = [now + left[i] / rate * 1e9 for i, rate in zip(active, rates, strict=True)]
        then = min([*starts, *until])
        for i, rate in zip(active, rates, strict=True):
            left[i] -= rate * (then - now) / 1e9
            if left[i] <= rate * 1e-6 / 1e9:
                ends[i] = then
        now = then
    return ends
