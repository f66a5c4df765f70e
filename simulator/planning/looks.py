"""A look at a deep model: time and peak memory from two and three layers per pipeline stage.

    x(n) = x(2) + (n - 2) (x(3) - x(2)),     n layers per stage; x time or peak memory

Layers are alike, so a step is periodic in them, but for its ends, which is why one layer is not looked at. A first look
records each once, into memory and the max-plus engine, and keeps nothing; a refined one simulates them whole, with what
operations take from each other. A first look ends early where a few layers alone need more memory than a GPU has. GPUs
are looked at without their control of power, which slows the first layers more than the rest (`sampled.falling_once`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cost_models.hardware import HardwareProfile
from cost_models.kernels import choose_kernel
from cost_models.models import ModelShape
from simulator.engines.maxplus import MaxPlus
from simulator.engines.memory import Memory
from simulator.fanout import Fanout
from simulator.planning.points import Outcome, Point, run_point
from simulator.planning.sampled import SampledCosts, falling_once
from simulator.program.operations import Attention, Operation
from simulator.program.tape import Ignore
from simulator.request import SimulationRequest
from simulator.resolved import ResolvedRequest
from simulator.schedules import parse_schedule
from simulator.steps.record import subject_of
from traces.display import format_bytes
from traces.errors import InputError

FEW, MORE = 2, 3
"""Layers per stage that are looked at."""


@dataclass(frozen=True)
class Look:
    """What is looked at.

    Parameters
    ----------
    point : options of the whole step.
    model : its model.
    stages : pipeline stages, or their parts where they are interleaved.
    """

    point: Point
    model: ModelShape
    stages: int = 1

    @property
    def layers(self) -> int:
        """Layers of a stage."""
        return int(self.model.layers // self.stages)

    def with_layers(self, layers: int) -> dict[str, Any]:
        """The point with so many layers per stage, on GPUs whose clock falls once."""
        model = replace(self.model, layers=layers * self.stages, sliding_layers=0)
        return {**self.point, "model": model, "hardware": falling_once(self._profile)}

    @cached_property
    def _profile(self) -> HardwareProfile:
        """Of its GPU, before what the point varies."""
        return SimulationRequest(**{**self.point, "what_if": "", "timeline": False}).resolve().profile

    @property
    def inputs(self) -> dict[str, Any]:
        """Inputs of the whole step."""
        request = SimulationRequest(**{**self.point, "timeline": False})
        return request.resolve().inputs | {"pass": self.point.get("pass_") or "step"}

    def whole(self, few: int, more: int) -> int:
        """A quantity of all layers, from that of few and of more."""
        return few + (self.layers - FEW) * (more - few) // (MORE - FEW)


class _Enough(Exception):  # noqa: N818 - nothing went wrong
    """The rest does not matter."""


def take_look(look: Look) -> Outcome:
    """Time, peak memory and inputs of the whole step as they are estimated, or the reason against it."""
    try:
        measured = [_measure(look, layers) for layers in (FEW, MORE)]
    except InputError as error:
        return {"reason": error.message}
    except _Enough as enough:
        return {"reason": str(enough)}
    time_ns, peak_bytes = (look.whole(*pair) for pair in zip(*measured, strict=True))
    return {"time_s": time_ns / 1e9, "peak_memory_bytes": peak_bytes, "inputs": look.inputs}


def refine_look(look: Look) -> Outcome:
    """The same from whole simulations of as many layers, with what operations take from each other."""
    outcomes = [run_point(look.with_layers(layers)) for layers in (FEW, MORE)]
    wrong = next((each for each in outcomes if "time_s" not in each), None)
    if wrong is not None:
        return {"reason": wrong["reason"]}
    few, more = ((round(each["time_s"] * 1e9), each["peak_memory_bytes"]) for each in outcomes)
    time_ns, peak_bytes = (look.whole(*pair) for pair in zip(few, more, strict=True))
    return {"time_s": time_ns / 1e9, "peak_memory_bytes": peak_bytes, "inputs": look.inputs}


def _resolve(look: Look, layers: int) -> ResolvedRequest:
    return SimulationRequest(**{**look.with_layers(layers), "timeline": False}).resolve()


def _measure(look: Look, layers: int) -> tuple[int, int]:
    """Nanoseconds and bytes of a step with so many layers per stage."""
    resolved = _resolve(look, layers)
    assert resolved.schedule is not None
    subject = subject_of(parse_schedule(resolved.schedule), resolved)
    profile = resolved.profile
    costs = SampledCosts(resolved.topology, profile, choose_kernel(profile, resolved.request.kernel, resolved.workload))
    memory = Memory(subject.setup.n_ranks, costs.workspace_bytes)
    engine = MaxPlus(subject.setup.n_ranks, costs)
    watch = _Watch(memory, resolved.room_bytes, layers, look.layers)
    subject.record(Fanout(memory, watch, engine))
    watch.check()
    return engine.makespan_ns, int(memory.peak_bytes.max())


class _Watch(Ignore):
    """A sink that ends a look early, at attention calls: before any is priced."""

    def __init__(self, memory: Memory, room: int, layers: int, of: int) -> None:
        self._memory, self._room, self._layers, self._of = memory, room, layers, of

    def operation(self, operation: Operation) -> None:
        """Look at memory."""
        if isinstance(operation.work, Attention):
            self.check()

    def check(self) -> None:
        """Give up where there is not enough."""
        peak = int(self._memory.peak_bytes.max())
        if peak > self._room:
            of = f"with {self._layers} of {self._of} layers per stage"
            raise _Enough(f"out of memory: needs {format_bytes(peak)} {of}")
