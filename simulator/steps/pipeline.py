"""The order in which pipeline stages work on microbatches: one forward, one backward, of one part each or interleaved.

Layers are cut into v S parts; stage s of S has parts s, S + s, ... (v = 1: one, all its layers). It first runs some
forwards, then a forward and a backward in turn, then the backwards that are left:

    forwards first      S-1-s                        v = 1
                        2 (S-1-s) + (v-1) S          v > 1; part 0 of S microbatches, part 1 of these, ... then the next
    held at most        one more than these, each of 1/v of a stage's layers
    bubble              (S-1) / (v m)                of the time of m microbatches without any

Tasks of all stages come in the order in which they would start, a backward taking as long as two forwards, and what
they make is sent in the order in which they would end. A message is then issued where its receiver is between two
tasks, as Megatron-LM posts them: NCCL's receive kernel holds its SMs while it waits, beside whatever computes
meanwhile, which a message issued when the sender begins does for as long as the sender computes (3 to 10 % of a step).
And neither side's messages wait for work that comes later.
Source: Narayanan et al. 2021 (arXiv 2104.04473), section 2.2 (PipeDream-flush; interleaved schedule), and Megatron-LM's
``forward_backward_pipelining_with_interleaving`` for the forwards that come first.
"""

from __future__ import annotations

FORWARD, BACKWARD = "forward", "backward"
SEND = {FORWARD: "send activations", BACKWARD: "send gradients"}
"""What happens with what a task has made."""

Task = tuple[int, str, int]
"""Part, what is done, microbatch. Part p is on stage p mod S."""

UNITS = {FORWARD: 1, BACKWARD: 2}


def one_forward_one_backward(stages: int, microbatches: int, virtual: int = 1) -> list[Task]:
    """Tasks of all stages and their messages, each after what it needs: from the part before, in backward after.

    Parameters
    ----------
    virtual : parts of each stage; above 1 the microbatches are a multiple of the stages.

    >>> tasks = one_forward_one_backward(2, 3)
    >>> [f"{kind[0]}{microbatch}@{part}" for part, kind, microbatch in tasks if kind in UNITS]
    ['f0@0', 'f1@0', 'f0@1', 'b0@1', 'b0@0', 'f1@1', 'b1@1', 'f2@0', 'b1@0', 'f2@1', 'b2@1', 'b2@0']
    >>> tasks[:4]
    [(0, 'forward', 0), (0, 'send activations', 0), (0, 'forward', 1), (1, 'forward', 0)]
    """
    ends = dict[Task, int]()
    starts = dict[Task, int]()
    queues = [_stage_tasks(stage, stages, microbatches, virtual) for stage in range(stages)]
    free = [0] * stages
    while any(queues):
        for stage, queue in enumerate(queues):
            while queue and (needs := _needs(queue[0], stages * virtual)) <= ends.keys():
                task = queue.pop(0)
                starts[task] = max([free[stage], *(ends[each] for each in needs)])
                free[stage] = ends[task] = starts[task] + UNITS[task[1]]
    begun = [(start, 1, task[0] % stages, task) for task, start in starts.items()]
    sent = [
        (end, 0, part % stages, (part, SEND[kind], index)) for (part, kind, index), end in ends.items()
        if (part < stages * virtual - 1 if kind == FORWARD else part > 0)
    ]  # fmt: skip
    return [event[-1] for event in sorted(begun + sent)]


def in_flight(stage: int, stages: int, microbatches: int, virtual: int = 1) -> int:
    """Parts, of some microbatch each, whose activations a stage holds at most.

    >>> [in_flight(stage, 4, 8) for stage in range(4)], [in_flight(stage, 4, 8, 2) for stage in range(4)]
    ([4, 3, 2, 1], [11, 9, 7, 5])
    """
    return min(_forwards_first(stage, stages, virtual) + 1, microbatches * virtual)


def _forwards_first(stage: int, stages: int, virtual: int) -> int:
    after = stages - 1 - stage
    return after if virtual == 1 else 2 * after + (virtual - 1) * stages


def _stage_tasks(stage: int, stages: int, microbatches: int, virtual: int) -> list[Task]:
    """A stage's tasks in its order."""
    slots = _slots(stages, microbatches, virtual)
    forwards = [(part * stages + stage, FORWARD, microbatch) for part, microbatch in slots]
    backwards = [((virtual - 1 - part) * stages + stage, BACKWARD, microbatch) for part, microbatch in slots]
    ahead = min(_forwards_first(stage, stages, virtual), len(slots))
    tasks = forwards[:ahead]
    for forward, backward in zip(forwards[ahead:], backwards, strict=False):
        tasks += [forward, backward]
    return tasks + backwards[len(slots) - ahead :]


def _slots(stages: int, microbatches: int, virtual: int) -> list[tuple[int, int]]:
    """Part of a stage and microbatch of its forwards, in order."""
    if virtual == 1:
        return [(0, index) for index in range(microbatches)]
    groups = range(0, microbatches, stages)
    return [(part, first + index) for first in groups for part in range(virtual) for index in range(stages)]


def _needs(task: Task, parts: int) -> set[Task]:
    """The task of a neighbouring part that gives a task its input."""
    part, kind, microbatch = task
    before = part - 1 if kind == FORWARD else part + 1
    return {(before, kind, microbatch)} if 0 <= before < parts else set()
