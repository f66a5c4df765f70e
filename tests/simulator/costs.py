"""Costs of round numbers, and Programs run with them, for tests of what is made from timelines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simulator.engines.details import Details
from simulator.engines.maxplus import MaxPlus
from simulator.engines.rows import Rows
from simulator.fanout import Fanout
from simulator.program.operations import Column, Operation
from simulator.program.program import Program
from traces.launches import TraceDetails
from traces.timeline import Timeline


class RoundCosts:
    """Microseconds by category, a little more on higher ranks and in later steps; ``link`` divides communication."""

    def __init__(
        self, n_ranks: int, *, host_us: int = 4, compute_us: int = 30, communication_us: int = 50, link: float = 1
    ) -> None:
        self._ranks = np.arange(n_ranks)
        self._host, self._compute, self._communication, self._link = host_us, compute_us, communication_us, link

    def host_ns(self, operation: Operation) -> Column:
        return self._host * 1000

    def device_ns(self, operation: Operation) -> Column:
        if operation.category == "communication":
            return round((self._communication * 1000 + 777 * operation.step) / self._link)
        long = 3 if operation.kind.startswith("attention") else 1
        return long * self._compute * 1000 + 1013 * (operation.step % 3) + 500 * self._ranks


class Traced(NamedTuple):
    """What a trace is written from."""

    timeline: Timeline
    details: TraceDetails


def run_traced(program: Program, costs: RoundCosts) -> Traced:
    """Run a Program on the max-plus engine and keep everything."""
    n = program.setup.n_ranks
    rows, details = Rows(n), Details(n, costs)
    program.replay(Fanout(details, MaxPlus(n, costs, rows)))
    return Traced(rows.timeline(), details.result())
