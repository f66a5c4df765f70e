"""All ranks' issues as one sequence that every rank's own order agrees with.

A communication is issued when all its ranks have come to it; other operations are issued for all ranks that have come
to them, which may be several times, if ranks disagree about their order. Two communications that ranks began in
different orders (in different process groups) would wait for each other for ever: the one that began first goes first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from simulator.traced.issues import Issue
from traces.timeline import Timeline


class Step(NamedTuple):
    """One operation of some ranks: its number in the timeline (-1: a synchronisation), and each rank's issue."""

    operation: int
    issues: dict[int, Issue]


def merge_issues(timeline: Timeline, per_rank: Sequence[Sequence[Issue]]) -> Iterator[Step]:
    """Merge the ranks' sequences."""
    return _Merge(timeline, per_rank).steps()


class _Merge:
    def __init__(self, timeline: Timeline, per_rank: Sequence[Sequence[Issue]]) -> None:
        self._timeline = timeline
        self._queues = [list(reversed(issues)) for issues in per_rank]
        self._shared = [info.category == "communication" for info in timeline.operations]
        self._missing: dict[int, int] = defaultdict(int)
        for issues in per_rank:
            for issue in issues:
                self._missing[self._operation(issue)] += 1

    def steps(self) -> Iterator[Step]:
        """The sequence."""
        while any(self._queues):
            heads: dict[int, list[int]] = defaultdict(list)
            for rank, queue in enumerate(self._queues):
                if queue:
                    heads[self._operation(queue[-1])].append(rank)
            yield from self._issue(heads)

    def _issue(self, heads: dict[int, list[int]]) -> Iterator[Step]:
        whole = [number for number, ranks in heads.items() if number >= 0 and len(ranks) == self._missing[number]]
        local = [number for number in heads if number >= 0 and not self._shared[number]]
        if -1 in heads:
            yield from (self._take(-1, [rank]) for rank in heads[-1])
        elif whole:
            yield from (self._take(number, heads[number]) for number in whole)
        elif local:
            number = min(local, key=lambda number: self._start_ns(number, heads[number]))
            yield self._take(number, heads[number])
        else:
            yield self._pull_forward(min(heads, key=lambda number: self._start_ns(number, heads[number])))

    def _take(self, number: int, ranks: Sequence[int]) -> Step:
        self._missing[number] -= len(ranks)
        return Step(number, {rank: self._queues[rank].pop() for rank in ranks})

    def _pull_forward(self, number: int) -> Step:
        """A communication out of turn, on the ranks that have not come to it."""
        issues = {}
        for rank, queue in enumerate(self._queues):
            at = next((i for i in range(len(queue) - 1, -1, -1) if self._operation(queue[i]) == number), None)
            if at is not None:
                issues[rank] = queue.pop(at)
        self._missing[number] = 0
        return Step(number, issues)

    def _start_ns(self, number: int, ranks: Sequence[int]) -> int:
        return min(int(self._timeline.start_ns[self._queues[rank][-1].row]) for rank in ranks)

    def _operation(self, issue: Issue) -> int:
        return int(self._timeline.operation[issue.row]) if issue.row >= 0 else -1
