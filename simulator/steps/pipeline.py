"""The order in which pipeline stages work on microbatches: one forward, one backward.

Stage s of S first runs S-1-s forwards, then a forward and a backward in turn, then the backwards that are left, so that
it holds at most S-s microbatches. The bubble is (S-1) / (m + S-1) of the time for m microbatches of equal cost.

Tasks of all stages come in the order in which they would start, a backward taking as long as two forwards: what a stage
sends is then issued between what its neighbour issues about that time, so that neither waits for work of the other that
comes later. Source: Narayanan et al. 2021 (arXiv 2104.04473), section 2.2 (PipeDream-flush).
"""

from __future__ import annotations

FORWARD, BACKWARD = "forward", "backward"
Task = tuple[int, str, int]
"""Stage, forward or backward, microbatch."""

UNITS = {FORWARD: 1, BACKWARD: 2}


def one_forward_one_backward(stages: int, microbatches: int) -> list[Task]:
    """Tasks of all stages, each after what it needs: a forward on the stage before, a backward on the one after.

    >>> [f"{kind[0]}{microbatch}@{stage}" for stage, kind, microbatch in one_forward_one_backward(2, 3)]
    ['f0@0', 'f1@0', 'f0@1', 'b0@1', 'b0@0', 'f1@1', 'b1@1', 'f2@0', 'b1@0', 'f2@1', 'b2@1', 'b2@0']
    """
    ends: dict[Task, int] = {}
    starts: dict[Task, int] = {}
    queues = [_stage_tasks(stage, stages, microbatches) for stage in range(stages)]
    free = [0] * stages
    while any(queues):
        for stage, queue in enumerate(queues):
            while queue and (needs := _needs(stage, *queue[0], stages)) <= ends.keys():
                task = (stage, *queue.pop(0))
                starts[task] = max([free[stage], *(ends[each] for each in needs)])
                free[stage] = ends[task] = starts[task] + UNITS[task[1]]
    return sorted(starts, key=lambda task: (starts[task], task[0]))


def _stage_tasks(stage: int, stages: int, microbatches: int) -> list[tuple[str, int]]:
    ahead = min(stages - 1 - stage, microbatches)
    tasks = [(FORWARD, index) for index in range(ahead)]
    for index in range(microbatches - ahead):
        tasks += [(FORWARD, ahead + index), (BACKWARD, index)]
    return tasks + [(BACKWARD, index) for index in range(microbatches - ahead, microbatches)]


def _needs(stage: int, kind: str, microbatch: int, stages: int) -> set[Task]:
    """The task on a neighbouring stage that gives a task its input."""
    before = stage - 1 if kind == FORWARD else stage + 1
    return {(before, kind, microbatch)} if 0 <= before < stages else set()
