"""Simulate one schedule: record, price, run, and say what came out.

A small Program is kept and replayed; a large one is recorded anew for each run, so that it is never in memory. Which
rank is critical is known only after a run, so a large Program is run twice, the second time with one rank observed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from cost_models.hardware import HardwareProfile
from cost_models.kernels import backward_fault, choose_kernel
from cost_models.kernels.limits import REMEDY
from simulator.contended import ContendedCosts
from simulator.contention import (
    MOST_RANKS,
    NO_INTERFERENCE,
    NOT_KEPT,
    Ran,
    check_kept,
    most_classes,
    run_program,
)
from simulator.engines.alike import Alike, Likeness
from simulator.engines.balance import Balance
from simulator.engines.details import Details
from simulator.engines.hosts import HostTimes
from simulator.engines.loads import LinkLoads
from simulator.engines.maxplus import MaxPlus
from simulator.engines.memory import Memory
from simulator.engines.rows import Rows
from simulator.engines.stretch import Stretched
from simulator.engines.traffic import Traffic
from simulator.fanout import Fanout
from simulator.program.program import Program, Streamed
from simulator.program.setup import Setup
from simulator.program.tape import Sink
from simulator.progress import Progress
from simulator.recorded import Recorded, Recordings
from simulator.request import ResolvedRequest, SimulationRequest
from simulator.result import SimulatedRun, SimulationResult
from simulator.roofline import Kernels, Roofline
from simulator.schedules import SCHEDULES, Schedule, parse_schedule
from simulator.slow_ranks import SlowRankCosts
from simulator.steps.largest import largest_seq_len
from simulator.steps.record import Subject, subject_of
from simulator.trust import Trust
from traces.display import format_ns
from traces.errors import InputError
from traces.metrics import breakdown, busy_intervals, busy_ns, critical_rank, exposed_communication_ns, phase_split_ns
from traces.timeline import Timeline

MOST_CLASSES = 64
"""Classes of ranks that are followed where Programs are not kept; more are not told apart."""

HOST_BOUND = 0.9
"""Share of the time for which a host issues operations that sets the time of decoding."""

KEPT_RANKS = MOST_RANKS
"""Ranks up to which a Program, and the timeline of all ranks, is kept."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The simulated time went past what the caller cares for."""


def simulate(
    request: SimulationRequest,
    progress: Progress | None = None,
    *,
    stop_after_s: float | None = None,
    recordings: Recordings | None = None,
) -> SimulationResult:
    """Predict time, memory and traffic of one schedule.

    Parameters
    ----------
    stop_after_s : simulated time after which a first run without interference gives up.
    recordings : kept from other requests, and for further ones.

    Raises
    ------
    InputError
        Where the request cannot be simulated.
    Stopped
        Where it takes longer than ``stop_after_s``.
    """
    if request.seq_len == "max":
        request = replace(request, seq_len=largest_seq_len(request).seq_len)
    resolved = request.resolve()
    if resolved.schedule is None:
        raise InputError("no schedule is named", expected="one of " + ", ".join(SCHEDULES), remedy="name a schedule")
    return simulate_schedule(parse_schedule(resolved.schedule), resolved, progress, stop_after_s, recordings)


def simulate_schedule(
    schedule: Schedule,
    resolved: ResolvedRequest,
    progress: Progress | None = None,
    stop_after_s: float | None = None,
    recordings: Recordings | None = None,
) -> SimulationResult:
    """Simulate a schedule for a request that names none."""
    run = Run.prepare(schedule, resolved, progress, recordings)
    run.follow()
    run.execute(stop_after_s)
    return run.result()


def memory_bytes(resolved: ResolvedRequest) -> int:
    """Memory that a GPU of the request has for tensors."""
    return resolved.room_bytes


@dataclass
class Run:
    """A schedule being simulated: what goes in, and what has come out."""

    subject: Subject
    resolved: ResolvedRequest
    engine: str
    profile: HardwareProfile
    kernel: str
    progress: Progress | None
    recordings: Recordings
    ran: Ran = Ran("")
    on_step: Callable[[], None] | None = None

    @staticmethod
    def prepare(
        schedule: Schedule, resolved: ResolvedRequest, progress: Progress | None, recordings: Recordings | None = None
    ) -> Run:
        """Fill in what the request leaves open, and refuse what cannot run."""
        request, subject = resolved.request, subject_of(schedule, resolved)
        profile = resolved.profile
        kernel = choose_kernel(profile, request.kernel, resolved.workload)
        return Run(subject, resolved, request.engine, profile, kernel, progress, recordings or Recordings())

    @property
    def schedule(self) -> Schedule:
        """The schedule, with its defaults filled in."""
        return self.subject.schedule

    @property
    def setup(self) -> Setup:
        """All ranks, and the attention of one of them."""
        return self.subject.setup

    @property
    def pass_(self) -> str:
        """What of it is simulated."""
        return self.subject.pass_

    def follow(self) -> None:
        """Collect what does not depend on time; while the engine runs, where the Program is not kept."""
        if self._keeps_program:
            _, self.memory, self.traffic, self.balance = self._recorded
            return
        self.memory, self.traffic, self.balance = self._followers()

    def _followers(self) -> tuple[Memory, Traffic, Balance]:
        memory = Memory(self.setup.n_ranks, self._costs.workspace_bytes)
        return memory, Traffic(self.setup, self.subject.copies), Balance(self.setup.n_ranks)

    @property
    def lacking_bytes(self) -> int:
        """Memory that is missing, as far as it has been followed."""
        return max(0, self.reserved_bytes - self.profile.usable_memory_bytes)

    @property
    def reserved_bytes(self) -> int:
        """Memory that the allocator takes on the fullest rank."""
        return int(int(self.memory.peak_bytes.max()) * self.resolved.allocator_slack)

    def execute(self, stop_after_s: float | None = None) -> None:
        """Run the engine, after `follow`."""
        if stop_after_s is not None:
            self._stop_after(stop_after_s)
        if self._keeps_program:
            self.rows = Rows(self.setup.n_ranks)
            topology, request = self.resolved.topology, self.resolved.request
            self.ran = run_program(
                self.engine, self._program, self._costs, topology, self.rows, interference=request.interference,
                faults=request.faults,
            )  # fmt: skip
            return
        check_kept(self.resolved.request.faults)
        self._execute_streamed()

    def _execute_streamed(self) -> None:
        """Record anew for each run, and observe the critical rank."""
        alike = self._find_alike()
        if alike is not None:
            self._execute_stretched(alike)
            return
        n, costs, neglected = self.setup.n_ranks, self._costs, self.resolved.request.interference
        engine = MaxPlus(n, costs)
        self._replay(*(() if neglected else (self.memory, self.traffic, self.balance)), engine)
        self.ran = Ran("maxplus", (NOT_KEPT, NO_INTERFERENCE) if neglected else (NOT_KEPT,))
        self.rows = Rows(n, rank=int(np.argmax(engine.finish_ns)))
        self._replay(MaxPlus(n, costs, self.rows))

    def _find_alike(self) -> Alike | None:
        """Which ranks are alike, where interference is asked for and they are few enough; the rest is followed too."""
        if not self.resolved.request.interference:
            return None
        likeness = Likeness(self.setup.n_ranks, self._costs, MOST_CLASSES)
        self._replay(self.memory, self.traffic, self.balance, likeness)
        alike = likeness.result()
        return alike if alike is not None and len(alike.first) <= most_classes(likeness.operations) else None

    def _execute_stretched(self, alike: Alike) -> None:
        """With interference, on one rank of each class."""
        stretched = Stretched(Streamed(self.setup, self._replay), self._costs, alike)
        self.ran = Ran("maxplus", (NOT_KEPT,))
        self.rows = Rows(self.setup.n_ranks, rank=int(np.argmax(stretched.finish_ns)))
        stretched.report(self.rows)

    def _stop_after(self, limit_s: float) -> None:
        """Give up where operations alone take longer: what they take from each other only adds to it."""
        engine = MaxPlus(self.setup.n_ranks, self._costs)
        self.on_step = partial(_check_time, engine, limit_s)
        self._replay(engine)
        self.on_step = None

    def result(self) -> SimulationResult:
        """What came out."""
        timeline = self.rows.timeline({"schedule": str(self.schedule), "engine": self.ran.engine})
        trust = Trust(self.profile, self.kernel, self.traffic.head_dim, self.resolved.topology)
        peak = int(self.memory.peak_bytes.max())
        critical = critical_rank(timeline)
        parts = breakdown(timeline, critical)
        curve = self._memory_curve() if self.resolved.request.timeline else None
        beyond = trust.extrapolations(self.traffic.rows)
        return SimulationResult(
            schedule=str(self.schedule),
            inputs=self._inputs(),
            engine=self.ran.engine,
            provenance=trust.provenance(),
            warnings=(*self.resolved.warnings, *beyond, *self.ran.warnings, *self._paced(timeline), *self._faults()),
            **_times(timeline, self.pass_),
            peak_memory_bytes=peak,
            reserved_memory_bytes=self.reserved_bytes,
            host_memory_bytes=int(self.memory.host_peak_bytes.max()),
            fits=not self.lacking_bytes,
            exact=self.schedule.exact,
            bytes_sent_per_rank=tuple(self.traffic.sent_bytes.tolist()),
            pairs_total=self.traffic.pairs,
            flop_total=self.traffic.flop,
            rank_imbalance=self.balance.ranks,
            step_imbalance=self.balance.steps,
            uncertainty=trust.uncertainty(parts, extrapolated=bool(beyond)),
            timeline=timeline if self._keeps_all else None,
            breakdown=parts,
            saturated_links=self.ran.saturated,
            step_times=self.ran.step_times,
            memory_curve=tuple(curve.curve) if curve else None,
            memory_holders=curve.holders_at_peak() if curve else None,
            roofline=self._roofline(critical) if self.resolved.request.timeline and self._keeps_all else None,
            run=self._traced() if self.resolved.request.timeline and self._keeps_all else None,
            topology=self.resolved.topology,
            link_shares=self._link_shares(timeline) if self.resolved.request.timeline and self._keeps_all else None,
        )

    def _faults(self) -> tuple[str, ...]:
        """Says so where the kernel would go wrong on tensors as large as these."""
        fault = backward_fault(self.kernel, self.traffic.backward_elements)
        return () if fault is None else (f"{fault}: {REMEDY}",)

    def _paced(self, timeline: Timeline) -> tuple[str, ...]:
        """Decoding's kernels are short: says so where the host cannot launch them as fast as they run."""
        if self.pass_ != "decode" or self.resolved.request.cuda_graphs:
            return ()
        hosts, makespan = HostTimes(self.setup.n_ranks, self._costs), timeline.makespan_ns
        self._replay(hosts)
        rank = critical_rank(timeline)
        busy = busy_intervals(timeline, rank, "compute", "communication", "copy").total_ns
        if hosts.issuing_ns[rank] < HOST_BOUND * makespan or busy > HOST_BOUND * makespan:
            return ()
        return (f"launches by the host set the time of decoding: kernels and communication take {format_ns(busy)} of "
                f"{format_ns(makespan)}; --cuda-graphs launches a token's at once",)  # fmt: skip

    def _memory_curve(self) -> Memory:
        rank = int(np.argmax(self.memory.peak_bytes))
        curve = Memory(self.setup.n_ranks, self._costs.workspace_bytes, follow=rank)
        self._replay(curve)
        return curve

    def _roofline(self, rank: int) -> Roofline:
        kernels = Kernels(self._costs, rank)
        self._replay(kernels)
        return kernels.roofline(self.profile, self.setup.workload.dtype)

    def _traced(self) -> SimulatedRun:
        details = Details(self.setup.n_ranks, self._costs)
        self._replay(details)
        return SimulatedRun(self._program, self._costs, details.result())

    def _link_shares(self, timeline: Timeline) -> tuple[float, ...]:
        capacities = self.resolved.topology.link_capacities_bytes_per_s
        loads = LinkLoads(self._costs, len(capacities))
        self._replay(loads)
        return loads.shares(capacities, timeline.makespan_ns / 1e9)

    @property
    def _keeps_all(self) -> bool:
        return self.setup.n_ranks <= KEPT_RANKS

    @cached_property
    def _costs(self) -> ContendedCosts:
        slow = self.resolved.request.faults.factors(self.setup.n_ranks)
        if slow:
            return SlowRankCosts(self.resolved.topology, self.profile, self.kernel, slow)
        return ContendedCosts(self.resolved.topology, self.profile, self.kernel)

    @property
    def _keeps_program(self) -> bool:
        return self._keeps_all or self.engine == "des"

    @cached_property
    def _recorded(self) -> Recorded:
        """The Program and what follows from it; a kernel's workspace is memory too."""
        return self.recordings.find((self.subject.what, self.kernel), self._record)

    def _record(self) -> Recorded:
        program, followers = Program(self.setup), self._followers()
        self.subject.record(program)
        program.replay(Fanout(*followers, on_step=self._tell))
        return Recorded(program, *followers)

    @property
    def _program(self) -> Program:
        return self._recorded.program

    def _replay(self, *sinks: Sink) -> None:
        fanout = Fanout(*sinks, on_step=self._tell)
        if self._keeps_all:
            self._program.replay(fanout)
        else:
            self.subject.record(fanout)

    def _tell(self, phase: str, step: int) -> None:
        if self.on_step is not None:
            self.on_step()
        if self.progress is not None and not self._keeps_all:
            self.progress(f"{self.schedule.name} {phase}", step + 1, self.setup.n_ranks)

    def _inputs(self) -> Mapping[str, object]:
        used = {"schedule": str(self.schedule), "pass": self.pass_, "kernel": self.kernel}
        return {**self.resolved.inputs, **used}


def _check_time(engine: MaxPlus, stop_after_s: float) -> None:
    if engine.makespan_ns > stop_after_s * 1e9:
        raise Stopped(f"not done after {format_ns(stop_after_s * 1e9)}")


def _times(timeline: Timeline, pass_: str) -> dict[str, Any]:
    """Times of the critical rank."""
    rank = critical_rank(timeline)
    forward, backward = phase_split_ns(timeline)
    other = timeline.makespan_ns - forward - backward if pass_ == "step" else 0
    return {
        "time_s": timeline.makespan_ns / 1e9,
        "forward_s": (timeline.makespan_ns - backward - other) / 1e9 if pass_ != "backward" else 0.0,
        "backward_s": backward / 1e9,
        "other_s": other / 1e9,
        "compute_s": busy_ns(timeline, rank, "compute") / 1e9,
        "communication_s": busy_ns(timeline, rank, "communication") / 1e9,
        "exposed_communication_s": exposed_communication_ns(timeline, rank) / 1e9,
    }
