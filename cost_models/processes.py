"""Seconds of operations where every rank is a process on a CPU host: what gloo runs are predicted with.

    t = sum_i c_i x_i,    c_i >= 0 seconds per unit, one list of c per term, for each number of processes on the host

| term | x |
|---|---|
| attention_forward, attention_backward | what the kernel computes and moves (`process_attention`) |
| elementwise:KIND, of two dtypes or by token apart | calls, bytes read and written |
| gemm:KIND | calls, FLOP |
| exchange | calls, tensors, bytes that a rank sends |
| all_to_all:N, all_gather:N, ... in groups of N | calls, bytes that a rank sends, uneven ones and receives |
| issue | operations: what Python needs between two |

The number of processes is part of the key as they share memory bandwidth and cores.

A host of processes is not quiet: the same operation takes 1.5 times as long in one case of ten. Ranks that wait for
each other wait for the slowest, so that a schedule takes longer than its operations' medians add up to. A profile has
the quantiles of measured over fitted time of each term; a simulation draws from them, to the power ``independence``:
1 where every operation has a draw of its own, 0 where a whole run is slow or none of it.
Source: fitted by `fit_processes`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from traces.atomic import write_text_atomic
from traces.bounded import read_bounded
from traces.errors import InputError

FORMAT = "attnsim process profile 1"
MAX_FILE_BYTES = 1 << 20
Features = tuple[float, ...]
PROBABILITIES = (0.005, 0.995)
LEAST_S = 5e-6
"""Below it a clock, and Python, are not exact."""

Sample = tuple[str, Features, float]
"""Term, features and seconds of one operation."""


@dataclass(frozen=True)
class ProcessProfile:
    """A host on which ranks are processes.

    Attributes
    ----------
    name : of the host and backend.
    tables : coefficients of each term, by number of processes.
    jitter : quantiles of measured over fitted time, at equal steps of probability, by number of processes and term.
    independence : exponent of the jitter, by number of processes.
    relative_error : half-width of the 90 % band around a predicted time, by number of processes.
    source : what it was fitted to.
    """

    name: str
    tables: Mapping[int, Mapping[str, Features]]
    relative_error: Mapping[int, float]
    source: str
    jitter: Mapping[int, Mapping[str, Features]] = field(default_factory=dict)
    independence: Mapping[int, float] = field(default_factory=dict)

    def slower(self, processes: int, term: str, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Factor on the time of an operation that is exceeded with probability 1 - ``probability``."""
        quantiles = self.jitter.get(processes, {}).get(term)
        if quantiles is None:
            return np.ones_like(probability)
        at = np.linspace(PROBABILITIES[0], PROBABILITIES[1], len(quantiles))
        return np.asarray(np.interp(probability, at, quantiles) ** self.independence.get(processes, 1.0))

    def seconds(self, processes: int, term: str, features: Sequence[float]) -> float:
        """Time of one operation.

        Raises
        ------
        InputError
            Where nothing was measured with so many processes, or no such operation.
        """
        if processes not in self.tables:
            known = ", ".join(map(str, sorted(self.tables)))
            raise InputError(f"{self.name} was measured with other numbers of processes", got=processes, expected=known)
        table = self.tables[processes]
        if term not in table:
            raise InputError(f"{self.name} has no term {term} for {processes} processes")
        return float(np.dot(table[term], features))


def fit_processes(samples: Iterable[Sample]) -> dict[str, Features]:
    """Coefficients of each term that the samples have: least squares of relative errors, outliers weighted down.

    Relative errors punish what is predicted too long more than what is too short, so all are scaled in the end: the
    median sample is exact.

    Parameters
    ----------
    samples : term, features, seconds; all with one number of processes.

    >>> fit_processes([("exchange", (1.0, 1e6), 2e-3), ("exchange", (1.0, 3e6), 4e-3)])
    {'exchange': (0.001, 1e-09)}
    """
    by_term: dict[str, list[tuple[Features, float]]] = {}
    for term, features, seconds in samples:
        by_term.setdefault(term, []).append((features, seconds))
    return {term: _fit(found) for term, found in sorted(by_term.items())}


def fit_jitter(samples: Iterable[Sample], table: Mapping[str, Features]) -> dict[str, Features]:
    """Quantiles of measured over fitted time of each term.

    >>> fit_jitter([("issue", (1.0,), 2e-5), ("issue", (1.0,), 4e-5)], {"issue": (2e-5,)})["issue"][-1]
    1.995
    """
    ratios: dict[str, list[float]] = {}
    for term, features, seconds in samples:
        fitted = float(np.dot(table[term], features))
        if fitted > LEAST_S:
            ratios.setdefault(term, []).append(max(seconds, LEAST_S) / fitted)
    at = np.linspace(*PROBABILITIES, 41)
    return {
        term: tuple(float(f"{value:.4g}") for value in np.quantile(found, at)) for term, found in sorted(ratios.items())
    }


def _fit(samples: list[tuple[Features, float]]) -> Features:
    x, seconds = np.array([each[0] for each in samples]), np.array([each[1] for each in samples])
    seconds = np.maximum(seconds, LEAST_S)
    scale = np.maximum(np.abs(x).max(axis=0), 1e-30)
    weight = np.ones(len(seconds))
    found = np.zeros(x.shape[1])
    for _ in range(20):
        found, _ = nnls((x / scale) * (weight / seconds)[:, None], weight)
        error = np.abs((x / scale) @ found / seconds - 1)
        spread = max(1.5 * float(np.median(error)), 1e-3)
        weight = np.sqrt(np.minimum(1.0, spread / np.maximum(error, 1e-12)))
    found *= float(np.median(seconds / np.maximum((x / scale) @ found, 1e-12)))
    return tuple(float(f"{value:.4g}") for value in found / scale)


def save_processes(profile: ProcessProfile, path: str | Path) -> None:
    """Write a profile, whole or not at all."""
    data = {
        "format": FORMAT,
        "name": profile.name,
        "source": profile.source,
        "relative_error": {str(n): error for n, error in profile.relative_error.items()},
        "independence": {str(n): value for n, value in profile.independence.items()},
        "tables": _as_lists(profile.tables),
        "jitter": _as_lists(profile.jitter),
    }
    write_text_atomic(path, json.dumps(data) + "\n")


def load_processes(path: str | Path) -> ProcessProfile:
    """Read a profile.

    Raises
    ------
    InputError
        Where the file is none.
    """
    target = Path(path)
    content = read_bounded(target, f"process profile {target}", MAX_FILE_BYTES)
    try:
        data = json.loads(content)
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}")
        errors, independence = (
            {int(n): _coefficient(value) for n, value in data[name].items()}
            for name in ("relative_error", "independence")
        )
        return ProcessProfile(
            str(data["name"]), _as_tuples(data["tables"]), errors, str(data["source"]), _as_tuples(data["jitter"]),
            independence,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{target} is no process profile", got=str(error)[:200]) from None


def _as_lists(tables: Mapping[int, Mapping[str, Features]]) -> dict[str, dict[str, list[float]]]:
    return {str(n): {term: list(values) for term, values in table.items()} for n, table in tables.items()}


def _as_tuples(tables: Mapping[str, Mapping[str, Sequence[object]]]) -> dict[int, dict[str, Features]]:
    return {
        int(n): {str(term): tuple(_coefficient(value) for value in values) for term, values in table.items()}
        for n, table in tables.items()
    }


def _coefficient(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise ValueError(f"{value!r} is no coefficient")
    return float(value)
