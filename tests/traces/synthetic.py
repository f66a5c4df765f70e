"""Synthetic timelines: a ring schedule forward and backward, and small hand-made ones."""

from __future__ import annotations

import numpy as np

from traces.timeline import OperationInfo, Timeline

LANES = ("compute", "comm:ring", "host")


def ring_timeline(n_ranks: int = 8, kernel_ns: int = 3_400_000, hop_ns: int = 2_100_000) -> Timeline:
    """A ring over causal zigzag parts: attention and merge of each step while the next part arrives.

    The first hop of every third rank is slow, and the backward passes circulate twice the bytes, so that some
    communication is exposed.
    """
    infos: list[OperationInfo] = []
    rows: list[tuple[int, int, int, int, int, int]] = []
    free = np.zeros((n_ranks, len(LANES)), dtype=np.int64)

    def run(kind: str, category: str, phase: str, step: int, durations: np.ndarray, n_bytes: int = 0) -> None:
        name = f"{kind.replace('_', ' ')} {step}"
        lane = {"compute": 0, "communication": 1, "host": 2}[category]
        infos.append(OperationInfo(len(infos), name, kind, phase, step, category))
        for rank in range(n_ranks):
            start = int(free[rank, lane])
            end = start + int(durations[rank])
            rows.append((start, end, rank, lane, infos[-1].id, n_bytes))
            free[rank, lane] = end

    ranks = np.arange(n_ranks)
    for phase, weight in (("forward", 1.0), ("backward", 2.4)):
        for step in range(n_ranks):
            run("launch", "host", phase, step, np.full(n_ranks, 14_000))
            if step < n_ranks - 1:
                slow = np.where(ranks % 3 == 1, 2.2, 1.0)
                run("exchange", "communication", phase, step, hop_ns * weight * slow, int(64 * weight) << 20)
            run(f"attention_{phase}", "compute", phase, step, kernel_ns * weight * (1 + 0.02 * (ranks % 2)))
            if step:
                run("merge", "compute", phase, step, np.full(n_ranks, 230_000))
            both = free[:, :2].max(axis=1)
            free[:, 0] = free[:, 1] = both.max() if step % 4 == 3 else both
    return from_rows(infos, rows, n_ranks, LANES)


def from_rows(
    infos: list[OperationInfo],
    rows: list[tuple[int, int, int, int, int, int]],
    n_ranks: int,
    lanes: tuple[str, ...] = LANES,
) -> Timeline:
    """A timeline from (start, end, rank, lane, operation, bytes) tuples."""
    columns = np.array(rows, dtype=np.int64).reshape(-1, 6).T
    provenance = {"engine": "synthetic", "terms": ["published"]}
    return Timeline(tuple(infos), lanes, n_ranks, *columns, provenance=provenance)
