"""What the simulator says of a run: on GPUs by hardware profile and topology, on a CPU host by its process profile."""

from __future__ import annotations

from dataclasses import dataclass

from cost_models.hardware import HardwareProfile
from cost_models.processes import ProcessProfile
from cost_models.topology import ClusterTopology, load_topology
from simulator.engines.memory import Memory
from simulator.request import SimulationRequest
from simulator.schedules import parse_schedule
from simulator.simulate import memory_bytes, simulate
from traces.timeline import Timeline
from validators.validation.draws import Forecast
from validators.validation.process_fit import predict, program_of
from validators.validation.runs import Configuration, MeasuredRun
from validators.validation.step_configuration import StepConfiguration


@dataclass(frozen=True)
class Prediction:
    """A run as predicted.

    Attributes
    ----------
    low_s, high_s : interval that should hold the measured time in 9 of 10 runs.
    """

    time_s: float
    low_s: float
    high_s: float
    peak_memory_bytes: int
    timeline: Timeline | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class GpuPredictor:
    """Predicts by `simulate`.

    Parameters
    ----------
    hardware : profile, by name or file or itself.
    topology : preset or file; ranks and nodes are the configuration's.
    """

    hardware: str | HardwareProfile
    topology: str

    def request(self, configuration: Configuration | StepConfiguration, schedule: str) -> SimulationRequest:
        """The simulation of a run."""
        ranks, nodes = configuration.ranks, configuration.ranks // configuration.ranks_per_node
        gpu = self.hardware if isinstance(self.hardware, str) else self.hardware.name
        topology = load_topology(self.topology, ranks, nodes, gpu if not gpu.endswith(".toml") else None)
        if isinstance(configuration, StepConfiguration):
            return self._of_step(configuration, schedule, topology)
        has_backward = parse_schedule(schedule).has_backward
        return SimulationRequest(
            seq_len=configuration.seq_len, gpus=ranks, schedule=schedule, heads=configuration.heads,
            kv_heads=configuration.kv_heads, head_dim=configuration.head_dim, nodes=nodes, hardware=self.hardware,
            topology=topology, batch=configuration.batch, dtype=configuration.dtype, mask=configuration.mask,
            pass_=configuration.pass_ if has_backward else "forward", kernel=configuration.kernel,
        )  # fmt: skip

    def _of_step(self, c: StepConfiguration, schedule: str, topology: ClusterTopology) -> SimulationRequest:
        pass_ = "step" if c.what == "model" else "both"
        return SimulationRequest(
            seq_len=c.seq_len, gpus=c.ranks, schedule=schedule, model=c.shape, nodes=c.ranks // c.ranks_per_node,
            hardware=self.hardware, topology=topology, batch=c.batch, dtype=c.dtype, mask=c.mask, layers=c.what,
            pass_=pass_, kernel=c.kernel, **c.options,
        )  # fmt: skip

    def predict(self, run: MeasuredRun) -> Prediction:
        """A run's prediction."""
        result = simulate(self.request(run.configuration, run.schedule))
        return Prediction(
            result.time_s, result.uncertainty.low_s, result.uncertainty.high_s, result.peak_memory_bytes,
            result.timeline, tuple(result.warnings),
        )  # fmt: skip

    def forecast(self) -> Forecast:
        """Bounds for draws: 80 % of memory."""

        def forecast(configuration: Configuration | StepConfiguration, spec: str) -> tuple[float, float, bool]:
            result = simulate(self.request(configuration, spec))
            most = memory_bytes(self.request(configuration, spec).resolve())
            return result.time_s, result.communication_s / result.time_s, result.peak_memory_bytes < 0.8 * most

        return forecast


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
