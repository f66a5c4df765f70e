"""The critical path: whole, without holes, and on small examples what one finds by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from tests.traces.strategies import timelines
from tests.traces.synthetic import from_rows, ring_timeline
from traces.critical_path import Piece, critical_path
from traces.launches import Launches
from traces.timeline import OperationInfo

COMPUTE = OperationInfo(0, "attention", "attention_forward", "forward", 0, "compute")
SEND = OperationInfo(1, "send", "exchange", "forward", 0, "communication")
MERGE = OperationInfo(2, "merge", "merge", "forward", 0, "compute")


@settings(max_examples=100)
@given(timelines())
def test_pieces_follow_each_other_from_zero_to_the_end(timeline):
    pieces = critical_path(timeline).pieces
    device = np.array([info.category != "host" for info in timeline.operations], dtype=bool)
    rows = device[timeline.operation] & (timeline.end_ns > timeline.start_ns)
    ends = [0, *(piece.end_ns for piece in pieces)]
    assert [piece.start_ns for piece in pieces] == ends[:-1]
    assert ends[-1] == timeline.end_ns[rows].max(initial=0)
    assert all(piece.end_ns > piece.start_ns for piece in pieces)


def test_it_crosses_to_the_rank_that_communication_waited_for():
    """Rank 1 computes until 90; the exchange, which rank 0 began at 20, moves data from then on."""
    rows = [
        (0, 20, 0, 0, 0, 0),
        (0, 90, 1, 0, 0, 0),
        (20, 120, 0, 1, 1, 8),
        (90, 121, 1, 1, 1, 8),
        (120, 150, 0, 0, 2, 0),
    ]
    path = critical_path(from_rows([COMPUTE, SEND, MERGE], rows, 2))
    assert path.pieces == (
        Piece(1, 0, "compute/attention_forward", 0, 90),
        Piece(0, 1, "communication/exchange", 90, 120),
        Piece(0, 2, "compute/merge", 120, 150),
    )
    assert path.by_rank() == {1: 90, 0: 60}


def test_a_late_call_is_the_hosts():
    rows = [(5_000, 20_000, 0, 0, 0, 0), (60_000, 70_000, 0, 0, 2, 0)]
    timeline = from_rows([COMPUTE, SEND, MERGE], rows, 1)
    launches = Launches(np.array([1_000, 40_000]), np.array([5_000, 47_000]))
    path = critical_path(timeline, launches)
    assert path.by_name() == {
        "idle/host": 5_000 + 27_000,
        "compute/attention_forward": 15_000,
        "compute/merge": 10_000,
        "idle/launch": 10_000,
        "idle/dependency": 3_000,
    }


def test_a_ring_is_as_long_as_its_slowest_hops():
    path = critical_path(ring_timeline(4))
    timeline = ring_timeline(4)
    assert sum(path.by_name().values()) == timeline.makespan_ns
    assert path.by_name()["communication/exchange"] > 0
    assert 1 in path.by_rank(), "the rank whose first hop is slow"
