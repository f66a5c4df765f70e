"""The order in which pipeline stages work on microbatches: one forward, one backward.

Stage s of S first runs S-1-s forwards, then a forward and a backward in turn, then the backwards that are left, so that
it holds at most S-s microbatches. The bubble is (S-1) / (m + S-1) of the time for m microbatches of equal cost.
Source: Narayanan et al. 2021 (arXiv 2104.04473), section 2.2 (PipeDream-flush).
"""

from __future__ import annotations

from collections.abc import Iterator

FORWARD, BACKWARD = "forward", "backward"
Task = tuple[int, str, int]
"""Stage, forward or backward, microbatch."""


def one_forward_one_backward(stages: int, microbatches: int) -> Iterator[Task]:
    """Tasks of all stages, each after what it needs: a forward on the stage before, a backward on the one after.

    >>> [f"{kind[0]}{microbatch}@{stage}" for stage, kind, microbatch in one_forward_one_backward(2, 2)]
    ['f0@0', 'f1@0', 'f0@1', 'b0@1', 'f1@1', 'b1@1', 'b0@0', 'b1@0']
    """
    queues = [_stage_tasks(stage, stages, microbatches) for stage in range(stages)]
    done: set[Task] = set()
    while any(queues):
        for stage, queue in enumerate(queues):
            while queue and _ready(stage, *queue[0], stages, done):
                kind, microbatch = queue.pop(0)
                done.add((stage, kind, microbatch))
                yield stage, kind, microbatch


def _stage_tasks(stage: int, stages: int, microbatches: int) -> list[tuple[str, int]]:
    ahead = min(stages - 1 - stage, microbatches)
    tasks = [(FORWARD, index) for index in range(ahead)]
    for index in range(microbatches - ahead):
        tasks += [(FORWARD, ahead + index), (BACKWARD, index)]
    return tasks + [(BACKWARD, index) for index in range(microbatches - ahead, microbatches)]


def _ready(stage: int, kind: str, microbatch: int, stages: int, done: set[Task]) -> bool:
    if kind == FORWARD:
        return stage == 0 or (stage - 1, FORWARD, microbatch) in done
    return stage == stages - 1 or (stage + 1, BACKWARD, microbatch) in done
