"""Attention over a cluster, for sources that publish times or throughputs of whole schedules.

    time = makespan of one isolated call (`simulator.simulate`),     throughput = FLOP / (P time)

FLOP = 4 pairs B H D forward, 2.5 times that backward. A source names the schedule, the machine and the pairs that its
authors count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from cost_models.hardware import HardwareProfile
from cost_models.topology import ClusterTopology, NcclSettings, load_topology
from simulator.replay.rows import Row, Skip
from simulator.request import SimulationRequest
from simulator.simulate import simulate
from traces.errors import InputError

NCCL = NcclSettings(version=(2, 28))
"""All that is replayed was published before 2.29, which gave sends to other nodes more channels."""
TWO_CHANNELS = replace(NCCL, nchannels_per_net_peer=2)
"""However many ranks there are. Rings of TransformerEngine send by isend and irecv outside of a batch
(NVTE_BATCH_MHA_P2P_COMM=0), for which PyTorch has a communicator of every pair, and that has two channels."""
MAX_SEQ_LEN = 2**23
MAX_GPUS = 4096


class Times(NamedTuple):
    """Seconds of the forward pass alone, and of forward and backward."""

    forward_s: float
    both_s: float


@dataclass(frozen=True)
class Problem:
    """What is attended: as in ``model_or_shape``, and over how many tokens."""

    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    seq_len: int
    mask: str = "causal"
    dtype: str = "bf16"

    @staticmethod
    def of(row: Row, mask: str = "causal", dtype: str = "bf16") -> Problem:
        """The problem of a published row."""
        return Problem(*row.dims(), row.integer("seq_len", MAX_SEQ_LEN), mask, dtype)

    def forward_flop(self, pairs: float) -> float:
        """Operations of the forward pass."""
        return 4.0 * pairs * self.batch * self.heads * self.head_dim


class Machine:
    """GPUs of one kind, in nodes.

    Parameters
    ----------
    topology : preset with options.
    profile : of its GPUs; ``gpu`` is their name.
    nccl : NCCL's variables and version.
    communication_first : whether the software sees to it that communication does not wait for kernels
        (`simulator.engines.interference`).
    """

    def __init__(
        self, topology: str, profile: HardwareProfile, gpu: str, kernel: str, nccl: NcclSettings = NCCL, *,
        communication_first: bool = False,
    ) -> None:  # fmt: skip
        self._topology, self._gpu, self._kernel, self._nccl = topology, gpu, kernel, nccl
        self._profile = profile.with_communication_first() if communication_first else profile
        self.times = lru_cache(maxsize=4096)(self._times)

    def _times(self, schedule: str, problem: Problem, n_gpus: int) -> Times:
        """Times of a schedule, each pass measured by itself; what cannot run is skipped with the reason."""
        try:
            return Times(*(self._time_s(schedule, problem, n_gpus, passes) for passes in ("forward", "both")))
        except InputError as error:
            raise Skip(error.message) from None

    def _time_s(self, schedule: str, problem: Problem, n_gpus: int, passes: str) -> float:
        request = SimulationRequest(
            schedule=schedule, heads=problem.heads, kv_heads=problem.kv_heads, head_dim=problem.head_dim,
            seq_len=problem.seq_len, batch=problem.batch, mask=problem.mask, dtype=problem.dtype, gpus=n_gpus,
            topology=self._cluster(n_gpus), hardware=self._profile, kernel=self._kernel, pass_=passes, timeline=False,
        )  # fmt: skip
        return simulate(request).time_s

    def _cluster(self, n_gpus: int) -> ClusterTopology:
        return load_topology(self._topology, n_gpus, gpu=self._gpu, nccl=self._nccl)


def value_of(row: Row, times: Times, forward_flop: float, n_gpus: int) -> float:
    """A row's metric, in its unit, from the times of a call.

    Raises
    ------
    Skip
        Where the metric is no time or throughput of attention.
    """
    metric = row["metric"].lower().replace("forward", "fwd").replace("backward", "bwd").replace("_", "+")
    if "fwd+bwd" in metric:
        seconds, flop = times.both_s, 3.5 * forward_flop
    elif "bwd" in metric:
        seconds, flop = times.both_s - times.forward_s, 2.5 * forward_flop
    elif "fwd" in metric:
        seconds, flop = times.forward_s, forward_flop
    else:
        raise Skip(f"metric is no time or throughput of a pass: {row['metric'][:60] or 'empty'}")
    unit = row["unit"].split()[0] if row["unit"].split() else ""
    if unit.startswith("TFLOP/s"):
        return flop / n_gpus / seconds / 1e12
    scale = {"s": 1.0, "ms": 1e3}.get(unit)
    if scale is None and unit != "iter/s":
        raise Skip(f"unit is none of ms, s, iter/s, TFLOP/s: {row['unit'][:40] or 'empty'}")
    return 1 / seconds if scale is None else scale * seconds
