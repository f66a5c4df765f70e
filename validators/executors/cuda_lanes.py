"""Lanes on a GPU: CUDA streams, and dependencies as CUDA events.

PyTorch gives every NCCL communicator a stream of its own. Beside it a lane has a stream that follows it: a call is made
from the lane's stream, which makes NCCL's wait for it, and the lane's stream then waits for NCCL's. So whatever the
lane's stream waits for, NCCL's does, and an event on it marks the end of the operation, without the compute stream
waiting for anything that the Program does not say. Copies around a collective are on the lane's stream, with a high
priority: else they would wait for the blocks of the attention kernel beside them, and the peer with them.

Memory belongs to the compute stream. The Program gives a buffer back once the compute lane has waited for its last use
on another lane; a rank that took no part in the waiting operation has not, and tells PyTorch's allocator to wait.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from simulator.program.operations import COMPUTE
from validators.executors.lanes import Call
from validators.executors.waits import Wait


class CudaLanes:
    """Streams of one GPU.

    Parameters
    ----------
    device : the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.spans_ns: dict[int, tuple[int, int]] = {}
        self.recorded = False
        self._compute = torch.cuda.Stream(device)
        self._streams: dict[str, torch.cuda.Stream] = {}
        self._device = device
        self._pools: dict[bool, list[torch.cuda.Event]] = {True: [], False: []}
        self._taken: list[tuple[bool, torch.cuda.Event]] = []
        self._forget()

    def begin(self, start_ns: int) -> None:
        """Forget the last call, and mark time 0."""
        for timed, event in self._taken:
            self._pools[timed].append(event)
        self._forget()
        torch.cuda.set_stream(self._compute)
        self._zero = self._mark(self._compute, timed=True)

    def compute(self, number: int, waits: Sequence[Wait], call: Call) -> None:
        """Issue it on the compute stream."""
        for lane, last in waits:
            if self._joined.get(lane, -1) < last:
                self._compute.wait_event(self._done[last])
                self._joined[lane] = last
        begin = self._mark(self._compute, timed=True) if self.recorded else None
        call()
        self._computed = None
        if begin is not None:
            self._marks[number] = begin, self._mark(self._compute, timed=True)

    def communicate(self, number: int, lane: str, waits: Sequence[Wait], call: Call) -> None:
        """Issue it on the lane's stream."""
        stream = self._streams.get(lane) or self._open(lane)
        if self._computed is None:
            self._computed = self._mark(self._compute, timed=False)
        stream.wait_event(self._computed)
        for other, last in waits:
            if other != COMPUTE:
                stream.wait_event(self._done[last])
        torch.cuda.set_stream(stream)
        try:
            begin = self._mark(stream, timed=True) if self.recorded else None
            call()
            self._done[number] = self._mark(stream, timed=self.recorded)
        finally:
            torch.cuda.set_stream(self._compute)
        if begin is not None:
            self._marks[number] = begin, self._done[number]

    def keep(self, tensors: Sequence[object], waits: Sequence[Wait]) -> None:
        """Have the allocator wait for lanes that the compute stream has not waited for."""
        for lane, last in waits:
            if self._joined.get(lane, -1) < last:
                for tensor in tensors:
                    assert isinstance(tensor, torch.Tensor)
                    tensor.record_stream(self._streams[lane])

    def end(self) -> int:
        """Wait for all streams."""
        for stream in self._streams.values():
            self._compute.wait_stream(stream)
        last = self._mark(self._compute, timed=True)
        last.synchronize()
        self.spans_ns = {number: (self._ns(begin), self._ns(end)) for number, (begin, end) in self._marks.items()}
        torch.cuda.set_stream(torch.cuda.default_stream(self._device))
        return self._ns(last)

    def close(self) -> None:
        """Streams go back by themselves."""

    def _open(self, lane: str) -> torch.cuda.Stream:
        stream = self._streams[lane] = torch.cuda.Stream(self._device, priority=-1)
        return stream

    def _forget(self) -> None:
        self._taken.clear()
        self._marks: dict[int, tuple[torch.cuda.Event, torch.cuda.Event]] = {}
        self._done: dict[int, torch.cuda.Event] = {}
        self._joined: dict[str, int] = {}
        self._computed: torch.cuda.Event | None = None

    def _mark(self, stream: torch.cuda.Stream, *, timed: bool) -> torch.cuda.Event:
        pool = self._pools[timed]
        event = pool.pop() if pool else torch.cuda.Event(enable_timing=timed)
        self._taken.append((timed, event))
        event.record(stream)
        return event

    def _ns(self, event: torch.cuda.Event) -> int:
        return round(self._zero.elapsed_time(event) * 1e6)
