"""What ``simulate`` answers: one flat record, in SI base units, that goes to JSON and back without loss.

    time_s = forward_s + backward_s   makespan of one isolated call
    low_s <= time_s <= high_s         with probability ``level``

The fields are a contract that others script against: additions are free, a change of meaning raises
:data:`SCHEMA_VERSION`. Timeline, breakdown and memory curve stay in Python: they are large and have formats of their
own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, NamedTuple, Self, get_args, get_origin, get_type_hints

from cost_models.topology import ClusterTopology
from simulator.engines.costs import Costs
from simulator.engines.holders import Holder
from simulator.program.program import Program
from simulator.roofline import Roofline
from traces.errors import InputError
from traces.launches import TraceDetails
from traces.timeline import Timeline

SCHEMA_VERSION = 1

Json = Mapping[str, Any]


class JsonRecord:
    """A frozen dataclass whose fields, but those marked so, are an object in JSON."""

    def to_json(self) -> dict[str, Any]:
        """The JSON object: plain dicts, lists, strings, finite numbers and booleans."""
        return {name: _encode(getattr(self, name)) for name in json_fields(type(self))}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        InputError
            Where a field is missing, unknown or of another type, naming it.
        """
        record: Self = _decode_record(cls, data, "")
        return record


@dataclass(frozen=True)
class Uncertainty(JsonRecord):
    """Interval that holds the true time with probability ``level``; extrapolated beyond what was calibrated or not."""

    low_s: float
    high_s: float
    level: float = 0.9
    extrapolated: bool = False


@dataclass(frozen=True)
class SlowedTransfer(JsonRecord):
    """Transfers of one name (ring and ranks, or collective and group), and how long a link held them back."""

    transfer: str
    slowed_s: float


@dataclass(frozen=True)
class SaturatedLink(JsonRecord):
    """A link that was full while transfers could have used more: for how long, and which it slowed."""

    link: str
    saturated_s: float
    slowed: tuple[SlowedTransfer, ...]


@dataclass(frozen=True)
class StepTimes(JsonRecord):
    """Distribution of ``time_s`` over random draws in which every duration varies by ``jitter`` (relative)."""

    draws: int
    seed: int
    jitter: float
    mean_s: float
    min_s: float
    p5_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float


def _python_only() -> Any:
    return field(default=None, repr=False, compare=False, metadata={"json": False})


class SimulatedRun(NamedTuple):
    """A Program, what its operations cost, and what the hosts did."""

    program: Program
    costs: Costs
    details: TraceDetails


@dataclass(frozen=True, kw_only=True)
class SimulationResult(JsonRecord):
    """Predicted time, memory and traffic of one schedule.

    Attributes
    ----------
    schedule : canonical ``NAME:key=value,...``.
    inputs : options that reproduce the run.
    engine : ``maxplus`` or ``des``, as it ran.
    provenance : which terms are calibrated, published or datasheet.
    warnings : what was assumed, neglected or looks wrong.
    time_s, forward_s, backward_s, other_s : makespan, and its parts on the critical rank, the last to finish; other is
        what a step does besides: optimizer, and synchronisation of gradients that is not hidden.
    compute_s, communication_s : time in which the critical rank computes, communicates.
    exposed_communication_s : communication while that rank computes nothing.
    peak_memory_bytes : largest over ranks.
    reserved_memory_bytes : what the allocator takes for the peak: that times ``allocator_slack`` of the inputs.
    host_memory_bytes : largest over ranks of what they keep in memory of the host (offload).
    fits : whether what the allocator takes is within the device's memory.
    exact : whether the schedule computes dense attention under the mask.
    bytes_sent_per_rank : bytes put on the wire to other ranks, all passes.
    pairs_total : attended pairs over ranks and steps, per head and batch row, forward.
    flop_total : operations of all passes.
    rank_imbalance, step_imbalance : most over mean of the ranks' pairs, in total and step by step
        (:mod:`simulator.engines.balance`).
    uncertainty : interval of ``time_s``.
    step_times : how ``time_s`` spreads over draws, where jitter is asked for.
    saturated_links : links that were full while transfers could have used more, the longest first (engine ``des``).
    timeline : every operation of every rank, where it was asked for.
    breakdown : disjoint parts of the makespan on the critical rank (ns), as :func:`traces.metrics.breakdown` has them.
    topology, link_shares : where it ran, and the share of the time for which each of its links was in full use.
    memory_curve : operations in issue order with the bytes then in use, on the rank with the peak.
    memory_holders : what that rank holds at its peak, the largest first.
    roofline : kernels of the critical rank under the GPU's ceilings.
    run : what traces are written from, where the timeline was asked for.
    """

    schedule: str
    inputs: Json
    engine: str
    provenance: Json
    warnings: tuple[str, ...]
    time_s: float
    forward_s: float
    backward_s: float
    compute_s: float
    communication_s: float
    exposed_communication_s: float
    peak_memory_bytes: int
    fits: bool
    exact: bool
    bytes_sent_per_rank: tuple[int, ...]
    pairs_total: int
    flop_total: int
    uncertainty: Uncertainty
    other_s: float = 0.0
    reserved_memory_bytes: int = 0
    host_memory_bytes: int = 0
    rank_imbalance: float = 1.0
    step_imbalance: float = 1.0
    saturated_links: tuple[SaturatedLink, ...] = ()
    step_times: StepTimes | None = None
    schema_version: int = SCHEMA_VERSION
    timeline: Timeline | None = _python_only()
    breakdown: Mapping[str, int] | None = _python_only()
    memory_curve: tuple[tuple[str, int], ...] | None = _python_only()
    memory_holders: tuple[Holder, ...] | None = _python_only()
    roofline: Roofline | None = _python_only()
    run: SimulatedRun | None = _python_only()
    topology: ClusterTopology | None = _python_only()
    link_shares: tuple[float, ...] | None = _python_only()

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise InputError(
                "result is of another schema_version", got=self.schema_version, expected=str(SCHEMA_VERSION)
            )

    def _repr_html_(self) -> str:
        from simulator.notebook import result_html

        return result_html(self)


@dataclass(frozen=True)
class Refused(JsonRecord):
    """A schedule that cannot answer the request, and why."""

    schedule: str
    reason: str


class Comparison(list["SimulationResult | Refused"]):
    """What ``compare`` found, in its order; a notebook shows it as tables."""

    def _repr_html_(self) -> str:
        from simulator.notebook import comparison_html

        return comparison_html(self)


_FIELDS: dict[type[Any], dict[str, Any]] = {}


def json_fields(record: type[Any]) -> dict[str, Any]:
    """Names and types of the fields that are in JSON."""
    if record not in _FIELDS:
        hints = get_type_hints(record)
        _FIELDS[record] = {each.name: hints[each.name] for each in fields(record) if each.metadata.get("json", True)}
    return _FIELDS[record]


def _encode(value: object) -> object:
    if isinstance(value, JsonRecord):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(key): _encode(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a number that JSON holds")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} is not a JSON value")


def _decode_record(record: type[Any], data: object, path: str) -> Any:
    hints = json_fields(record)
    values = _expect(data, dict, path or "result")
    missing, unknown = ([*hints.keys() - values.keys()], [*values.keys() - hints.keys()])
    if missing or unknown:
        problem = "lacks a field" if missing else "has an unknown field"
        raise InputError(f"{path or 'result'} {problem}", got=min(map(str, unknown)) if unknown else None,
                         expected=min(missing, default=None))  # fmt: skip
    return record(**{name: _decode(values[name], hint, f"{path}.{name}".lstrip(".")) for name, hint in hints.items()})


def _decode(value: object, hint: Any, path: str) -> Any:
    if isinstance(hint, type) and issubclass(hint, JsonRecord):
        return _decode_record(hint, value, path)
    if get_origin(hint) is tuple:
        items = _expect(value, list, path)
        return tuple(_decode(item, get_args(hint)[0], f"{path}[{i}]") for i, item in enumerate(items))
    if get_origin(hint) is UnionType:
        return None if value is None else _decode(value, get_args(hint)[0], path)
    if get_origin(hint) is not None:
        return _expect(value, dict, path)
    if hint is float and type(value) is int:
        return float(value)
    if hint is float and not math.isfinite(_expect(value, float, path)):
        raise InputError(f"{path} is not finite", got=value)
    return _expect(value, hint, path)


def _expect(value: object, kind: type[Any], path: str) -> Any:
    if type(value) is not kind:
        raise InputError(f"{path} has the wrong type", got=repr(value)[:60], expected=kind.__name__)
    return value
