"""A first look at the step of a deep model: time and peak memory from one and two layers per pipeline stage.

    x(n) = x(1) + (n - 1) (x(2) - x(1)),     n layers per stage; x time or peak memory

Layers are alike, so a step is periodic in them and the line is exact but for its ends. Each is recorded once, into
memory and the max-plus engine, and nothing is kept. Kernels that an attention call launches on different ranks are
priced one by one up to `MOST_PRICED`; of more, ordered by their pairs, a sample is, with straight lines between.

A look ends early where one layer alone needs more memory than a GPU has, or where what has passed inside the layer,
taken by all layers, is longer than the caller cares for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cost_models.hardware import HardwareProfile
from cost_models.kernels import choose_kernel
from cost_models.models import ModelShape
from cost_models.topology import ClusterTopology
from simulator.costing import CostModel
from simulator.engines.maxplus import MaxPlus
from simulator.engines.memory import Memory
from simulator.fanout import Fanout
from simulator.planning.points import Outcome, Point, run_point
from simulator.prices import shared_prices
from simulator.program.operations import Attention, Column, Operation
from simulator.program.tape import Ignore
from simulator.request import ResolvedRequest, SimulationRequest
from simulator.schedules import parse_schedule
from simulator.steps.record import subject_of
from traces.display import format_bytes, format_ns
from traces.errors import InputError

MOST_PRICED = 48
"""Different kernels of an attention call up to which each is priced."""


@dataclass(frozen=True)
class Look:
    """What is looked at.

    Parameters
    ----------
    point : options of the whole step.
    model : its model.
    stages : pipeline stages.
    limit_s : time of the whole step beyond which it does not matter.
    """

    point: Point
    model: ModelShape
    stages: int = 1
    limit_s: float | None = None

    @property
    def layers(self) -> int:
        """Layers of a stage."""
        return int(self.model.layers // self.stages)

    def resolve(self, layers: int) -> ResolvedRequest:
        """With so many layers per stage."""
        shape = replace(self.model, layers=layers * self.stages, sliding_layers=0)
        return SimulationRequest(**{**self.point, "model": shape, "timeline": False}).resolve()


class _Enough(Exception):  # noqa: N818 - nothing went wrong
    """The rest does not matter."""


def take_looks(looks: Sequence[Look]) -> list[Outcome]:
    """Looks one after the other; what they have in common is priced once."""
    return [take_look(look) for look in looks]


def take_look(look: Look) -> Outcome:
    """Time, peak memory and inputs of the whole step as they are estimated, or the reason against it."""
    try:
        one = _measure(look, 1)
        two = _measure(look, 2)
    except InputError as error:
        return {"reason": error.message}
    except _Enough as enough:
        return {"reason": str(enough)}
    more = look.layers - 1
    time_ns, peak_bytes = (first + more * (second - first) for first, second in zip(one, two, strict=True))
    return {"time_s": time_ns / 1e9, "peak_memory_bytes": peak_bytes, "inputs": look.resolve(1).inputs | _pass(look)}


def refine_look(look: Look) -> Outcome:
    """The same from whole simulations of one and two layers per stage, with what operations take from each other."""
    outcomes = [
        run_point({**look.point, "model": replace(look.model, layers=layers * look.stages, sliding_layers=0)})
        for layers in (1, 2)
    ]
    wrong = next((each for each in outcomes if "time_s" not in each), None)
    if wrong is not None:
        return {"reason": wrong["reason"]}
    one, two = outcomes
    more = look.layers - 1
    whole = {name: one[name] + more * (two[name] - one[name]) for name in ("time_s", "peak_memory_bytes")}
    return {**one, **whole}


def _pass(look: Look) -> dict[str, Any]:
    return {"pass": look.point.get("pass_") or "step"}


def _measure(look: Look, layers: int) -> tuple[int, int]:
    """Nanoseconds and bytes of a step with so many layers per stage."""
    resolved = look.resolve(layers)
    assert resolved.schedule is not None
    subject = subject_of(parse_schedule(resolved.schedule), resolved)
    profile, topology = resolved.profile, resolved.topology
    costs = _Sampled(topology, profile, choose_kernel(profile, resolved.request.kernel, resolved.workload))
    memory = Memory(subject.setup.n_ranks, costs.workspace_bytes)
    engine = MaxPlus(subject.setup.n_ranks, costs)
    room = int(profile.usable_memory_bytes / resolved.allocator_slack)
    limit_ns = look.limit_s * 1e9 / look.layers if look.limit_s is not None and layers == 1 else None
    subject.record(Fanout(memory, _Watch(memory, engine, room, limit_ns, look), engine))
    peak = int(memory.peak_bytes.max())
    if peak > room:
        raise _Enough(_too_large(peak, layers, look))
    return engine.makespan_ns, peak


def _too_large(peak: int, layers: int, look: Look) -> str:
    of = f"with {layers} of {look.layers} layers per stage" if look.layers > layers else "in all"
    return f"out of memory: needs {format_bytes(peak)} {of}"


class _Watch(Ignore):
    """A sink that ends a look early, at attention calls: before any is priced."""

    def __init__(self, memory: Memory, engine: MaxPlus, room: int, limit_ns: float | None, look: Look) -> None:
        self._memory, self._engine, self._room, self._limit_ns, self._look = memory, engine, room, limit_ns, look
        self._phase: str | None = None
        self._since = self._before = self._inside = 0

    def operation(self, operation: Operation) -> None:
        """Look at memory, and at the time since the phase's first attention call."""
        if not isinstance(operation.work, Attention):
            return
        if operation.phase != self._phase:
            self._phase, self._before = operation.phase, self._inside
            self._since = self._engine.makespan_ns
        peak = int(self._memory.peak_bytes.max())
        if peak > self._room:
            raise _Enough(_too_large(peak, 1, self._look))
        if self._limit_ns is None:
            return
        self._inside = self._before + self._engine.makespan_ns - self._since
        if self._inside > self._limit_ns:
            passed = self._inside * self._look.layers
            raise _Enough(f"too slow: not done after {format_ns(passed)}, estimated from one layer per stage")


class _Sampled(CostModel):
    """Prices in which of many different kernels of one call a sample is priced."""

    def __init__(self, topology: ClusterTopology, profile: HardwareProfile, kernel: str) -> None:
        super().__init__(topology, profile, kernel, prices=shared_prices(topology, profile, kernel))

    def _attention(self, work: Attention, worked_s: float) -> Column:
        column, key, price = self._attention_price(work, worked_s)
        table = column.table
        if len(table.lowerings) <= MOST_PRICED:
            return super()._attention(work, worked_s)
        self._tables.setdefault((id(table), "sampled"), (table, np.zeros(0, dtype=np.int64)))  # its id stays its own
        distinct = np.unique(column.distinct)
        ranked = distinct[np.argsort(table.pairs[distinct], kind="stable")]
        places = np.unique(np.linspace(0, len(ranked) - 1, MOST_PRICED).round().astype(np.int64))
        priced: list[int] = []
        for number in ranked[places].tolist():
            own = "sampled", id(table), key, number
            if own not in self._priced:
                self._priced[own] = price(table.lowerings[number], number)
            priced.append(int(np.max(self._priced[own])))
        known = np.zeros(len(table.lowerings), dtype=np.int64)
        known[ranked] = np.rint(np.interp(np.arange(len(ranked)), places, priced)).astype(np.int64)
        return column.gather(known)
