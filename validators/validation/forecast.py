"""What the simulator says of a run: on GPUs by hardware profile and topology, on a CPU host by its process profile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from cost_models.hardware import HardwareProfile, load_hardware
from cost_models.processes import ProcessProfile
from cost_models.topology import ClusterTopology, NcclSettings, load_topology, nccl_settings_of
from cost_models.topology.link_types import host_topology, link_type_of
from simulator.engines.memory import Memory
from simulator.request import SimulationRequest
from simulator.result import SimulationResult
from simulator.schedules import PEERS, parse_schedule
from simulator.schedules.peers import RingFlashAttn, YunChang
from simulator.simulate import simulate
from traces.errors import InputError
from traces.timeline import Timeline
from validators.validation.draws import Forecast
from validators.validation.process_fit import predict, program_of
from validators.validation.runs import Configuration, MeasuredRun
from validators.validation.step_configuration import StepConfiguration

MEMORY_SHARE = 0.2
"""Part of a GPU's memory that runs get which ask whether they fit."""
HOST_LIMITED = 0.05
"""Share of a call in which a GPU waits for its host, from which on the host counts as what limits it."""


@dataclass(frozen=True)
class Prediction:
    """A run as predicted.

    Attributes
    ----------
    low_s, high_s : interval that should hold the measured time in 9 of 10 runs.
    link : link type of several GPUs of a host, where it was what NCCL was told that chose it.
    host_limited : the critical rank is predicted to wait for its host for more than `HOST_LIMITED` of the time.
    """

    time_s: float
    low_s: float
    high_s: float
    peak_memory_bytes: int
    timeline: Timeline | None
    warnings: tuple[str, ...] = ()
    host_limited: bool = False
    link: str = ""


WORKED_S = 0.01
"""Predicted time from which on it matters what ran before: the power limit acts after some 30 ms."""


AFTER_REST_S = 0.015
"""What a rest of a tenth of a second leaves of the work before it: products keep the highest clock for 29 to 38 ms
after rests of 0.1 to 1 s, and for 49 ms at first (trains after rests, `validators.bench.trains`, an H100)."""


@dataclass(frozen=True)
class GpuPredictor:
    """Predicts by `simulate`, of isolated calls that follow each other with hardly a rest.

    The GPU has worked before, for as long as the call itself takes, since schedules of one configuration take turns
    (`HardwareProfile.after_work`). Before steps it rests for a tenth of a second, after which the clock is the highest
    again, but for less long (`AFTER_REST_S`). The host's caches are cold for the first operation of each kind
    (`isolated`), in peers', too. NCCL's streams have a priority in our executor (`World.group`), and none in peers.

    Parameters
    ----------
    hardware : profile, by name or file or itself.
    topology : preset or file; ranks and nodes are the configuration's. None: GPUs of one host over the link type that
        NCCL was told (`cost_models.topology.link_types`).
    """

    hardware: str | HardwareProfile
    topology: str | None

    @cached_property
    def profile(self) -> HardwareProfile:
        """The GPU."""
        return load_hardware(self.hardware) if isinstance(self.hardware, str) else self.hardware

    def request(
        self,
        configuration: Configuration | StepConfiguration,
        schedule: str,
        worked_s: float = 0.0,
        machine: Mapping[str, Any] = MappingProxyType({}),
    ) -> SimulationRequest:
        """The simulation of a run after so much work, on a machine that says what NCCL was told (`MeasuredRun`)."""
        topology = self._topology(configuration, nccl_settings_of(machine.get("environment", {})))
        profile = self._profile_of(schedule, worked_s, prioritised=bool(machine.get("communication_first", True)))
        if isinstance(configuration, StepConfiguration):
            return _of_step(configuration, schedule, profile.after_work(AFTER_REST_S), topology)
        has_backward = parse_schedule(schedule).has_backward
        return SimulationRequest(
            seq_len=configuration.seq_len, gpus=configuration.ranks, schedule=_as_run(schedule),
            heads=configuration.heads, kv_heads=configuration.kv_heads, head_dim=configuration.head_dim,
            nodes=topology.n_nodes, hardware=profile,
            topology=topology, batch=configuration.batch, dtype=configuration.dtype, mask=configuration.mask,
            pass_=configuration.pass_ if has_backward else "forward", kernel=configuration.kernel,
        )  # fmt: skip

    def _link(self, run: MeasuredRun) -> str:
        if self.topology is not None or run.configuration.ranks == 1:
            return ""
        return link_type_of(nccl_settings_of(run.machine.get("environment", {})))

    def link_kind(self, run: MeasuredRun) -> str:
        """Kind of the route between a run's first two ranks; "local" where it has one."""
        topology = self._topology(run.configuration, nccl_settings_of(run.machine.get("environment", {})))
        return topology.route(0, min(1, topology.n_ranks - 1)).kind

    def _topology(self, c: Configuration | StepConfiguration, nccl: NcclSettings) -> ClusterTopology:
        gpu, nodes = self.profile.base or self.profile.name, c.ranks // c.ranks_per_node
        if self.topology is None and nodes == 1:
            return host_topology(c.ranks, gpu, link_type_of(nccl), nccl)
        if self.topology is None:
            raise InputError("the topology of several nodes is not given", got=f"{nodes} nodes")
        return load_topology(self.topology, c.ranks, nodes, gpu, nccl)

    def _profile_of(self, schedule: str, worked_s: float, *, prioritised: bool) -> HardwareProfile:
        """The GPU as our executor uses it, or, for a peer, as PyTorch does by default."""
        worked = self.profile.after_work(worked_s)
        if parse_schedule(schedule).name in PEERS:
            return worked.isolated()
        return worked.isolated().with_communication_first() if prioritised else worked.isolated()

    def predict(self, run: MeasuredRun) -> Prediction:
        """A run's prediction."""
        result = self._simulate(run)
        if result.time_s > WORKED_S and not isinstance(run.configuration, StepConfiguration):
            result = self._simulate(run, result.time_s)
        parts = result.breakdown or {}
        waiting = parts.get("idle", 0) / max(sum(parts.values()), 1)
        error = math.hypot(result.uncertainty.high_s / result.time_s - 1, waiting * self.profile.host.isolated_error)
        return Prediction(
            result.time_s, result.time_s / (1 + error), result.time_s * (1 + error), result.peak_memory_bytes,
            result.timeline, tuple(result.warnings), host_limited=waiting > HOST_LIMITED,
            link=self._link(run),
        )  # fmt: skip

    def _simulate(self, run: MeasuredRun, worked_s: float = 0.0) -> SimulationResult:
        return simulate(self.request(run.configuration, run.schedule, worked_s, run.machine))

    def forecast(self) -> Forecast:
        """Bounds for draws: 80 % of memory."""

        def forecast(configuration: Configuration | StepConfiguration, spec: str) -> tuple[float, float, bool]:
            result = simulate(self.request(configuration, spec))
            most = self.request(configuration, spec).resolve().room_bytes
            return result.time_s, result.communication_s / result.time_s, result.peak_memory_bytes < 0.8 * most

        return forecast

    def memory_share(self, configuration: Configuration, spec: str) -> tuple[float, float]:
        """Predicted seconds, and peak over `MEMORY_SHARE` of what the GPU has."""
        result = simulate(self.request(configuration, spec))
        return result.time_s, result.peak_memory_bytes / (MEMORY_SHARE * self.profile.memory_bytes)

    def fits(self, run: MeasuredRun) -> bool:
        """Whether a run is predicted to fit into the part of the GPU's memory that it was given."""
        result = self._simulate(run)
        given = float(run.machine.get("memory_share", 1.0)) * float(
            run.machine.get("memory_bytes", self.profile.memory_bytes)
        )
        return result.peak_memory_bytes <= given


def _as_run(schedule: str) -> str:
    """Peers that take their kernels from flash-attn run over PyTorch's (`validators.peers.stand_in`)."""
    parsed = parse_schedule(schedule)
    return str(replace(parsed, stand_in=True)) if isinstance(parsed, RingFlashAttn | YunChang) else schedule


def _of_step(
    c: StepConfiguration, schedule: str, profile: HardwareProfile, topology: ClusterTopology
) -> SimulationRequest:  # fmt: skip
    pass_ = "step" if c.what == "model" else "both"
    return SimulationRequest(
        seq_len=c.seq_len, gpus=c.ranks, schedule=schedule, model=c.shape, nodes=topology.n_nodes, hardware=profile,
        topology=topology, batch=c.batch, dtype=c.dtype, mask=c.mask, layers=c.what, pass_=pass_, kernel=c.kernel,
        **c.options,
    )  # fmt: skip


@dataclass(frozen=True)
class HostPredictor:
    """Predicts runs of gloo processes."""

    profile: ProcessProfile

    def predict(self, run: MeasuredRun) -> Prediction:
        """A run's prediction."""
        program = program_of(run)
        timeline = predict(self.profile, program)
        memory = Memory(program.setup.n_ranks)
        program.replay(memory)
        time_s = timeline.makespan_ns / 1e9
        error = self.profile.relative_error.get(program.setup.n_ranks, 0.0)
        return Prediction(
            time_s, time_s / (1 + error), time_s * (1 + error), int(memory.peak_bytes.max()), timeline
        )  # fmt: skip
