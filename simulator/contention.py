"""Running a Program that is kept: on which engine, what is said of links that transfers share, and what is neglected.

SimPy follows transfers that share links through time. It is chosen where links are shared and the Program has fewer
than `MOST_EVENTS` (rank, operation)s; else max-plus, in which each transfer is priced with what its own operation puts
on the links, as if all of that started together. Interference is in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cost_models.topology import ClusterTopology
from simulator.contended import ContendedCosts
from simulator.engines.costs import Observer
from simulator.engines.des import DiscreteEvents
from simulator.engines.maxplus import MaxPlus
from simulator.engines.saturation import Saturation
from simulator.engines.sharing import Sharing
from simulator.engines.stalls import StalledError
from simulator.engines.stretch import Stretched
from simulator.faults import FaultOptions
from simulator.jitter import draw_step_times
from simulator.program.operations import HOST
from simulator.program.program import Program
from simulator.result import SaturatedLink, SlowedTransfer, StepTimes
from traces.errors import InputError

MOST_EVENTS = 200_000
"""(rank, operation)s up to which SimPy is chosen for shared links."""

MOST_STRETCHED = 4_000_000
"""(rank, operation)s up to which max-plus looks for interference: it keeps some twenty numbers of each."""

MOST_RANKS = 256
"""Ranks up to which Programs are kept."""

LISTED_STALLS = 12
"""Waiting ranks that are listed where one is lost."""

NOT_KEPT = (
    f"above {MOST_RANKS} ranks each operation has its fair share of links as if its transfers started together; what "
    "operations take from each other, of links and of GPUs, is neglected"
)


@dataclass(frozen=True)
class Ran:
    """How a Program ran: the engine, what that neglects, and links that were full."""

    engine: str
    warnings: tuple[str, ...] = ()
    saturated: tuple[SaturatedLink, ...] = ()
    step_times: StepTimes | None = None


def run_program(
    asked: str, program: Program, costs: ContendedCosts, topology: ClusterTopology, observer: Observer, *,
    interference: bool, faults: FaultOptions,
) -> Ran:  # fmt: skip
    """Run a Program.

    Parameters
    ----------
    asked : ``auto``, ``maxplus`` or ``des``.
    observer : is told of every operation.
    interference : whether kernels and communication take SMs and memory bandwidth from each other.
    faults : a lost rank, and jitter; what slows ranks and links is in ``costs`` and ``topology``.

    Raises
    ------
    InputError
        Where a lost rank keeps the run from ending: who waits for whom.
    """
    sharing = Sharing.find(program, costs, topology.link_capacities_bytes_per_s.tolist())
    events = len(program.operations) * program.setup.n_ranks
    waits = any(operation.lane == HOST for operation in program.operations)
    loss = faults.loss(program.setup.n_ranks)
    if asked == "des" or loss or (asked == "auto" and sharing.tight and events < MOST_EVENTS and not waits):
        engine = DiscreteEvents(program, costs, observer, sharing, costs if interference else None, loss)
        _run_to_the_end(engine, loss)
        ran = Ran("des", (), list_saturated(engine.saturation, topology))
    else:
        ran = _run_maxplus(program, costs, observer, len(sharing.tight), interference and events <= MOST_STRETCHED)
        if interference and events > MOST_STRETCHED:
            ran = replace(
                ran, warnings=(*ran.warnings, "what kernels and communication take from each other is neglected")
            )
    if not faults.jitter:
        return ran
    stretched = Stretched(program, costs)
    if interference and events <= MOST_STRETCHED:
        stretched.run()
    return replace(ran, step_times=draw_step_times(program, stretched, faults.jitter, faults.seed, faults.draws))


def _run_maxplus(program: Program, costs: ContendedCosts, observer: Observer, tight: int, interference: bool) -> Ran:
    if interference:
        Stretched(program, costs).run(observer)
    else:
        program.replay(MaxPlus(program.setup.n_ranks, costs, observer))
    return Ran("maxplus", (_neglected_sharing(tight),) if tight else ())


def _run_to_the_end(engine: DiscreteEvents, loss: tuple[int, int] | None) -> None:
    """Run, and say who waits for whom where a rank is lost."""
    try:
        engine.run()
    except StalledError as error:
        if loss is None:
            raise
        direct = [stall for stall in error.stalls if loss[0] in stall.waits_for]
        others = [stall for stall in error.stalls if loss[0] not in stall.waits_for]
        listed = [*direct, *others][:LISTED_STALLS]
        more = f"; and {len(error.stalls) - len(listed)} more" if len(error.stalls) > len(listed) else ""
        raise InputError(
            f"without rank {loss[0]} the run does not end", got="; ".join(map(str, listed)) + more
        ) from None


def check_kept(faults: FaultOptions) -> None:
    """Refuse what needs a Program that is kept."""
    if faults.lost_rank is not None or faults.jitter:
        raise InputError(f"lost ranks and jitter are simulated up to {MOST_RANKS} ranks", remedy="use fewer GPUs")


def _neglected_sharing(links: int) -> str:
    return (
        f"{links} links are shared: each operation has its fair share as if its transfers started together, and what "
        "operations on different lanes take from each other of links is neglected"
    )


def list_saturated(saturation: Saturation, topology: ClusterTopology) -> tuple[SaturatedLink, ...]:
    """Links that were full, the longest first, with the transfers that each of them slowed."""
    found = [
        SaturatedLink(topology.links[link].name, full_ns / 1e9, _slowed(saturation.slowed_ns.get(link, {})))
        for link, full_ns in saturation.full_ns.items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.saturated_s, each.link)))


def _slowed(slowed_ns: Mapping[str, int]) -> tuple[SlowedTransfer, ...]:
    longest = sorted(slowed_ns.items(), key=lambda each: (-each[1], each[0]))
    return tuple(SlowedTransfer(who, time_ns / 1e9) for who, time_ns in longest)
