"""Whole models on a cluster, for sources that publish times, throughputs and memory of prefill or training steps.

Everything is documented constants: nothing is fitted but what a source says of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from cost_models.hardware import HardwareProfile, load_hardware
from cost_models.models import ModelShape
from cost_models.topology import ClusterTopology, load_topology, parse_nccl_assignments
from cost_models.variation import parse_variation
from simulator.costing import CostModel
from simulator.engines.maxplus import MaxPlus
from simulator.engines.memory import Memory
from simulator.engines.traffic import Traffic
from simulator.fanout import Fanout
from simulator.replay.rows import Row, Skip
from simulator.request import SimulationRequest
from simulator.request_inputs import vary_topology
from simulator.schedules import parse_schedule
from simulator.steps.record import subject_of
from traces.errors import InputError

MAX_SEQ_LEN = 2**23
MAX_GPUS = 128


@dataclass(frozen=True)
class Run:
    """A step or prefill of a model; ``options`` are those of a request, as pairs."""

    shape: ModelShape
    schedule: str
    gpus: int
    seq_len: int
    pass_: str
    options: tuple[tuple[str, Any], ...] = ()


class Outcome(NamedTuple):
    """What a run takes: makespan, memory of the fullest rank, and what all ranks compute."""

    time_s: float
    peak_memory_bytes: int
    flop: int


class Cluster:
    """GPUs of one kind, in nodes. Runs are priced once per shape and timed by max-plus, without interference.

    Parameters
    ----------
    topology : preset with options, or file.
    gpu : its GPU.
    kernel : of the attention.
    nccl : NCCL's variables.
    profile : the GPU's, where it is not the one by its name.
    costs : prices of operations.
    what_if : factors of links, as the option of that name, where a source states other rates than the preset's.
    """

    def __init__(
        self, topology: str, gpu: str, kernel: str = "flash2", nccl: tuple[str, ...] = (),
        profile: HardwareProfile | None = None, costs: type[CostModel] = CostModel, what_if: str = "",
    ) -> None:  # fmt: skip
        self._variation = parse_variation(what_if) if what_if else None
        self._nccl, self._profile, self._costs = parse_nccl_assignments(nccl), profile, costs
        self._topology, self._gpu, self._kernel = topology, gpu, kernel
        self.outcome = lru_cache(maxsize=256)(self._outcome)
        self._machine = lru_cache(maxsize=16)(self._load)

    def _load(self, gpus: int) -> tuple[ClusterTopology, CostModel]:
        topology = load_topology(self._topology, gpus, None, self._gpu, self._nccl)
        if self._variation:
            topology = vary_topology(topology, self._variation.of_links)
        return topology, self._costs(topology, self._profile or load_hardware(self._gpu), self._kernel)

    def _outcome(self, run: Run) -> Outcome:
        """What the engine says; what cannot run is skipped with the reason."""
        try:
            topology, costs = self._machine(run.gpus)
            request = SimulationRequest(
                model=run.shape, schedule=run.schedule, gpus=run.gpus, seq_len=run.seq_len, pass_=run.pass_,
                topology=topology, hardware=self._gpu, kernel=self._kernel, layers="model", **dict(run.options),
            )  # fmt: skip
            subject = subject_of(parse_schedule(run.schedule), request.resolve())
        except InputError as error:
            raise Skip(error.message) from None
        engine, memory = MaxPlus(run.gpus, costs), Memory(run.gpus, costs.workspace_bytes)
        traffic = Traffic(subject.setup, subject.copies)
        subject.record(Fanout(engine, memory, traffic))
        return Outcome(engine.makespan_ns / 1e9, int(memory.peak_bytes.max()), traffic.flop)


def value_of(row: Row, result: Outcome, run: Run, extra_bytes: float = 0.0) -> float:
    """A row's metric, in its unit.

    Raises
    ------
    Skip
        Where the metric is no time, throughput or memory of a step.
    """
    metric, unit = row["metric"].lower(), row["unit"].lower()
    if "memory" in metric and unit == "gb":
        return (result.peak_memory_bytes + extra_bytes) / 1e9
    if "tokens_per_s" in metric and unit.startswith("token/s/gpu"):
        return run.seq_len / result.time_s / run.gpus
    if unit == "s" and ("time" in metric or "latency" in metric):
        return result.time_s
    raise Skip(f"metric is no time, throughput or memory of a step: {row['metric'][:60] or 'empty'}")


def shape_of(row: Row) -> ModelShape:
    """The model of ``model_or_shape`` ("...;layers=40;hidden=5120;...")."""
    fields = Row(row.shape())
    sizes = {name: fields.integer(name, 2**24) for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn")}
    vocab = fields.integer("vocab", 2**24) if fields["vocab"] else 32000
    try:
        return ModelShape(
            row["model_or_shape"][:40], sizes["layers"], sizes["hidden"], sizes["heads"], sizes["kv_heads"],
            sizes["head_dim"], sizes["head_dim"], sizes["ffn"], vocab,
        )  # fmt: skip
    except InputError as error:
        raise Skip(error.message) from None
