"""How long a call takes on an otherwise idle device.

Each sample is one isolated call, as in the cross-check: the device is idle before and synchronised after. Before the
first sample, and before every call of more than a millisecond, it rests for a while, because the power limit lowers the
clock after some 25 ms of hard work (checks are such work) and would make a sample depend on what ran before; work
without rest is measured on its own (`measure_train`). On a GPU
events stand around the call, and a short wait kernel before them lets the host run ahead, so that the time is the
GPU's and not the host's; what the host needs is measured on its own, too (`host`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

Call = Callable[[], object]

LEAD_CYCLES = 2_000_000
"""Of the wait kernel, about 1 ms: longer than the host needs to issue a call, hiccups of its threads included."""
SETTLE_S = 0.1
"""Rest before the first sample."""
REST_FROM_S, REST_S, LONGEST_REST_S = 1e-3, 0.03, 0.08
"""Before calls longer than the first the device rests: the second and the call's own time, at most the third."""
MOST_IN_TRAIN = 2000
"""Calls of a train."""
FLUSH_BYTES = 160 << 20
"""Written before a call whose inputs should not lie in the L2 cache: three times its size on Hopper."""


class Timer:
    """Times calls on one device.

    Parameters
    ----------
    device : where the calls run.
    seconds : about how long to repeat a call.
    most, least : bounds of the number of samples.

    ``settled`` is called where a case's checks are over and the device has rested, before the first sample.
    """

    def __init__(self, device: torch.device, *, seconds: float = 0.3, most: int = 8, least: int = 3) -> None:
        self.device, self._seconds, self._most, self._least = device, seconds, most, least
        self._flushed: torch.Tensor | None = None
        self._turn_s = 0.0
        self.settled: Callable[[], None] = lambda: None

    def measure(self, call: Call, *, cold: bool = False) -> list[float]:
        """Seconds of each sample, after one call that is not counted.

        ``cold`` empties the L2 cache of the call's inputs before each.
        """
        first = self._once(call, cold)
        count = max(self._least, min(self._most, int(self._seconds / max(first, 1e-6))))
        rest = min(REST_S + first, LONGEST_REST_S) if first > REST_FROM_S and self.device.type == "cuda" else 0.0
        samples = []
        self.rest(SETTLE_S)
        self.settled()
        for _ in range(count):
            self.synchronize()
            time.sleep(rest)
            samples.append(self._once(call, cold))
        return samples

    def measure_train(self, calls: Sequence[Call], seconds: float, *, settle: bool = True) -> list[float]:
        """Seconds of each of many calls that follow each other, in turns, without a pause.

        ``settle``: the device rests before; else it is left as it is, and a turn is taken to last as long as the last.
        """
        if settle:
            self._turn_s = sum(self._once(call, False) for call in calls)
        rounds = max(2, min(MOST_IN_TRAIN // len(calls), int(seconds / max(self._turn_s, 1e-6))))
        train = list(calls) * rounds
        if self.device.type != "cuda":
            return [self._once(call, False) for call in train]
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(train) + 1)]
        if settle:
            self.rest(SETTLE_S)
            self.settled()
        self._lead(False)
        events[0].record()
        for call, event in zip(train, events[1:], strict=True):
            call()
            event.record()
        torch.cuda.synchronize(self.device)
        return [start.elapsed_time(end) / 1e3 for start, end in zip(events, events[1:], strict=False)]

    def rest(self, seconds: float) -> None:
        """Leave a GPU idle for so long."""
        self.synchronize()
        if self.device.type == "cuda":
            time.sleep(seconds)

    def issue(self, call: Call, count: int = 100) -> list[float]:
        """Seconds that the host needs to issue a call, whatever the device does; the first calls are not counted."""
        for _ in range(5):
            call()
        samples = []
        for _ in range(count):
            self.synchronize()
            start = time.perf_counter()
            call()
            samples.append(time.perf_counter() - start)
        self.synchronize()
        return samples

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def elapsed(self, call: Call) -> float:
        """Seconds of one call, the host's time to issue it included, on a device that is idle."""
        return self._between(call, lead=None)

    def _once(self, call: Call, cold: bool) -> float:
        return self._between(call, lead=cold)

    def _between(self, call: Call, lead: bool | None) -> float:
        self.synchronize()
        if self.device.type != "cuda":
            start = time.perf_counter()
            call()
            return max(time.perf_counter() - start, 1e-9)
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        if lead is not None:
            self._lead(lead)
        before.record()
        call()
        after.record()
        self.synchronize()
        return before.elapsed_time(after) / 1e3

    def _lead(self, cold: bool) -> None:
        if cold:
            if self._flushed is None:
                self._flushed = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=self.device)
            self._flushed.fill_(1)
        torch.cuda._sleep(LEAD_CYCLES)
