"""What is known of a candidate while a plan is searched: at least so much time and memory, or exactly so much.

    named      memory in closed form (`least_memory`), time from one attention and one layer (`least_time`)
    looked     both from a few layers (`looks`)
    refined    both from a few layers, with what operations take from each other
    whole      simulated

An estimate stands for a bound once a margin is taken off it, by which it may be too high.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from simulator.planning.objective import Price, key, measures
from simulator.planning.points import Outcome
from simulator.planning.space import Candidate
from traces.display import format_bytes, format_ns

STAGES = ("named", "looked", "refined", "whole")

MARGIN = 0.004
MARGIN_OF_MICROBATCHES = 0.01
"""How much of itself an estimate's time may be too high; found: 0.01 %, and 0.8 % with microbatches."""

Key = tuple[float, float, str]


@dataclass
class Standing:
    """A candidate in the search.

    Attributes
    ----------
    time_s, peak_bytes : at least; exactly where it is whole.
    inputs : of a simulation, batch and length among them.
    outcome : of the whole simulation.
    estimate_s : time without the margin; None where it has not been looked at.
    """

    candidate: Candidate
    inputs: dict[str, Any]
    time_s: float = 0.0
    peak_bytes: int = 0
    stage: str = "named"
    outcome: Outcome | None = field(default=None, repr=False)
    estimate_s: float | None = None

    @property
    def name(self) -> str:
        """Of the candidate."""
        return str(self.candidate)

    @property
    def is_whole(self) -> bool:
        """Whether it is simulated."""
        return self.stage == "whole"

    def measures(self, price: Price | None, *, estimated: bool = False) -> dict[str, float]:
        """By name, as far as they are known; of estimates without the margin if so wanted."""
        time_s = self.estimate_s if estimated and self.estimate_s is not None else self.time_s
        found = {"inputs": self.inputs, "time_s": max(time_s, 1e-12), "peak_memory_bytes": self.peak_bytes}
        return measures(found, price)

    def key(self, objective: str, price: Price | None) -> Key:
        """Its place, at best."""
        return key(objective, self.measures(price)), self.time_s, self.name

    def looked(self, outcome: Outcome, stage: str, margin: float) -> None:
        """An estimate has come; what was known before remains a bound."""
        self.stage, self.estimate_s = stage, outcome["time_s"]
        self.time_s = max(self.time_s, outcome["time_s"] * (1 - margin))
        self.peak_bytes = max(self.peak_bytes, outcome["peak_memory_bytes"])

    def simulated(self, outcome: Outcome) -> None:
        """It is known exactly."""
        self.stage, self.outcome, self.estimate_s = "whole", outcome, outcome["time_s"]
        self.time_s, self.peak_bytes = outcome["time_s"], outcome["peak_memory_bytes"]

    def why_out(self, top: int) -> str:
        """Why it is not among the best, nor on the front."""
        reason = f"not among the best {top}"
        if self.is_whole:
            return reason
        if self.estimate_s is not None:
            return f"{reason}: takes {format_ns(self.estimate_s * 1e9)}, estimated from two and three layers per stage"
        known = [f"takes at least {format_ns(self.time_s * 1e9)}"] if self.time_s else []
        known += [f"needs at least {format_bytes(self.peak_bytes)}"] if self.peak_bytes else []
        return f"{reason}: {' and '.join(known)}" if known else reason
