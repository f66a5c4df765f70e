"""Seconds of transfers and collectives on a cluster.

Interface: :func:`estimate_exchange_s` (simultaneous point-to-point flows), :func:`estimate_collective_s`, and what they
are made of: :func:`route_flows` (which links every flow crosses), :func:`max_min_rates` (what each flow gets of them).
For engines that share links over time: :func:`exchange_demands`, :func:`collective_demand`.
"""

from cost_models.network.collectives import COLLECTIVES, estimate_collective_s
from cost_models.network.demands import Demand, collective_demand, exchange_demands
from cost_models.network.exchange import estimate_exchange_s
from cost_models.network.fairness import max_min_rates
from cost_models.network.flows import FlowRoutes, route_flows

__all__ = [
    "COLLECTIVES",
    "FlowRoutes",
    "Demand",
    "collective_demand",
    "estimate_collective_s",
    "estimate_exchange_s",
    "exchange_demands",
    "max_min_rates",
    "route_flows",
]
