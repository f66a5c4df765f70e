"""Which engine a request gets, and what is said about links that transfers share.

SimPy follows transfers that share links through time. It is chosen where links are shared and the Program has fewer
than `MOST_EVENTS` (rank, operation)s; else max-plus, in which each transfer is priced with what its own operation puts
on the links, as if all of that started together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cost_models.topology import ClusterTopology
from simulator.engines.saturation import Saturation
from simulator.engines.sharing import Sharing
from simulator.program.program import Program
from simulator.result import SaturatedLink, SlowedTransfer

MOST_EVENTS = 200_000
"""(rank, operation)s up to which SimPy is chosen for shared links."""

MOST_RANKS = 256
"""Ranks up to which shared links are looked for."""


def choose_engine(asked: str, program: Program | None, find_sharing: Callable[[], Sharing]) -> tuple[str, str | None]:
    """The engine, and a warning of what it neglects.

    Parameters
    ----------
    asked : ``auto``, ``maxplus`` or ``des``.
    program : None where it is too large to keep.
    find_sharing : looks through the Program for links that may be shared.
    """
    if asked == "des":
        return asked, None
    if program is None:
        return "maxplus", f"links shared by different operations are not looked for above {MOST_RANKS} ranks"
    tight = find_sharing().tight
    if not tight:
        return "maxplus", None
    events = len(program.operations) * program.setup.n_ranks
    if asked == "auto" and events < MOST_EVENTS:
        return "des", None
    return "maxplus", (
        f"{len(tight)} links are shared: each operation has its fair share as if its transfers started together, and "
        "what operations on different lanes take from each other is neglected"
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
