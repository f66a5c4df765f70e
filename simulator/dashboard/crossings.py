"""The crossover map of a state: sequence lengths around its own, factors of the link that its GPUs talk over."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import Any

from cost_models.topology.links import LinkType
from cost_models.units import parse_count
from simulator.dashboard.state import PARTS, State
from simulator.planning.runners import Runner
from simulator.planning.sweep import run_sweep

SCHEDULES = ("ring", "burst", "allgather", "ulysses", "usp", "loongtrain")
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
OCTAVES = (-2, -1, 0, 1, 2)
"""Lengths, as powers of two of the state's own."""

Rows = tuple[dict[str, Any], ...]


class Crossings:
    """Crossover rows by state, computed once each.

    Parameters
    ----------
    runner : what simulates the points.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner, self._lock = runner, Lock()
        self._rows = lru_cache(maxsize=32)(self._compute)

    def rows(self, state: State) -> Rows:
        """One row per schedule, length and factor, for `traces.figures.crossover`."""
        with self._lock:
            return self._rows(_whole(state))

    def _compute(self, state: State) -> Rows:
        part = link_of(state)
        length = parse_count(state.seq_len, "seq_len")
        texts = {_scaled(state, part, factor): factor for factor in FACTORS}
        axes: dict[str, list[Any]] = {
            "schedule": list(SCHEDULES),
            "seq_len": sorted({max(int(length * 2.0**octave), 1) for octave in OCTAVES}),
            "what_if": list(texts),
        }
        rows, _ = run_sweep(state.request(), axes, self._runner)
        return tuple({**row, "factor": texts[row["what_if"]]} for row in rows)


def link_of(state: State) -> str:
    """The part that carries most between the GPUs: the network between nodes, else NVLink, else PCIe."""
    topology = state.request().resolve().topology
    if topology.n_nodes > 1:
        return "net"
    nvlink = any(link.type is LinkType.NVL for machine in topology.machines for link in machine.links)
    return "nvlink" if nvlink else "pcie"


def _whole(state: State) -> State:
    """Without interference, which moves no crossing much and takes three times as long."""
    return State.of({**vars(state), "schedule": "", "measured": "", "interference": "off"})


def _scaled(state: State, part: str, factor: float) -> str:
    factors = {name: float(getattr(state, name)) for name in PARTS}
    factors[part] *= factor
    return ",".join(f"{name}={value:.6g}" for name, value in factors.items() if value != 1)
