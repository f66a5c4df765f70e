"""What one rank issues of a Program, worked out once: a list of calls without arguments, in order.

Which operations the rank takes part in, what each waits for, where its tensors are and which memory goes back after it
are the same in every call of a Program. The host does that work before the first call, so that issuing an operation is
little more than the calls of PyTorch that launch its kernels. Buffers that go back together are forgotten in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from simulator.program.operations import PROPAGATION, Buffer, Operation
from simulator.program.program import Program
from validators.executors.communication import Communication, Group
from validators.executors.kinds import bind
from validators.executors.lanes import Lanes
from validators.executors.local import LocalOperations
from validators.executors.moving import copy_all
from validators.executors.waits import Wait, Waits

Issue = Callable[[], None]


class Issues:
    """The calls of one rank.

    Parameters
    ----------
    program : what the rank has a part in.
    local : its tensors and kernels.
    lanes : where operations run.
    communication : between it and the others; communicators are made here, by all ranks in the same order.

    Attributes
    ----------
    calls : one per operation of the rank, and per run of releases.
    operations : the number of the operation that each call issues, None for releases.
    """

    def __init__(
        self, program: Program, local: LocalOperations, lanes: Lanes, communication: Communication
    ) -> None:  # fmt: skip
        self._local, self._lanes, self._communication, self._waits = local, lanes, communication, Waits()
        self._groups = {each.id: communication.prepare(each) for each in program.operations if each.communicates}
        self.calls: list[Issue] = []
        self.operations: list[int | None] = []
        self._freed: list[int] = []
        for verb, subject in program.events:
            if isinstance(subject, Operation):
                if takes_part(subject, local.store.rank):
                    self._forget()
                    self._add(self._operation(subject), subject.id)
            elif verb == "release":
                self._release(subject)
        self._forget()

    def _add(self, call: Issue, operation: int | None) -> None:
        self.calls.append(call)
        self.operations.append(operation)

    def _forget(self) -> None:
        """One call for the buffers that nobody has to wait for."""
        if self._freed:
            self._add(partial(self._local.store.forget, tuple(self._freed)), None)
            self._freed = []

    def _release(self, buffer: Buffer) -> None:
        waits = self._waits.release(buffer)
        if waits and not buffer.on_host:
            self._add(partial(self._keep, buffer, waits), None)
        else:
            self._freed.append(buffer.id)

    def _operation(self, operation: Operation) -> Issue:
        waits = tuple(self._waits.issue(operation))
        if operation.category == "copy":
            return partial(self._copy, operation, waits)
        if not operation.communicates:
            return partial(self._lanes.compute, operation.id, waits, bind(self._local, operation))
        group = self._groups[operation.id]
        assert group is not None
        return partial(self._communicate, operation, group, waits)

    # -- what is called ----------------------------------------------------------------------------------------------

    def _keep(self, buffer: Buffer, waits: Sequence[Wait]) -> None:
        """Give memory back; lanes that may still use it are told to the allocator."""
        held = self._local.store.release(buffer)
        if held is not None:
            self._lanes.keep([held] if isinstance(held, Tensor) else [piece.tensor for piece in held], waits)

    def _copy(self, operation: Operation, waits: Sequence[Wait]) -> None:
        pairs = list(zip(self._local.reads(operation), self._local.writes(operation), strict=True))
        self._lanes.communicate(operation.id, operation.lane, waits, partial(copy_all, pairs))

    def _communicate(self, operation: Operation, group: Group, waits: Sequence[Wait]) -> None:
        """Its tensors are found, and made contiguous, before the lane takes it."""
        reads = [each if each.is_contiguous() else each.contiguous() for each in self._local.reads(operation)]
        call = partial(self._communication.perform, operation, group, reads, self._local.writes(operation))
        self._lanes.communicate(operation.id, operation.lane, waits, call)


def takes_part(operation: Operation, rank: int) -> bool:
    """Whether a rank has anything to issue."""
    return operation.kind != PROPAGATION and (operation.ranks is None or bool(operation.ranks[rank]))
