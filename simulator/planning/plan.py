"""The plan: the best few candidates for an objective, the Pareto front, why, and what became of all the others.

Candidates of deep models are searched by branch and bound (`search`). All others are simulated in waves, in a fixed
order, so that the answer does not depend on where or how fast they ran; after each wave the N-th best time bounds the
next: a simulation that is past `SLACK` times that much simulated time stops. The Pareto front is one of candidates that
take at most `SLACK` times as long as the slowest of the best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cost_models.models import ModelShape
from simulator.planning.entries import Entry, entry_of, estimated_entry
from simulator.planning.objective import Price, default_price, key
from simulator.planning.pareto import pareto_front
from simulator.planning.points import Outcome, Point
from simulator.planning.reasons import summarise
from simulator.planning.runners import Runner
from simulator.planning.search import SLACK, Search, Wanted, is_deep
from simulator.planning.sensitivity import estimate_sensitivity
from simulator.planning.space import Axes, Candidate, list_candidates
from simulator.progress import Progress
from simulator.request import SimulationRequest
from traces.display import format_bytes
from traces.errors import InputError

WAVE = 64
"""Candidates of one wave."""


@dataclass
class PlanResult:
    """What a plan found.

    Attributes
    ----------
    candidates : the best, in order: options, measures, limits and the result itself; ``estimated``, without limits and
        result, where an interruption came before the whole simulation.
    pareto : the candidates on the front of time, memory and cost; ``estimated`` where an interruption left it so.
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
    wanted = Wanted(objective, top, price, asked=bool(axes and "schedule" in axes), cache_folder=cache_folder)
    planning = _Planning(request, runner, wanted, progress or _tell_nobody)
    planning.drop([each for each in candidates if each.reason])
    try:
        for entry in planning.run([each for each in candidates if not each.reason]):
            if on_result is not None:
                on_result(entry)
    except KeyboardInterrupt:
        planning.result.interrupted = True
    return planning.finish()


def _tell_nobody(what: str, done: int, total: int) -> None:
    """No progress is wanted."""


def _hardware_name(request: SimulationRequest) -> str:
    hardware = request.resolve().hardware
    return hardware if isinstance(hardware, str) else hardware.name


class _Planning:
    """Candidates that have run, and those dropped."""

    def __init__(self, request: SimulationRequest, runner: Runner, wanted: Wanted, tell: Progress) -> None:
        self._request, self._base = request, base_point(request)
        self._runner, self._wanted, self._tell = runner, wanted, tell
        self._entries: list[Entry] = []
        self._search: Search | None = None
        self.result = PlanResult(wanted.objective)

    def drop(self, candidates: Sequence[Candidate]) -> None:
        """Candidates that cannot run."""
        self.result.dropped += [{"candidate": str(each), "reason": each.reason} for each in candidates]

    def run(self, legal: Sequence[Candidate]) -> Iterator[Entry]:
        """Entries of candidates that fit, as they are done."""
        model = self._request.resolve().model
        deep = [each for each in legal if self._deep(each.options)]
        yield from self._run_waves([each for each in legal if each not in deep] if deep else legal)
        if not deep:
            return
        assert model is not None
        self._search = Search(self._request.resolve(), self._base, self._runner, self._wanted, self._tell)
        for standing in self._search.run(deep):
            assert standing.outcome is not None
            yield entry_of(standing.candidate, standing.outcome, self._wanted.price)

    def _run_waves(self, legal: Sequence[Candidate]) -> Iterator[Entry]:
        for first in range(0, len(legal), WAVE):
            wave = legal[first : first + WAVE]
            points = [{**self._base, **each.options} for each in wave]
            outcomes: dict[int, Outcome] = {}
            for index, outcome in self._runner.run(points, self._bound_s(), self._wanted.cache_folder):
                outcomes[index] = outcome
                self._tell("candidates", first + len(outcomes), len(legal))
                if outcome.get("fits"):
                    yield entry_of(wave[index], outcome, self._wanted.price)
            for index, outcome in sorted(outcomes.items()):
                self._keep(wave[index], outcome)

    def _bound_s(self) -> float | None:
        """Simulated time after which a candidate is given up; memory is no question of time."""
        if len(self._entries) < self._wanted.top or self._wanted.objective == "memory":
            return None
        times: list[float] = sorted(entry["time_s"] for entry in self._entries)
        return SLACK * times[self._wanted.top - 1]

    def _keep(self, candidate: Candidate, outcome: Outcome) -> None:
        if outcome.get("fits"):
            self._entries.append(entry_of(candidate, outcome, self._wanted.price))
            return
        reason = outcome.get("reason") or f"out of memory: needs {format_bytes(outcome['peak_memory_bytes'])}"
        if outcome.get("stopped"):
            reason = f"too slow: {reason}, {SLACK:g} times what the best {self._wanted.top} took"
        self.result.dropped.append({"candidate": str(candidate), "reason": reason})

    def finish(self) -> PlanResult:
        """Ranked, with front and sensitivity."""
        reasons = self._take_found()
        result, top = self.result, self._wanted.top
        ranked = sorted(self._entries, key=self._order)
        result.candidates = ranked[:top]
        result.pareto = self._front(ranked)
        reasons |= {each["candidate"]: f"not among the best {top}" for each in ranked[top:]}
        result.dropped += [{"candidate": name, "reason": reason} for name, reason in reasons.items()]
        if not ranked:
            raise InputError("nothing can run" + _reasons(result))
        if not result.interrupted:
            best = ranked[0]
            point: Point = {**self._base, **best["options"]}
            deep = self._deep(best["options"])
            result.sensitivity = estimate_sensitivity(self._runner, point, best["time_s"], deep)
        return result

    def _take_found(self) -> dict[str, str]:
        """Entries of what the search simulated, after an interruption also of looks; reasons against the others."""
        if self._search is None:
            return {}
        reasons = dict(self._search.reasons)
        for name, standing in self._search.standings.items():
            if standing.outcome is not None:
                self._entries.append(entry_of(standing.candidate, standing.outcome, self._wanted.price))
            elif self.result.interrupted and standing.estimate_s is not None:
                self._entries.append(estimated_entry(standing, self._wanted.price))
            elif self.result.interrupted:
                reasons[name] = "interrupted before it was looked at"
            else:
                reasons[name] = standing.why_out(self._wanted.top)
        return dict(sorted(reasons.items()))

    def _deep(self, options: Mapping[str, Any]) -> ModelShape | None:
        """The model, where its layers are many and alike."""
        model = self._request.resolve().model
        if self._request.layers != "model" or model is None or not is_deep(Candidate(options), model):
            return None
        return model

    def _order(self, entry: Entry) -> tuple[float, float, str]:
        return key(self._wanted.objective, entry), entry["time_s"], entry["candidate"]

    def _front(self, ranked: Sequence[Entry]) -> list[Entry]:
        limit_s = SLACK * max((each["time_s"] for each in ranked[: self._wanted.top]), default=0.0)
        near = [each for each in ranked if each["time_s"] <= limit_s]
        names = ["time_s", "peak_memory_bytes", *(["usd_per_million_tokens"] if self._wanted.price else [])]
        rows = [{name: each[name] for name in ("candidate", *names, "estimated") if name in each} for each in near]
        return [rows[index] for index in pareto_front([[row[name] for name in names] for row in rows])]


def _reasons(found: PlanResult) -> str:
    """Why there is no candidate."""
    summary = summarise(found.dropped)
    if found.interrupted:
        return " before the interruption" + (f"; out by then: {summary}" if summary else "")
    return f": {summary}" if summary else ""


def base_point(request: SimulationRequest) -> dict[str, Any]:
    """What all points of a request have in common; engine max-plus, as the contract says."""
    given = {name: getattr(request, name) for name in request.__dataclass_fields__}
    default = {name: each.default for name, each in request.__dataclass_fields__.items()}
    base = {name: value for name, value in given.items() if value != default[name]}
    if "mask" in base:
        base["mask"] = str(base["mask"])
    base.pop("timeline", None)
    return {**base, "engine": "maxplus"}
