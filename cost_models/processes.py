"""Seconds of operations where every rank is a process on a CPU host: what gloo runs are predicted with.

    t = sum_i c_i x_i,    c_i >= 0 seconds per unit, one list of c per term, for each number of processes on the host

| term | x |
|---|---|
| attention_forward:D, attention_backward:D | calls, FLOP of the scores that the kernel computes, elements of masks that it is given, bytes of K and V repeated for query groups |
| elementwise:KIND | calls, bytes read and written |
| gemm:KIND | calls, FLOP |
| exchange, all_to_all, all_gather, ... | calls, bytes that a rank sends |
| issue | operations: what Python needs between two |

PyTorch's CPU kernel computes whole rectangles of scores, except for causal attention with as many keys as queries, of
which it computes blocks of rows up to the diagonal; every other window is a mask of the rectangle. The number of
processes is part of the key as they share memory bandwidth and cores.
Source: PyTorch aten/src/ATen/native/cpu/FlashAttentionKernel.cpp; fitted by `fit_processes`.
"""  # noqa: E501

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from cost_models.kernels import AttentionShape
from cost_models.masks import KernelCall
from traces.atomic import write_text_atomic
from traces.errors import InputError

FORMAT = "attnsim process profile 1"
MAX_FILE_BYTES = 1 << 20
Features = tuple[float, ...]
Sample = tuple[str, Features, float]
"""Term, features and seconds of one operation."""


@dataclass(frozen=True)
class ProcessProfile:
    """A host on which ranks are processes.

    Attributes
    ----------
    name : of the host and backend.
    tables : coefficients of each term, by number of processes.
    relative_error : half-width of the 90 % band around a predicted time, by number of processes.
    source : what it was fitted to.
    """

    name: str
    tables: Mapping[int, Mapping[str, Features]]
    relative_error: Mapping[int, float]
    source: str

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


def attention_features(calls: Iterable[KernelCall], shape: AttentionShape, direction: str) -> Features:
    """Features of the attention kernels of one step.

    >>> from cost_models.masks import Segment
    >>> shape = AttentionShape(1, 2, 2, 64, 64, "fp32")
    >>> attention_features([KernelCall((Segment(0, 8, 0, 4),), None, None)], shape, "forward")
    (1.0, 16384.0, 0.0, 0.0)
    """
    launches = pairs = masked = repeated = 0
    for call in calls:
        for segment in call.segments:
            rows, columns = segment.q_stop - segment.q_start, segment.k_stop - segment.k_start
            launches += 1
            full = call.left is None and call.right is None
            causal = call.left is None and call.right == 0 and rows == columns
            pairs += rows * (rows + _block_rows(rows)) // 2 if causal else rows * columns
            masked += 0 if full or causal else rows * columns
            repeated += columns
    group = shape.heads // shape.kv_heads
    width = (shape.head_dim + shape.v_head_dim) * shape.problems * shape.element_bytes if group > 1 else 0
    flop = pairs * shape.problems * shape.flop_per_pair(direction)
    return float(launches), float(flop), float(masked * shape.batch), float(repeated * width)


def _block_rows(rows: int) -> int:
    """Rows of a block of PyTorch's kernel."""
    return 256 if rows >= 768 else 64 if rows >= 192 else 32


def fit_processes(samples: Iterable[Sample]) -> dict[str, Features]:
    """Coefficients of each term that the samples have: least squares of relative errors, outliers weighted down.

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


def _fit(samples: list[tuple[Features, float]]) -> Features:
    x, seconds = np.array([each[0] for each in samples]), np.array([each[1] for each in samples])
    seconds = np.maximum(seconds, 1e-7)
    scale = np.maximum(np.abs(x).max(axis=0), 1e-30)
    weight = np.ones(len(seconds))
    found = np.zeros(x.shape[1])
    for _ in range(20):
        found, _ = nnls((x / scale) * (weight / seconds)[:, None], weight)
        error = np.abs((x / scale) @ found / seconds - 1)
        spread = max(1.5 * float(np.median(error)), 1e-3)
        weight = np.sqrt(np.minimum(1.0, spread / np.maximum(error, 1e-12)))
    return tuple(float(f"{value:.4g}") for value in found / scale)


def save_processes(profile: ProcessProfile, path: str | Path) -> None:
    """Write a profile, whole or not at all."""
    data = {
        "format": FORMAT,
        "name": profile.name,
        "source": profile.source,
        "relative_error": {str(n): error for n, error in profile.relative_error.items()},
        "tables": {str(n): {term: list(values) for term, values in t.items()} for n, t in profile.tables.items()},
    }
    write_text_atomic(path, json.dumps(data, indent=1) + "\n")


def load_processes(path: str | Path) -> ProcessProfile:
    """Read a profile.

    Raises
    ------
    InputError
        Where the file is none.
    """
    target = Path(path)
    try:
        if target.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"process profile {target} is too large", expected=f"at most {MAX_FILE_BYTES} bytes")
        data = json.loads(target.read_bytes())
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}")
        tables = {
            int(n): {str(term): tuple(_coefficient(value) for value in values) for term, values in table.items()}
            for n, table in data["tables"].items()
        }
        errors = {int(n): _coefficient(value) for n, value in data["relative_error"].items()}
        return ProcessProfile(str(data["name"]), tables, errors, str(data["source"]))
    except OSError as error:
        raise InputError(f"process profile {target} cannot be read", got=error.strerror) from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{target} is no process profile", got=str(error)[:200]) from None


def _coefficient(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise ValueError(f"{value!r} is no coefficient")
    return float(value)
