"""The plan: the best few candidates for an objective, the Pareto front, why, and what became of all the others.

Of deep models a first look (`screening`) says in which order candidates are simulated whole, and when the rest cannot
be among the best; on the Pareto front they stand with their estimates.

Candidates run in waves, in a fixed order, so that the answer does not depend on where or how fast they ran. After each
wave the N-th best time bounds the next: a simulation that is past twice that much simulated time stops (`bounds` of
branch and bound: a makespan is never less than what has been simulated of it). The Pareto front is therefore one of
candidates within twice the N-th best time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cost_models.models import ModelShape
from simulator.planning.objective import Price, default_price, key, measures
from simulator.planning.pareto import pareto_front
from simulator.planning.points import Outcome, Point
from simulator.planning.reasons import summarise
from simulator.planning.runners import Runner
from simulator.planning.screening import SLACK, WAVE, Screening, is_deep
from simulator.planning.sensitivity import estimate_sensitivity
from simulator.planning.space import Axes, Candidate, list_candidates
from simulator.progress import Progress
from simulator.request import SimulationRequest
from simulator.schedules import parse_schedule
from traces.display import format_bytes
from traces.errors import InputError

Entry = dict[str, Any]


@dataclass
class PlanResult:
    """What a plan found.

    Attributes
    ----------
    candidates : the best, in order: options, measures, limits and the result itself; ``estimated``, without limits and
        result, where an interruption came before the whole simulation.
    pareto : the candidates on the front of time, memory and cost; ``estimated`` where they were only looked at.
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
    search = _Search(request, runner, objective, top, price, cache_folder, asked=bool(axes and "schedule" in axes))
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
                 cache_folder: str | None, *, asked: bool) -> None:  # fmt: skip
        self._asked = asked
        self._request, self._base = request, base_point(request)
        self._runner, self._top, self._price = runner, top, price
        self._cache = cache_folder
        self._entries: list[Entry] = []
        self._screening: Screening | None = None
        self.result = PlanResult(objective)

    def run(self, legal: Sequence[Candidate]) -> Iterator[tuple[int, Entry | None]]:
        """(candidates done, entry if it fits), in waves; after a first look, as long as they can be among the best."""
        size = WAVE if self._screening is None else max(self._top, 2)
        for first in range(0, len(legal), size):
            wave = [each for each in legal[first : first + size] if not self._is_beaten(each)]
            if not wave:
                break
            points = [{**self._base, **each.options} for each in wave]
            bound_s = self._bound_s() if self._screening is None else None  # a look has been within it
            outcomes: dict[int, Outcome] = {}
            for index, outcome in self._runner.run(points, bound_s, self._cache):
                outcomes[index] = outcome
                yield first + len(outcomes), self._entry(wave[index], outcome) if _fits(outcome) else None
            for index, outcome in sorted(outcomes.items()):
                self._keep(wave[index], outcome)

    def screen(self, legal: list[Candidate], progress: Progress | None) -> list[Candidate]:
        """Candidates that are worth a whole simulation, in order: of deep models by a first look."""
        model = self._request.resolve().model
        deep = self._request.layers == "model" and model is not None and any(is_deep(each, model) for each in legal)
        if not deep or len(legal) <= self._top:
            return legal

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress("first look", done, total)

        self._screening = Screening(
            self._request.resolve(), self._base, self._runner, self.result.objective, self._top, self._price, tell,
            asked=self._asked,
        )  # fmt: skip
        return self._screening.run(legal)

    def _is_beaten(self, candidate: Candidate) -> bool:
        if self._screening is None or len(self._entries) < self._top:
            return False
        to_beat = sorted(key(self.result.objective, each) for each in self._entries)[self._top - 1]
        return self._screening.is_beaten(candidate, to_beat)

    def drop(self, candidates: Sequence[Candidate]) -> None:
        """Candidates that cannot run."""
        self.result.dropped += [{"candidate": str(each), "reason": each.reason} for each in candidates]

    def finish(self) -> PlanResult:
        """Ranked, with front and sensitivity."""
        self._take_estimates()
        self._drop_screened()
        if not self._entries:
            raise InputError("nothing can run" + _reasons(self.result))
        ranked = sorted(self._entries, key=self._order)
        self.result.candidates = ranked[: self._top]
        self.result.pareto = self._front(ranked)
        reason = f"not among the best {self._top}"
        self.result.dropped += [{"candidate": each["candidate"], "reason": reason} for each in ranked[self._top :]]
        if not self.result.interrupted:
            best = self.result.candidates[0]
            point: Point = {**self._base, **best["options"]}
            self.result.sensitivity = estimate_sensitivity(self._runner, point, best["time_s"], self._deep(best))
        return self.result

    def _take_estimates(self) -> None:
        """After an interruption, those that were looked at stand for themselves with their estimates."""
        if self._screening is None or not self.result.interrupted:
            return
        done = {entry["candidate"] for entry in (*self._entries, *self.result.dropped)}
        for name, estimate in self._screening.estimates.items():
            if name not in done:
                options = dict(self._screening.looked[name].options)
                exact = parse_schedule(str(options["schedule"])).exact
                entry = {"candidate": name, "options": options, **estimate, "exact": exact, "limits": []}
                self._entries.append({**entry, "result": None, "estimated": True})

    def _drop_screened(self) -> None:
        """Those that a first look put out, and those that it showed to be beaten."""
        if self._screening is None:
            return
        done = {entry["candidate"] for entry in (*self._entries, *self.result.dropped)}
        reasons = dict(self._screening.reasons)
        for name in self._screening.estimates.keys() - done:
            reasons[name] = f"not among the best {self._top}, estimated from one and two layers per stage"
        self.result.dropped += [{"candidate": name, "reason": reasons[name]} for name in sorted(reasons)]

    def _deep(self, entry: Entry) -> ModelShape | None:
        """The model, where its layers are many and alike."""
        model = self._request.resolve().model
        if self._request.layers != "model" or model is None or not is_deep(Candidate(entry["options"]), model):
            return None
        return model

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
        """Of all that ran and all that were looked at."""
        names = ["time_s", "peak_memory_bytes", *(["usd_per_million_tokens"] if self._price else [])]
        kept = ["candidate", *names, "estimated"]
        rows = [{name: each[name] for name in kept if name in each} for each in ranked]
        done = {each["candidate"] for each in ranked}
        for candidate, estimate in (self._screening.estimates if self._screening else {}).items():
            if candidate not in done:
                rows.append({"candidate": candidate, **{name: estimate[name] for name in names}, "estimated": True})
        return [rows[index] for index in pareto_front([[row[name] for name in names] for row in rows])]


def _reasons(found: PlanResult) -> str:
    """Why there is no candidate."""
    summary = summarise(found.dropped)
    if found.interrupted:
        return " before the interruption" + (f"; out by then: {summary}" if summary else "")
    return f": {summary}" if summary else ""


def _fits(outcome: Outcome) -> bool:
    return bool(outcome.get("fits"))


def base_point(request: SimulationRequest) -> dict[str, Any]:
    """What all points of a request have in common; engine max-plus, as the contract says."""
    given = {name: getattr(request, name) for name in request.__dataclass_fields__}
    default = {name: each.default for name, each in request.__dataclass_fields__.items()}
    base = {name: value for name, value in given.items() if value != default[name]}
    if "mask" in base:
        base["mask"] = str(base["mask"])
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
