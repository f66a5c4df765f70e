"""Random timelines: few ranks and lanes, short times, so that a slow reference can count every nanosecond."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.traces.synthetic import from_rows
from traces.timeline import CATEGORIES, OperationInfo, Timeline

KINDS = {"compute": ("attention_forward", "merge"), "communication": ("exchange", "all_to_all"),
         "copy": ("pack",), "host": ("launch",)}  # fmt: skip

LONGEST_NS = 12


@st.composite
def operation_infos(draw: st.DrawFn, number: int) -> OperationInfo:
    category = draw(st.sampled_from(CATEGORIES))
    kind, phase = draw(st.sampled_from(KINDS[category])), draw(st.sampled_from(["forward", "backward"]))
    return OperationInfo(number, f"{kind} {number}", kind, phase, draw(st.integers(0, 3)), category)


@st.composite
def timelines(draw: st.DrawFn, max_operations: int = 10) -> Timeline:
    """Each operation runs on some ranks, in a lane of its own choice, a gap after the row before it in that lane."""
    n_ranks, n_lanes = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    infos = [draw(operation_infos(i)) for i in range(draw(st.integers(0, max_operations)))]
    free: dict[tuple[int, int], int] = {}
    rows = []
    for info in infos:
        lane = draw(st.integers(0, n_lanes - 1))
        for rank in draw(st.sets(st.integers(0, n_ranks - 1))):
            start = free.get((rank, lane), 0) + draw(st.integers(0, LONGEST_NS))
            end = start + draw(st.integers(0, LONGEST_NS))
            free[rank, lane] = end
            rows.append((start, end, rank, lane, info.id, draw(st.integers(0, 2**40))))
    shuffled = draw(st.permutations(rows))
    return from_rows(infos, shuffled, n_ranks, tuple(f"lane {i}" for i in range(n_lanes)))
