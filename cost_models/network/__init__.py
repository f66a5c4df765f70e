"""Seconds of transfers and collectives on a cluster.

Interface: :func:`estimate_exchange_s` (simultaneous point-to-point flows), :func:`estimate_collective_s`, and what they
are made of: :func:`route_flows` (which links every flow crosses), :func:`max_min_rates` (what each flow gets of them).
"""

from cost_models.network.collectives import COLLECTIVES, estimate_collective_s
from cost_models.network.exchange import estimate_exchange_s
from cost_models.network.fairness import max_min_rates
from cost_models.network.flows import FlowRoutes, route_flows

__all__ = [
    "COLLECTIVES",
    "FlowRoutes",
    "estimate_collective_s",
    "estimate_exchange_s",
    "max_min_rates",
    "route_flows",
]
