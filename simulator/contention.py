"""Running a Program that is kept: on which engine, what is said of links that transfers share, and what is neglected.

SimPy follows transfers that share links through time. It is chosen where links are shared and the Program has fewer
than `MOST_EVENTS` (rank, operation)s; else max-plus, in which each transfer is priced with what its own operation puts
on the links, as if all of that started together. Interference is in both; in max-plus ranks that are alike are followed
once, up to `MOST_FOLLOWED` (class, operation)s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cost_models.topology import ClusterTopology
from simulator.contended import ContendedCosts
from simulator.engines.alike import find_alike
from simulator.engines.costs import Observer
from simulator.engines.des import DiscreteEvents
from simulator.engines.maxplus import MaxPlus
from simulator.engines.saturation import Saturation
from simulator.engines.sharing import Sharing
from simulator.engines.stalls import StalledError
from simulator.engines.stretch import Stretched
from simulator.faults import FaultOptions
from simulator.jitter import draw_step_times
from simulator.program.program import Program
from simulator.result import SaturatedLink, SlowedTransfer, StepTimes
from traces.errors import InputError

MOST_EVENTS = 200_000
"""(rank, operation)s up to which SimPy is chosen for shared links."""

MOST_FOLLOWED = 1_000_000
"""(class of ranks, operation)s up to which max-plus looks for interference: some 80,000 take a second."""

MOST_RANKS = 256
"""Ranks up to which Programs are kept."""

LISTED_STALLS = 12
"""Waiting ranks that are listed where one is lost."""

NOT_KEPT = (
    f"above {MOST_RANKS} ranks each operation has its fair share of links as if its transfers started together; what "
    "operations on different lanes take from each other of links is neglected"
)

NO_INTERFERENCE = (
    "what kernels and communication take from each other on a GPU is neglected: more than "
    f"{MOST_FOLLOWED:,} operations on ranks that are not alike"
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
    loss, jitter = faults.loss(program.setup.n_ranks), faults.jitter
    by_events = asked == "des" or loss or (asked == "auto" and sharing.tight and events < MOST_EVENTS)
    stretched = _find_interference(program, costs) if interference and (jitter or not by_events) else None
    neglected = (NO_INTERFERENCE,) if interference and stretched is None and (jitter or not by_events) else ()
    if by_events:
        engine = DiscreteEvents(program, costs, observer, sharing, costs if interference else None, loss)
        _run_to_the_end(engine, loss)
        ran = Ran("des", neglected, list_saturated(engine.saturation, topology))
    else:
        _tell(program, costs, stretched, observer)
        ran = Ran("maxplus", (*neglected, *neglected_sharing(sharing)))
    if not jitter:
        return ran
    return replace(ran, step_times=draw_step_times(program, stretched or costs, jitter, faults.seed, faults.draws))


def _find_interference(program: Program, costs: ContendedCosts) -> Stretched | None:
    """Times beside other work; None where there is too much to follow."""
    alike = find_alike(program, costs, most_classes(len(program.operations)))
    return None if alike is None else Stretched(program, costs, alike)


def most_classes(operations: int) -> int:
    """Classes of ranks up to which a Program of so many operations is followed."""
    return MOST_FOLLOWED // max(operations, 1)


def _tell(program: Program, costs: ContendedCosts, stretched: Stretched | None, observer: Observer) -> None:
    if stretched is None:
        program.replay(MaxPlus(program.setup.n_ranks, costs, observer))
    else:
        stretched.report(observer)


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
            f"without rank {loss[0]} the run does not end",
            got="; ".join(map(str, listed)) + more or "nobody waits for it, but its part is missing",
        ) from None


def check_kept(faults: FaultOptions) -> None:
    """Refuse what needs a Program that is kept."""
    if faults.lost_rank is not None or faults.jitter:
        raise InputError(f"lost ranks and jitter are simulated up to {MOST_RANKS} ranks", remedy="use fewer GPUs")


def neglected_sharing(sharing: Sharing) -> tuple[str, ...]:
    """What max-plus says of links that are shared, where there are any."""
    links = len(sharing.tight)
    if not links:
        return ()
    what = "1 link is" if links == 1 else f"{links} links are"
    return (
        f"{what} shared: each operation has its fair share as if its transfers started together, and what "
        "operations on different lanes take from each other of links is neglected",
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
