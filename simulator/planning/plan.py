"""The plan: the best few candidates for an objective, the Pareto front, why, and what became of all the others.

Of deep models a first look (`screening`) chooses who is simulated whole.

Candidates run in waves of `WAVE`, in a fixed order, so that the answer does not depend on where or how fast they ran.
After each wave the N-th best time bounds the next: a simulation that is past twice that much simulated time stops
(`bounds` of branch and bound: a makespan is never less than what has been simulated of it). The Pareto front is
therefore one of candidates within twice the N-th best time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulator.planning.objective import Price, default_price, key, measures
from simulator.planning.pareto import pareto_front
from simulator.planning.points import Outcome, Point
from simulator.planning.runners import Runner
from simulator.planning.screening import KEPT, screen
from simulator.planning.sensitivity import estimate_sensitivity
from simulator.planning.space import Axes, Candidate, list_candidates
from simulator.progress import Progress
from simulator.request import SimulationRequest
from simulator.simulate import memory_bytes
from traces.display import format_bytes
from traces.errors import InputError

WAVE = 64
SLACK = 2.0
"""How many times the N-th best time a candidate may take and still be simulated to its end."""

Entry = dict[str, Any]


@dataclass
class PlanResult:
    """What a plan found.

    Attributes
    ----------
    candidates : the best, in order: options, measures, limits and the result itself.
    pareto : names of the candidates on the front of time, memory and cost.
    dropped : every other candidate with its reason.
    sensitivity : elasticities of the best candidate's time by part of the cluster.
    interrupted : whether candidates were left out because the user stopped it.
    """

    objective: str
    candidates: list[Entry] = field(default_factory=list)
    pareto: list[Entry] = field(default_factory=list)
    dropped: list[Entry] = field(default_factory=list)
    sensitivity: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """As the contract has it."""
        return {
            "schema_version": 1, "objective": self.objective, "candidates": self.candidates, "pareto": self.pareto,
            "dropped": self.dropped, "sensitivity": self.sensitivity, "interrupted": self.interrupted,
        }  # fmt: skip


def plan(
    request: SimulationRequest,
    runner: Runner,
    *,
    objective: str = "time",
    top: int = 5,
    axes: Axes | None = None,
    every: bool = False,
    approximate: bool = False,
    price: Price | None = None,
    progress: Progress | None = None,
    on_result: Callable[[Entry], None] | None = None,
    cache_folder: str | None = None,
) -> PlanResult:
    """Search what a request leaves open.

    Parameters
    ----------
    request : the question; its schedule is not named.
    objective : time, throughput, memory or cost.
    top : candidates to return.
    axes, every, approximate : see :func:`simulator.planning.space.list_candidates`.
    price : of a GPU; default its list price, if we know one.
    on_result : is told of every candidate that fits, as it is done.

    Raises
    ------
    InputError
        Where the request is wrong, or nothing can run.
    """
    if top < 1:
        raise InputError("top is not a positive whole number", got=top)
    candidates = list_candidates(request, axes, every=every, approximate=approximate)
    price = price or default_price(_hardware_name(request))
    search = _Search(request, runner, objective, top, price, cache_folder)
    search.drop([each for each in candidates if each.reason])
    legal = [each for each in candidates if not each.reason]
    try:
        legal = search.screen(legal, progress)
        for done, entry in search.run(legal):
            if progress is not None:
                progress("candidates", done, len(legal))
            if entry is not None and on_result is not None:
                on_result(entry)
    except KeyboardInterrupt:
        search.result.interrupted = True
    return search.finish()


def _hardware_name(request: SimulationRequest) -> str:
    hardware = request.resolve().hardware
    return hardware if isinstance(hardware, str) else hardware.name


class _Search:
    """Candidates that have run, and those dropped."""

    def __init__(self, request: SimulationRequest, runner: Runner, objective: str, top: int, price: Price | None,
                 cache_folder: str | None) -> None:  # fmt: skip
        self._request, self._base = request, base_point(request)
        self._runner, self._top, self._price = runner, top, price
        self._cache = cache_folder
        self._entries: list[Entry] = []
        self.result = PlanResult(objective)

    def run(self, legal: Sequence[Candidate]) -> Iterator[tuple[int, Entry | None]]:
        """(candidates done, entry if it fits), in waves."""
        for first in range(0, len(legal), WAVE):
            wave = legal[first : first + WAVE]
            points = [{**self._base, **each.options} for each in wave]
            outcomes: dict[int, Outcome] = {}
            for index, outcome in self._runner.run(points, self._bound_s(), self._cache):
                outcomes[index] = outcome
                yield first + len(outcomes), self._entry(wave[index], outcome) if _fits(outcome) else None
            for index, outcome in sorted(outcomes.items()):
                self._keep(wave[index], outcome)

    def screen(self, legal: list[Candidate], progress: Progress | None) -> list[Candidate]:
        """Candidates of deep models that are worth a whole simulation."""
        resolved = self._request.resolve()
        if self._request.layers != "model" or resolved.model is None or len(legal) <= KEPT * self._top:
            return legal

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress("first look", done, total)

        kept, out = screen(
            legal, self._base, resolved.model, self._runner, self.result.objective, self._top, self._price,
            memory_bytes(resolved), tell,
        )  # fmt: skip
        self.drop(out)
        return kept

    def drop(self, candidates: Sequence[Candidate]) -> None:
        """Candidates that cannot run."""
        self.result.dropped += [{"candidate": str(each), "reason": each.reason} for each in candidates]

    def finish(self) -> PlanResult:
        """Ranked, with front and sensitivity."""
        if not self._entries:
            reasons = list(dict.fromkeys(each["reason"] for each in self.result.dropped))
            raise InputError("nothing can run" + (f": {'; '.join(reasons[:5])}" if reasons else ""))
        ranked = sorted(self._entries, key=self._order)
        self.result.candidates = ranked[: self._top]
        self.result.pareto = self._front(ranked)
        reason = f"not among the best {self._top}"
        self.result.dropped += [{"candidate": each["candidate"], "reason": reason} for each in ranked[self._top :]]
        if not self.result.interrupted:
            best = self.result.candidates[0]
            point: Point = {**self._base, **best["options"]}
            self.result.sensitivity = estimate_sensitivity(self._runner, point, best["time_s"])
        return self.result

    def _order(self, entry: Entry) -> tuple[float, float, str]:
        return key(self.result.objective, entry), entry["time_s"], entry["candidate"]

    def _bound_s(self) -> float | None:
        """Simulated time after which a candidate is given up; memory is no question of time."""
        if len(self._entries) < self._top or self.result.objective == "memory":
            return None
        times: list[float] = sorted(entry["time_s"] for entry in self._entries)
        return SLACK * times[self._top - 1]

    def _keep(self, candidate: Candidate, outcome: Outcome) -> None:
        if _fits(outcome):
            self._entries.append(self._entry(candidate, outcome))
            return
        reason = outcome.get("reason") or f"out of memory: needs {format_bytes(outcome['peak_memory_bytes'])}"
        if outcome.get("stopped"):
            reason = f"too slow: {reason}, {SLACK:g} times what the best {self._top} took"
        self.result.dropped.append({"candidate": str(candidate), "reason": reason})

    def _entry(self, candidate: Candidate, outcome: Outcome) -> Entry:
        return {
            "candidate": str(candidate),
            "options": dict(candidate.options),
            **measures(outcome, self._price),
            "exact": outcome["exact"],
            "limits": limits(outcome),
            "result": outcome,
        }

    def _front(self, ranked: Sequence[Entry]) -> list[Entry]:
        names = ["time_s", "peak_memory_bytes", *(["usd_per_million_tokens"] if self._price else [])]
        front = pareto_front([[entry[name] for name in names] for entry in ranked])
        return [{"candidate": ranked[i]["candidate"], **{name: ranked[i][name] for name in names}} for i in front]


def _fits(outcome: Outcome) -> bool:
    return bool(outcome.get("fits"))


def base_point(request: SimulationRequest) -> dict[str, Any]:
    """What all points of a request have in common, as JSON values; engine max-plus, as the contract says."""
    given = {name: getattr(request, name) for name in request.__dataclass_fields__}
    default = {name: each.default for name, each in request.__dataclass_fields__.items()}
    base = {name: value for name, value in given.items() if value != default[name]}
    for name in ("model", "hardware", "topology", "mask"):
        value = base.get(name)
        if value is not None and not isinstance(value, str):
            base[name] = str(getattr(value, "name", value))
    base.pop("timeline", None)
    return {**base, "engine": "maxplus"}


def limits(outcome: Mapping[str, Any]) -> list[Entry]:
    """The largest parts of the critical rank's time, and how unequal the ranks' work is.

    >>> limits({"breakdown": {"compute/merge/forward": 1, "compute/attention_forward/forward": 7, "idle": 2}})
    [{'part': 'compute, attention forward', 'share': 0.7}, {'part': 'idle', 'share': 0.2}]
    """
    shares: dict[str, int] = {}
    for part, part_ns in outcome["breakdown"].items():
        name = ", ".join(part.split("/")[:2]).replace("_", " ")
        shares[name] = shares.get(name, 0) + part_ns
    total = sum(shares.values()) or 1
    ranked = sorted(shares.items(), key=lambda each: -each[1])
    return [{"part": name, "share": round(part_ns / total, 4)} for name, part_ns in ranked[:2] if part_ns]
