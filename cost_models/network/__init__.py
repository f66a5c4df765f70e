"""Seconds of transfers and collectives on a cluster.

Interface: :func:`estimate_exchange_s` (simultaneous point-to-point flows), :func:`estimate_collective` (seconds, NCCL's
algorithm and protocol, SMs), and what they are made of: :func:`communicator` (channels of a group of ranks),
:func:`route_flows` (which links every flow crosses), :func:`max_min_rates` (what each flow gets of them). For engines
that share links over time: :func:`exchange_demands`, :func:`collective_demand`.
"""

from cost_models.network.collectives import CollectiveEstimate, estimate_collective, estimate_collective_s
from cost_models.network.communicator import Communicator, communicator
from cost_models.network.demands import Demand, collective_demand, exchange_demands
from cost_models.network.exchange import estimate_exchange_s
from cost_models.network.fairness import max_min_rates
from cost_models.network.flows import FlowRoutes, route_flows
from cost_models.network.host_copies import estimate_host_copy_s
from cost_models.network.terms import network_part
from cost_models.network.tuner import COLLECTIVES

__all__ = [
    "COLLECTIVES",
    "CollectiveEstimate",
    "Communicator",
    "Demand",
    "FlowRoutes",
    "collective_demand",
    "communicator",
    "estimate_collective",
    "estimate_collective_s",
    "estimate_exchange_s",
    "estimate_host_copy_s",
    "exchange_demands",
    "max_min_rates",
    "network_part",
    "route_flows",
]
