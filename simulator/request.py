"""What is asked for, and its check before anything runs.

A :class:`SimulationRequest` holds the contract's options as the user gave them, text or objects. Its ``resolve()``
loads what they name, refuses what contradicts itself, and fills in the defaults that need no simulation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from cost_models.spec import parse_spec
from cost_models.variation import parse_variation
from simulator.asked import RequestFields
from simulator.faults import FaultOptions
from simulator.request_checks import check_request
from simulator.request_inputs import (
    cluster_of,
    gpu_of,
    load_profile,
    shape_of,
    vary_topology,
    workload_of,
)
from simulator.resolved import ResolvedRequest


@dataclass(frozen=True, kw_only=True)
class SimulationRequest(RequestFields):
    """One question to the simulator, as asked; `simulator.asked` says what its fields are."""

    @property
    def faults(self) -> FaultOptions:
        """What is wrong with the cluster, and how much durations vary."""
        return FaultOptions(**{each.name: getattr(self, each.name) for each in fields(FaultOptions)})

    def resolve(self) -> ResolvedRequest:
        """Load and check everything that needs no simulation.

        Raises
        ------
        InputError
            For the first option that is wrong or contradicts another.

        >>> request = SimulationRequest(heads=32, kv_heads=8, head_dim=128, seq_len="8k", gpus=2, topology="dgx-h100")
        >>> resolved = request.resolve()
        >>> resolved.workload.seq_len, resolved.hardware, resolved.topology.n_nodes
        (8192, 'h100-sxm', 1)
        """
        check_request(self)
        shape = shape_of(self)
        topology = self.faults.apply(cluster_of(self))
        self.faults.check(topology.n_ranks)
        hardware = gpu_of(self, topology)
        if self.what_if:
            variation = parse_variation(self.what_if)
            hardware = variation.profile(load_profile(hardware))
            topology = vary_topology(topology, variation.of_links)
        return ResolvedRequest(
            request=self,
            schedule=None if self.schedule is None else parse_spec(self.schedule, "schedule"),
            model=shape,
            workload=workload_of(self, shape),
            topology=topology,
            hardware=hardware,
        )
