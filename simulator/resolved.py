"""A request whose options are loaded and agree."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from cost_models.models import ModelShape
from cost_models.spec import Spec
from cost_models.topology import ClusterTopology
from cost_models.workload import AttentionWorkload
from simulator.request_inputs import load_profile
from simulator.steps.plan import StepOptions

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile
    from simulator.request import SimulationRequest


@dataclass(frozen=True)
class ResolvedRequest:
    """A request whose options are loaded and agree.

    Attributes
    ----------
    request : as it was asked; its ``pass_`` and ``kernel`` are None where schedule and hardware decide.
    schedule : parsed, None where all are compared.
    model : shape, None where heads were given.
    workload, topology : what is computed, and where.
    hardware : name or file of the profile, or the profile itself.
    """

    request: SimulationRequest
    schedule: Spec | None
    model: ModelShape | None
    workload: AttentionWorkload
    topology: ClusterTopology
    hardware: str | HardwareProfile

    @property
    def inputs(self) -> dict[str, Any]:
        """The options that reproduce this run, defaults filled in, as JSON holds them."""
        workload, topology = self.workload, self.topology
        heads = {"heads": workload.heads, "kv_heads": workload.kv_heads, "head_dim": workload.head_dim}
        return {
            "schedule": None if self.schedule is None else str(self.schedule),
            **({"model": self.model.name} if self.model else heads),
            "seq_len": workload.seq_len,
            "gpus": topology.n_ranks,
            "nodes": topology.n_nodes,
            "hardware": self.hardware if isinstance(self.hardware, str) else self.hardware.name,
            "topology": topology.name,
            **({"nccl": list(self.request.nccl)} if self.request.nccl else {}),
            **({"host_numa": self.request.host_numa} if self.request.host_numa else {}),
            "batch": workload.batch,
            "dtype": workload.dtype,
            "mask": str(workload.mask),
            "layers": self.request.layers,
            "pass": self.request.pass_,
            "kernel": self.request.kernel,
            "allocator_slack": self.allocator_slack,
            **({"prune": self.request.prune} if self.request.prune else {}),
            "engine": self.request.engine,
            "interference": self.request.interference,
            **({} if self.request.layers == "attention" else asdict(self.step_options)),
            **self.request.faults.given,
            **({"what_if": self.request.what_if} if self.request.what_if else {}),
        }

    @property
    def profile(self) -> HardwareProfile:
        """The profile of the GPU, loaded; in layers attention takes turns with products."""
        profile = load_profile(self.hardware)
        return profile if self.request.layers == "attention" else profile.beside_products()

    @property
    def allocator_slack(self) -> float:
        """Memory that the allocator takes over what tensors have."""
        if self.request.allocator_slack is not None:
            return self.request.allocator_slack
        trains = self.request.layers != "attention" and self.request.pass_ not in ("forward", "prefill", "decode")
        return self.profile.allocator_slack if trains else 1.0

    @property
    def room_bytes(self) -> int:
        """Memory that a GPU has for tensors: what is usable, less the allocator's slack."""
        return int(self.profile.usable_memory_bytes / self.allocator_slack)

    @property
    def step_options(self) -> StepOptions:
        """How a layer or a model is parallelised, and what it keeps."""
        return StepOptions(**{each.name: getattr(self.request, each.name) for each in fields(StepOptions)})

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of how the request was understood."""
        window = self.model.sliding_window if self.model else None
        if self.model is None or window is None or window >= self.workload.seq_len:
            return self.topology.warnings
        text = (
            f"{self.model.sliding_layers} of {self.model.layers} layers of {self.model.name} have a window of {window} "
        )
        return (*self.topology.warnings, text + f"tokens; simulated is the mask {self.workload.mask}")
