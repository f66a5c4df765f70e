"""A schedule being simulated: recorded, priced and run.

A small Program is kept and replayed; a large one is recorded anew for each run, so that it is never in memory. Which
rank is critical is known only after a run, so a large Program is run twice, the second time with one rank observed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from cost_models.hardware import HardwareProfile
from cost_models.kernels import choose_kernel
from simulator.contended import ContendedCosts
from simulator.contention import (
    MOST_RANKS,
    NO_INTERFERENCE,
    NOT_KEPT,
    Ran,
    check_kept,
    most_classes,
    neglected_sharing,
    run_program,
)
from simulator.engines.alike import Alike, Likeness
from simulator.engines.balance import Balance
from simulator.engines.maxplus import MaxPlus
from simulator.engines.memory import Memory
from simulator.engines.rows import Rows
from simulator.engines.sharing import Sharing
from simulator.engines.stretch import Stretched
from simulator.engines.traffic import Traffic
from simulator.fanout import Fanout
from simulator.following import Followed, follow_layers
from simulator.program.program import Program, Streamed
from simulator.program.setup import Setup
from simulator.program.tape import Sink
from simulator.progress import Progress
from simulator.recorded import Recorded, Recordings
from simulator.resolved import ResolvedRequest
from simulator.schedules import Schedule
from simulator.slow_ranks import SlowRankCosts
from simulator.steps.record import Subject, subject_of
from traces.display import format_ns

MOST_CLASSES = 64
"""Classes of ranks that are followed where Programs are not kept; more are not told apart."""

KEPT_RANKS = MOST_RANKS
"""Ranks up to which a Program, and the timeline of all ranks, is kept."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The simulated time went past what the caller cares for."""


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
        if self._keeps_program and not self.followed:
            _, self.memory, self.traffic, self.balance = self._recorded
            return
        self.memory, self.traffic, self.balance = self._followers()
        if self.followed:
            self.followed.replay(self.memory, self.traffic, self.balance)

    def _followers(self) -> tuple[Memory, Traffic, Balance]:
        memory = Memory(self.setup.n_ranks, self.costs.workspace_bytes)
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
        if self.followed:
            self._execute_followed(self.followed)
            return
        if self._keeps_program:
            self.rows = Rows(self.setup.n_ranks)
            topology, request = self.resolved.topology, self.resolved.request
            self.ran = run_program(
                self.engine, self.program, self.costs, topology, self.rows, interference=request.interference,
                faults=request.faults,
            )  # fmt: skip
            return
        check_kept(self.resolved.request.faults)
        self._execute_streamed()

    def _execute_followed(self, followed: Followed) -> None:
        """Copies of the layers that repeat."""
        if self.keeps_all:
            capacities = self.resolved.topology.link_capacities_bytes_per_s.tolist()
            self.ran = Ran("maxplus", neglected_sharing(Sharing.find(followed.program, self.costs, capacities)))
        else:
            self.ran = Ran("maxplus", (NOT_KEPT,))
        self.rows = Rows(self.setup.n_ranks, rank=followed.critical_rank)
        followed.report(self.rows)

    def _execute_streamed(self) -> None:
        """Record anew for each run, and observe the critical rank."""
        alike = self._find_alike()
        if alike is not None:
            self._execute_stretched(alike)
            return
        n, costs, neglected = self.setup.n_ranks, self.costs, self.resolved.request.interference
        engine = MaxPlus(n, costs)
        self.replay(*(() if neglected else (self.memory, self.traffic, self.balance)), engine)
        self.ran = Ran("maxplus", (NOT_KEPT, NO_INTERFERENCE) if neglected else (NOT_KEPT,))
        self.rows = Rows(n, rank=int(np.argmax(engine.finish_ns)))
        self.replay(MaxPlus(n, costs, self.rows))

    def _find_alike(self) -> Alike | None:
        """Which ranks are alike, where interference is asked for and they are few enough; the rest is followed too."""
        if not self.resolved.request.interference:
            return None
        likeness = Likeness(self.setup.n_ranks, self.costs, MOST_CLASSES)
        self.replay(self.memory, self.traffic, self.balance, likeness)
        alike = likeness.result()
        return alike if alike is not None and len(alike.first) <= most_classes(likeness.operations) else None

    def _execute_stretched(self, alike: Alike) -> None:
        """With interference, on one rank of each class."""
        stretched = Stretched(Streamed(self.setup, self.replay), self.costs, alike)
        self.ran = Ran("maxplus", (NOT_KEPT,))
        self.rows = Rows(self.setup.n_ranks, rank=int(np.argmax(stretched.finish_ns)))
        stretched.report(self.rows)

    def _stop_after(self, limit_s: float) -> None:
        """Give up where operations alone take longer: what they take from each other only adds to it."""
        engine = MaxPlus(self.setup.n_ranks, self.costs)
        self.on_step = partial(_check_time, engine, limit_s)
        self.replay(engine)
        self.on_step = None

    @property
    def keeps_all(self) -> bool:
        """Whether the Program, and the timeline of all ranks, is kept."""
        return self.setup.n_ranks <= KEPT_RANKS

    @cached_property
    def followed(self) -> Followed | None:
        """The step from few of its layers, where they repeat exactly and nobody asks for the Program."""
        request = self.resolved.request
        asked = self.engine == "des" or (self.keeps_all and (request.timeline or self.engine != "maxplus"))
        faulty = request.faults.lost_rank is not None or request.faults.jitter
        if asked or faulty or not request.interference:
            return None
        most = self.setup.n_ranks if self.keeps_all else MOST_CLASSES
        return follow_layers(self.subject.schedule, self.resolved, self._new_costs, most)

    @cached_property
    def costs(self) -> ContendedCosts:
        """Prices of operations."""
        return self._new_costs()

    def _new_costs(self) -> ContendedCosts:
        slow = self.resolved.request.faults.factors(self.setup.n_ranks)
        if slow:
            return SlowRankCosts(self.resolved.topology, self.profile, self.kernel, slow)
        return ContendedCosts(self.resolved.topology, self.profile, self.kernel)

    @property
    def _keeps_program(self) -> bool:
        return self.keeps_all or self.engine == "des"

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
    def program(self) -> Program:
        """What is kept of it."""
        return self._recorded.program

    def replay(self, *sinks: Sink) -> None:
        """Tell sinks of all operations: from what is kept, or recorded anew."""
        fanout = Fanout(*sinks, on_step=self._tell)
        if self.keeps_all:
            self.program.replay(fanout)
        else:
            self.subject.record(fanout)

    def _tell(self, phase: str, step: int) -> None:
        if self.on_step is not None:
            self.on_step()
        if self.progress is not None and not self.keeps_all:
            self.progress(f"{self.schedule.name} {phase}", step + 1, self.setup.n_ranks)


def _check_time(engine: MaxPlus, stop_after_s: float) -> None:
    if engine.makespan_ns > stop_after_s * 1e9:
        raise Stopped(f"not done after {format_ns(stop_after_s * 1e9)}")
