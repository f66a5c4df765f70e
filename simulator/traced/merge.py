"""All ranks' sequences as one that every rank's own order agrees with.

Something shared (communication) is issued when all its ranks have come to it; anything else for all ranks that have
come to it, which may be several times, if ranks disagree about their order. Two communications that ranks began in
different orders (in different process groups) would wait for each other for ever: the one that began first goes first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from simulator.traced.issues import Issue
from traces.timeline import Timeline

Item = TypeVar("Item")
ALONE = -1
"""Key of items that each rank has for itself."""


class Step(NamedTuple):
    """One operation of some ranks: its number in the timeline (-1: a synchronisation), and each rank's issue."""

    operation: int
    issues: dict[int, Issue]


def merge_issues(timeline: Timeline, per_rank: Sequence[Sequence[Issue]]) -> Iterator[Step]:
    """Merge the ranks' issues; what belongs together is the timeline's operation."""
    shared = [info.category == "communication" for info in timeline.operations]

    def key(issue: Issue) -> int:
        return int(timeline.operation[issue.row]) if issue.row >= 0 else ALONE

    def begun_ns(issue: Issue) -> int:
        return int(timeline.start_ns[issue.row]) if issue.row >= 0 else issue.end_ns

    for number, issues in Merge(per_rank, key, lambda number: shared[number], begun_ns).steps():
        yield Step(number, issues)


class Merge(Generic[Item]):
    """Merges sequences.

    Parameters
    ----------
    per_rank : each rank's items, in its order.
    key : what an item is part of: the same number on all its ranks, or :data:`ALONE`.
    shared : whether all ranks of a number must go together.
    begun : decides between those that could be next.
    """

    def __init__(
        self,
        per_rank: Sequence[Sequence[Item]],
        key: Callable[[Item], int],
        shared: Callable[[int], bool],
        begun: Callable[[Item], int],
    ) -> None:
        self._queues = [list(reversed(items)) for items in per_rank]
        self._key, self._shared, self._begun = key, shared, begun
        self._missing = Counter(key(item) for items in per_rank for item in items)

    def steps(self) -> Iterator[tuple[int, dict[int, Item]]]:
        """The merged sequence: number, and the items by rank."""
        while any(self._queues):
            heads: dict[int, list[int]] = defaultdict(list)
            for rank, queue in enumerate(self._queues):
                if queue:
                    heads[self._key(queue[-1])].append(rank)
            yield from self._next(heads)

    def _next(self, heads: dict[int, list[int]]) -> Iterator[tuple[int, dict[int, Item]]]:
        whole = [number for number, ranks in heads.items() if number >= 0 and len(ranks) == self._missing[number]]
        local = [number for number in heads if number >= 0 and not self._shared(number)]
        if ALONE in heads:
            yield from (self._take(ALONE, [rank]) for rank in heads[ALONE])
        elif whole:
            yield from (self._take(number, heads[number]) for number in whole)
        elif local:
            number = min(local, key=lambda number: self._first(heads[number]))
            yield self._take(number, heads[number])
        else:
            yield self._pull_forward(min(heads, key=lambda number: self._first(heads[number])))

    def _take(self, number: int, ranks: Sequence[int]) -> tuple[int, dict[int, Item]]:
        self._missing[number] -= len(ranks)
        return number, {rank: self._queues[rank].pop() for rank in ranks}

    def _pull_forward(self, number: int) -> tuple[int, dict[int, Item]]:
        """Something shared out of turn, on the ranks that have not come to it."""
        items = {}
        for rank, queue in enumerate(self._queues):
            at = next((i for i in range(len(queue) - 1, -1, -1) if self._key(queue[i]) == number), None)
            if at is not None:
                items[rank] = queue.pop(at)
        self._missing[number] = 0
        return number, items

    def _first(self, ranks: Sequence[int]) -> int:
        return min(self._begun(self._queues[rank][-1]) for rank in ranks)
