"""Lanes of one rank: the compute lane, and one for every communicator, each of which runs its operations in order.

On a CPU the compute lane is the process itself, and a communication lane a thread that takes operations from a queue:
communication goes on while the process computes. On a GPU lanes are CUDA streams (`cuda_lanes`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Protocol

from simulator.program.operations import COMPUTE
from validators.executors.waits import Wait

Call = Callable[[], None]


class Lanes(Protocol):
    """Where the operations of a rank run.

    Attributes
    ----------
    recorded : whether to keep the spans of operations; on a GPU that takes two events each.
    spans_ns : (start, end) of every operation since `begin`, by its number, where they are recorded.
    """

    recorded: bool
    spans_ns: dict[int, tuple[int, int]]

    def begin(self, start_ns: int) -> None:
        """Time 0 is ``start_ns`` of the monotonic clock; the device is idle."""

    def compute(self, number: int, waits: Sequence[Wait], call: Call) -> None:
        """Run an operation on the compute lane."""

    def communicate(self, number: int, lane: str, waits: Sequence[Wait], call: Call) -> None:
        """Run an operation on a communication lane."""

    def keep(self, tensors: Sequence[object], waits: Sequence[Wait]) -> None:
        """Tensors that nobody else keeps are used on lanes until these operations end."""

    def end(self) -> int:
        """Wait for everything; nanoseconds since time 0 at which the last operation ended."""

    def close(self) -> None:
        """Give threads and streams back."""


class ThreadLanes:
    """The process, and a thread for every communication lane."""

    def __init__(self) -> None:
        self.spans_ns: dict[int, tuple[int, int]] = {}
        self.recorded = False
        self._queues: dict[str, SimpleQueue[Call | None]] = {}
        self._threads: list[threading.Thread] = []
        self._done: dict[int, threading.Event] = {}
        self._failures: list[BaseException] = []
        self._start_ns = 0

    def begin(self, start_ns: int) -> None:
        """Forget the last call."""
        self._start_ns = start_ns
        self._done.clear()
        self.spans_ns.clear()

    def compute(self, number: int, waits: Sequence[Wait], call: Call) -> None:
        """Run it here and now."""
        self._wait(waits)
        self._run(number, call)

    def communicate(self, number: int, lane: str, waits: Sequence[Wait], call: Call) -> None:
        """Hand it to the lane's thread. What was computed before is done, as the process computes itself."""
        done = self._done[number] = threading.Event()

        def run() -> None:
            try:
                self._wait(waits)
                self._run(number, call)
            except BaseException as failure:
                self._failures.append(failure)
            finally:
                done.set()

        if lane not in self._queues:
            self._open(lane)
        self._queues[lane].put(run)

    def keep(self, tensors: Sequence[object], waits: Sequence[Wait]) -> None:
        """What waits in a queue refers to its tensors."""

    def end(self) -> int:
        """Wait for the threads."""
        for done in self._done.values():
            done.wait()
        self._raise()
        return time.monotonic_ns() - self._start_ns

    def close(self) -> None:
        """End the threads."""
        for queue in self._queues.values():
            queue.put(None)
        for thread in self._threads:
            thread.join()
        self._queues.clear()
        self._threads.clear()

    def _open(self, lane: str) -> None:
        queue: SimpleQueue[Call | None] = SimpleQueue()
        thread = threading.Thread(target=_take, args=(queue,), name=lane, daemon=True)
        thread.start()
        self._queues[lane] = queue
        self._threads.append(thread)

    def _wait(self, waits: Sequence[Wait]) -> None:
        for lane, number in waits:
            if lane != COMPUTE:
                self._done[number].wait()
        self._raise()

    def _run(self, number: int, call: Call) -> None:
        if not self.recorded:
            call()
            return
        start = time.monotonic_ns()
        call()
        self.spans_ns[number] = start - self._start_ns, time.monotonic_ns() - self._start_ns

    def _raise(self) -> None:
        if self._failures:
            raise self._failures[0]


def _take(queue: SimpleQueue[Call | None]) -> None:
    """Run what comes until there is nothing more."""
    while (call := queue.get()) is not None:
        call()
