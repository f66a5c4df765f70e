"""Processors shared out among the ranks of a host: no two ranks have one, and the process is bound to its own."""

from __future__ import annotations

import os

import pytest

from validators.executors import cores


@pytest.mark.parametrize(("processors", "ranks"), [(16, 4), (16, 8), (12, 8), (13, 3)])
def test_no_two_ranks_share_a_processor(processors: int, ranks: int) -> None:
    shares = [cores.share_of(range(processors), rank, ranks) for rank in range(ranks)]
    assert all(len(share) == processors // ranks for share in shares)
    assert len({each for share in shares for each in share}) == ranks * (processors // ranks)


def test_threads_of_a_core_are_neighbours(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {0: 0, 1: 1, 2: 0, 3: 1}  # processors 0 and 2 are one core

    monkeypatch.setattr(cores, "_place", lambda processor: (0, places[processor], processor))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    bound: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, own: bound.append(own))
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        cores.take_cores()
    assert bound == [(0, 2), (1, 3)]
