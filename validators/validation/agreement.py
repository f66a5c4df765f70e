"""How predictions and measurements agree: run by run, operation by operation, and over all runs.

error           predicted / measured - 1 of the isolated call's median
exposed         (predicted - measured exposed communication of the critical rank) / the measured call
memory          predicted / measured - 1 of the peak
by kind         of all operations of a kind, time on the mean rank, predicted and measured; of communication that of
                the rank that had to wait least, since waiting for a peer is the peer's time
order           of the pairs of schedules on one configuration whose measured times differ by more than 5 %, the
                share that is predicted in that order
host-limited    runs whose GPUs are predicted to wait for their host are judged apart
coverage        share of runs whose time lies in the predicted 90 % interval, and the binomial probability of so few
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from scipy.stats import binom

from simulator.schedules import PEERS, parse_schedule
from traces.metrics import busy_ns, critical_rank, exposed_communication_ns
from traces.timeline import Timeline
from validators.validation.forecast import Prediction
from validators.validation.runs import MeasuredRun
from validators.validation.step_configuration import StepConfiguration

LEVEL = 0.9
APART = 0.05
"""Measured times that differ by less are not ordered."""
LONG = 32768
"""Tokens from which on ours are compared with peers."""


@dataclass(frozen=True)
class KindAgreement:
    """All operations of one kind and phase in a run, in seconds."""

    kind: str
    phase: str
    operations: int
    predicted_s: float
    measured_s: float

    @property
    def difference_s(self) -> float:
        """Predicted minus measured."""
        return self.predicted_s - self.measured_s


@dataclass(frozen=True)
class Agreement:
    """One run, predicted against measured.

    Attributes
    ----------
    error : relative, signed.
    within : whether the measured time lies in the predicted interval.
    exposed_error : of exposed communication, as a share of the call.
    overlap_predicted, overlap_measured : share of communication that computation hides.
    memory_error : relative, signed; None where memory was not measured.
    inflation : of the instrumented call over the isolated one.
    kinds : operations by kind, what is most off first.
    host_limited : whether the host was predicted to be what limits it.
    link : link type of several GPUs of a host; empty where there is no choice.
    """

    run: MeasuredRun
    predicted_s: float
    error: float
    within: bool
    exposed_error: float | None
    overlap_predicted: float | None
    overlap_measured: float | None
    memory_error: float | None
    inflation: float | None
    kinds: tuple[KindAgreement, ...]
    host_limited: bool = False
    link: str = ""

    def to_json(self) -> dict[str, object]:
        """Without the timeline."""
        run = {"schedule": self.run.schedule, "configuration": self.run.configuration.label, "id": self.run.id}
        values = {name: value for name, value in asdict(self).items() if name not in ("run", "kinds")}
        spread = {"measured_s": self.run.time_s, "spread": self.run.spread}
        return {**run, **spread, **values, "kinds": [asdict(kind) for kind in self.kinds]}


def compare_run(run: MeasuredRun, prediction: Prediction, measured: Timeline | None) -> Agreement:
    """Agreement of one run that was measured.

    Parameters
    ----------
    measured : timeline of the instrumented call; without it only whole runs are compared.
    """
    exposed = overlaps = None
    kinds: tuple[KindAgreement, ...] = ()
    if measured is not None and prediction.timeline is not None:
        apart = _exposed_s(prediction.timeline) - _exposed_s(measured)
        exposed = apart / (measured.makespan_ns / 1e9)
        overlaps = _overlap(prediction.timeline), _overlap(measured)
        kinds = compare_kinds(prediction.timeline, measured)
    memory = run.peak_memory_bytes
    return Agreement(
        run=run,
        predicted_s=prediction.time_s,
        error=prediction.time_s / run.time_s - 1,
        within=prediction.low_s <= run.time_s <= prediction.high_s,
        exposed_error=exposed,
        overlap_predicted=overlaps[0] if overlaps else None,
        overlap_measured=overlaps[1] if overlaps else None,
        memory_error=prediction.peak_memory_bytes / memory - 1 if memory else None,
        inflation=run.instrumented_s / run.time_s - 1 if run.instrumented_s else None,
        kinds=kinds,
        host_limited=prediction.host_limited,
        link=prediction.link,
    )


def compare_kinds(predicted: Timeline, measured: Timeline) -> tuple[KindAgreement, ...]:
    """Time of each kind of operation; the operations of both must be the same."""
    assert [info.name for info in predicted.operations] == [info.name for info in measured.operations]
    seconds = [_seconds_by_operation(timeline) for timeline in (predicted, measured)]
    found: dict[tuple[str, str], list[int]] = {}
    for info in predicted.operations:
        found.setdefault((info.kind, info.phase), []).append(info.id)
    kinds = [
        KindAgreement(*key, len(ids), *(float(each[ids].sum()) for each in seconds)) for key, ids in found.items()
    ]  # fmt: skip
    return tuple(sorted(kinds, key=lambda kind: -abs(kind.difference_s)))


def _seconds_by_operation(timeline: Timeline) -> np.ndarray:
    """Duration of each operation: of communication the shortest of any rank, of others the mean over all ranks."""
    count = len(timeline.operations)
    duration = (timeline.end_ns - timeline.start_ns) / 1e9
    total = np.bincount(timeline.operation, duration, count) / timeline.n_ranks
    least = np.full(count, np.inf)
    np.minimum.at(least, timeline.operation, duration)
    communicates = np.array([info.category == "communication" for info in timeline.operations], dtype=bool)
    return np.where(communicates, np.where(np.isfinite(least), least, 0.0), total)


def _exposed_s(timeline: Timeline) -> float:
    return exposed_communication_ns(timeline, critical_rank(timeline)) / 1e9


def _overlap(timeline: Timeline) -> float | None:
    rank = critical_rank(timeline)
    busy = busy_ns(timeline, rank, "communication")
    return 1 - exposed_communication_ns(timeline, rank) / busy if busy else None


def summarise(agreements: Sequence[Agreement]) -> dict[str, object]:
    """Figures over many runs."""
    if not agreements:
        return {"runs": 0}
    inside = sum(each.within for each in agreements)
    right, pairs = order(agreements)
    optional = {
        "exposed_communication_error": [each.exposed_error for each in agreements],
        "peak_memory_error": [each.memory_error for each in agreements],
        "instrumented_inflation": [each.inflation for each in agreements],
    }
    return {
        "runs": len(agreements),
        "configurations": len({each.run.configuration.label.rsplit(" ", 1)[0] for each in agreements}),
        "error": _figures([each.error for each in agreements]),
        "measured_spread": _figures([each.run.spread for each in agreements]),
        **{name: _figures([v for v in values if v is not None]) for name, values in optional.items()},
        "ordered_pairs": pairs,
        "ordered_right": right / pairs if pairs else None,
        "in_90_percent_interval": inside / len(agreements),
        "probability_of_so_few": float(binom.cdf(inside, len(agreements), LEVEL)),
    }


def order(agreements: Sequence[Agreement]) -> tuple[int, int]:
    """Pairs of schedules that are ordered right, and how many are apart enough to be ordered."""
    right = pairs = 0
    for a, b in combinations(agreements, 2):
        first, second = a.run, b.run
        if (
            a.link != b.link
            or first.configuration != second.configuration
            or abs(first.time_s / second.time_s - 1) <= APART
        ):
            continue
        pairs += 1
        right += (first.time_s < second.time_s) == (a.predicted_s < b.predicted_s)
    return right, pairs


def is_peer(run: MeasuredRun) -> bool:
    """Whether it ran other people's code."""
    return run.schedule.split(":")[0] in PEERS


def compare_with_peers(agreements: Sequence[Agreement]) -> dict[str, object]:
    """Measured time of our fastest exact schedule over that of the fastest peer, on configurations that have both.

    Only where both use the same kernel and the sequence has at least `LONG` tokens.
    """
    fastest: dict[object, dict[bool, float]] = {}
    for each in agreements:
        c, peer = each.run.configuration, is_peer(each.run)
        if isinstance(c, StepConfiguration) or c.kernel != "flash2" or c.seq_len < LONG:
            continue
        if peer or parse_schedule(each.run.schedule).exact:
            times = fastest.setdefault((each.link, c), {})
            times[peer] = min(each.run.time_s, times.get(peer, np.inf))
    ratios = [times[False] / times[True] for times in fastest.values() if len(times) == 2]
    return {"configurations": len(ratios), "median_ratio": float(np.median(ratios)) if ratios else None}


def group(agreements: Sequence[Agreement]) -> Mapping[str, list[Agreement]]:
    """By schedule and number of ranks."""
    groups: dict[str, list[Agreement]] = {}
    for each in sorted(agreements, key=lambda each: (each.run.configuration.ranks, each.run.schedule)):
        groups.setdefault(f"{each.run.schedule.split(':')[0]} P={each.run.configuration.ranks}", []).append(each)
    return groups


def _figures(values: Sequence[float]) -> dict[str, float] | None:
    """Signed median, and median and 95th percentile of the size."""
    if not values:
        return None
    size = np.abs(values)
    return {
        "median": float(np.median(values)),
        "median_size": float(np.median(size)),
        "p95_size": float(np.quantile(size, 0.95)),
    }
