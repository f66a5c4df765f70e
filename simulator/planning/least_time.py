"""What a training step or a prefill takes at least, from one attention and one layer, each recorded once.

    layer   = core + dense
    core    = attention forward and backward; forward once more where checkpointing attends again
    dense   = everything else of a layer, with a schedule that does nothing in attention's place
    least   = max over ranks of  (layers of a stage x microbatches x layer)  + products of the head

A rank is followed by itself: it waits for nobody, its host is ahead, its GPU has rested, nothing takes anything from
anything else, and parameters are where they are used. What is left out only adds to a time; and as a rank's compute
lane does dense parts and cores one after the other, their sum is a bound. Cores are the same for all candidates of a
schedule and a grid, dense parts for all of a grid.

The power limit is counted by another bound: the compute lane of the rank that counts work (`simulator.worked`), its
prices those after long work, less what they were lower until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Self

import numpy as np

from cost_models.hardware import HardwareProfile
from cost_models.kernels import choose_kernel, estimate_gemm_s
from cost_models.topology import ClusterTopology
from simulator.engines.maxplus import MaxPlus, latest
from simulator.layers.checkpoint import checkpoint
from simulator.layers.core import Kept
from simulator.layers.model import Model
from simulator.layers.net import Net, Slot, Var
from simulator.layers.weights import WeightMaker
from simulator.planning.points import Point
from simulator.planning.sampled import LeastCosts, falling_once
from simulator.program.lift import Lift
from simulator.program.operations import COMPUTE, Buffer, Column, Elementwise, Operation
from simulator.program.partition import Partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.recording import record_program
from simulator.request import SimulationRequest
from simulator.resolved import ResolvedRequest
from simulator.schedules import parse_schedule
from simulator.schedules.base import Saved, Schedule, split_sequence
from simulator.steps.parameters import ParameterStore
from simulator.steps.plan import Plan
from simulator.steps.ranks import Ranks
from simulator.steps.record import plan_of
from simulator.worked import STEPS_S
from traces.errors import InputError
from traces.garbage import collector_paused

LONG_S = STEPS_S[5]
"""Work after which prices are nearly those after the longest, 0.16 s: what is gained until then is little."""

FALLING = 1.5
"""Kernels that begin before `LONG_S` and end after it gain a little more: for as long as the clock takes to fall."""


@dataclass(frozen=True)
class Bounded:
    """Candidates that share schedule and grid, whose least times are asked for.

    Parameters
    ----------
    points : their options.
    limit_s : time beyond which it does not matter how much more it is.
    """

    points: Sequence[Point]
    limit_s: float | None = None


def least_times_s(asked: Bounded) -> list[float]:
    """Seconds that each of the points takes at least; 0 where nothing is known."""
    try:
        with collector_paused():
            core = _Core(_resolve(asked.points[0]), asked.limit_s)
            return [core.least_s(_resolve(point)) for point in asked.points]
    except InputError:
        return [0.0] * len(asked.points)


class _Core:
    """Attention of one schedule on one grid: the least times of what checkpointing makes of it."""

    def __init__(self, resolved: ResolvedRequest, limit_s: float | None) -> None:
        self._trains, plan = resolved.request.pass_ != "prefill", _plan_of(resolved).resolved()
        self._profile, topology = falling_once(resolved.profile), resolved.topology
        self._kernel = choose_kernel(self._profile, resolved.request.kernel, resolved.workload)
        self._prices = _Prices(topology, self._profile, self._kernel)
        self._times = plan.shape.layers // plan.grid.pp * plan.options.microbatches
        limit_ns = None if limit_s is None else int(limit_s * 1e9) // self._times
        self._chain = _Chain(plan.ranks, self._prices, limit_ns)
        with suppress(_Enough):
            record_program(plan.schedule, plan.setup, "both" if self._trains else "forward",
                           Lift(plan.grid, self._chain))  # fmt: skip

    def least_s(self, resolved: ResolvedRequest) -> float:
        """Of a whole step or prefill."""
        plan, core = _plan_of(resolved), self._chain
        dense = _dense(_bare(plan), self._prices, trains=self._trains)
        alone_ns, worked_ns = core.done_ns + dense.done_ns, core.worked_ns + dense.worked_ns
        if self._trains and plan.options.checkpoint == "full":
            alone_ns, worked_ns = alone_ns + core.forward_ns, worked_ns + core.worked_forward_ns
        alone_s, worked_s = (self._times * int(np.max(each)) / 1e9 for each in (alone_ns, worked_ns))
        return max(alone_s, worked_s - self._rest_gains_s(plan)) + (self._head_s(plan) if self._trains else 0.0)

    def _rest_gains_s(self, plan: Plan) -> float:
        """How much sooner a GPU that has rested is done at most than one that has worked long."""
        curve = self._profile.kernel(self._kernel)
        passes = [curve.direction(each, plan.shape.head_dim).sustained_loss for each in ("forward", "backward")]
        most = float(max(self._profile.gemm.sustained_loss, *passes))
        return FALLING * LONG_S * most / (1 - most)

    def _head_s(self, plan: Plan) -> float:
        """Logits of all tokens, and the gradient of what they come from."""
        tokens, vocab = plan.seq_len // plan.grid.cp * plan.sequences, plan.shape.vocab // plan.grid.tp
        sizes = (tokens, vocab, plan.shape.hidden), (tokens, plan.shape.hidden, vocab)
        once_s = sum(estimate_gemm_s(self._profile, *size, plan.dtype) for size in sizes)
        return float(once_s) * plan.options.microbatches


def _resolve(point: Point) -> ResolvedRequest:
    return SimulationRequest(**{**point, "timeline": False}).resolve()


def _plan_of(resolved: ResolvedRequest) -> Plan:
    assert resolved.model is not None and resolved.schedule is not None
    return plan_of(parse_schedule(resolved.schedule), resolved, resolved.model)


class _Prices:
    """Least prices, of GPUs that have rested and of those that have worked long; equal where the cluster is one."""

    def __init__(self, topology: ClusterTopology, profile: HardwareProfile, kernel: str) -> None:
        self._of = topology, profile, kernel
        self.rested, self.worked = [LeastCosts(topology, profile, kernel, each) for each in (0.0, LONG_S)]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Prices)
            and all(a is b for a, b in zip(self._of[:2], other._of[:2], strict=True))
            and self._of[2] == other._of[2]
        )

    def __hash__(self) -> int:
        return hash((id(self._of[0]), id(self._of[1]), self._of[2]))


class _Enough(Exception):  # noqa: N818 - nothing went wrong
    """The rest does not matter."""


class _Chain(MaxPlus):
    """Times of ranks that wait for nobody.

    Attributes
    ----------
    forward_ns, done_ns : when each rank has computed forward, and has everything.
    worked_forward_ns, worked_ns : time of compute operations until then on the rank that counts work, had it worked.
    """

    def __init__(self, n_ranks: int, prices: _Prices, limit_ns: int | None = None) -> None:
        super().__init__(n_ranks, prices.rested)
        self._after_work, self._limit_ns = prices.worked, limit_ns
        self._middle = n_ranks // 2
        self.forward_ns: Column = 0
        self.done_ns: Column = 0
        self.worked_ns = self.worked_forward_ns = 0

    def operation(self, operation: Operation) -> None:
        """Follow it, and end where more does not matter."""
        super().operation(operation)
        self.done_ns = self.lanes.get(COMPUTE, 0)
        if operation.lane == COMPUTE:
            column = self._after_work.device_ns(operation)
            self.worked_ns += column if isinstance(column, int) else int(column[self._middle])
        if operation.phase == "forward":
            self.forward_ns, self.worked_forward_ns = self.done_ns, self.worked_ns
        if self._limit_ns is not None and int(np.max(self.done_ns)) > self._limit_ns:
            raise _Enough

    def finish(self, outputs: dict[str, Buffer]) -> None:
        """Outputs have arrived too."""
        for buffer in outputs.values():
            for end in self._uses[buffer.id].written.values() if buffer.id in self._uses else ():
                self.done_ns = latest(self.done_ns, end)

    def _run(self, operation: Operation, start: Column, device_ns: Column) -> Column:
        return start + device_ns


@dataclass(frozen=True)
class _Nothing(Schedule):
    """In attention's place: O and gradients are there at once."""

    name: ClassVar[str] = "nothing"
    source: ClassVar[str] = "none"

    def resolve(self, setup: Setup) -> Self:
        """There are no options."""
        return self

    def check(self, setup: Setup) -> None:
        """It runs on any ranks."""

    def input_partition(self, setup: Setup) -> Partition:
        """Equal parts."""
        return split_sequence("contiguous", setup)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """O and its LSE."""
        b = q.buffer
        o = r.tensor("o", q.layout, b.heads, v.buffer.dim, b.dtype, tokens=b.tokens, batch=b.batch)
        lse = r.tensor("lse", q.layout, b.heads, 1, "fp32", tokens=b.tokens, batch=b.batch)
        r.emit("nothing", NO_WORK, (q, k, v), (o, lse))
        return o, lse

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As much of each gradient."""
        dq, dk, dv = (r.like(each, f"d{each.buffer.name}") for each in (q, k, v))
        r.emit("nothing", NO_WORK, (do, *saved), (dq, dk, dv))
        return dq, dk, dv


NO_WORK = Elementwise("copy", 0, 0)


def _bare(plan: Plan) -> Plan:
    """One layer a stage, nothing in attention's place, and nothing besides that layers of candidates may differ in."""
    how = "attention" if plan.options.checkpoint == "sequence" else plan.options.checkpoint
    shape = replace(plan.shape, layers=plan.grid.pp, sliding_layers=0)
    options = replace(plan.options, checkpoint=how, zero=0, offload="none")
    return replace(plan, shape=shape, schedule=_Nothing(), options=options)


@lru_cache(maxsize=256)
def _dense(plan: Plan, prices: _Prices, *, trains: bool) -> _Chain:
    """A layer without its attention."""
    chain = _Chain(plan.ranks, prices)
    ranks, options = Ranks(plan, chain), plan.options
    maker = WeightMaker(plan.shape, ranks.context.parallel, plan.dtype, fp8=options.fp8)
    model = Model(ranks.context, maker, None, options.parsed_method, options.ep)
    ParameterStore(ranks.r, plan.grid, 0, None).hold(model.layers[0].values())
    net = Net(ranks.r, training=trains)
    x = Var(ranks.r.tensor("x", ranks.context.home, 1, plan.shape.hidden, plan.dtype), Slot() if trains else None)

    def region(entry: Var, kept: Kept | None) -> Var:
        return model.layer(net, 0, entry, kept)

    y = checkpoint(net, region, x, options.checkpoint)
    if y.slot is not None:
        ranks.r.phase = "backward"
        y.slot.grad = ranks.r.like(y.tensor, "dy")
        net.backward()
    return chain
