"""How long a call takes on an otherwise idle device.

Each sample is one isolated call, as in the cross-check: the device is idle before and synchronised after. Before calls
of more than a millisecond it rests for a while, because the power limit lowers the clock after some 25 ms of hard work
and would make a sample depend on those before it; work without rest is measured on its own (`measure_train`). On a GPU
events stand around the call, and a short wait kernel before them lets the host run ahead, so that the time is the
GPU's and not the host's; what the host needs is measured on its own, too (`host`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Call = Callable[[], object]

LEAD_CYCLES = 2_000_000
"""Of the wait kernel, about 1 ms: longer than the host needs to issue a call, hiccups of its threads included."""
REST_FROM_S, REST_S, LONGEST_REST_S = 1e-3, 0.03, 0.08
"""Before calls longer than the first the device rests: the second and the call's own time, at most the third."""
FLUSH_BYTES = 160 << 20
"""Written before a call whose inputs should not lie in the L2 cache: three times its size on Hopper."""


class Timer:
    """Times calls on one device.

    Parameters
    ----------
    device : where the calls run.
    seconds : about how long to repeat a call.
    most, least : bounds of the number of samples.
    """

    def __init__(self, device: torch.device, *, seconds: float = 0.3, most: int = 8, least: int = 3) -> None:
        self.device, self._seconds, self._most, self._least = device, seconds, most, least
        self._flushed: torch.Tensor | None = None

    def measure(self, call: Call, *, cold: bool = False) -> list[float]:
        """Seconds of each sample, after one call that is not counted.

        ``cold`` empties the L2 cache of the call's inputs before each.
        """
        first = self._once(call, cold)
        count = max(self._least, min(self._most, int(self._seconds / max(first, 1e-6))))
        rest = min(REST_S + first, LONGEST_REST_S) if first > REST_FROM_S and self.device.type == "cuda" else 0.0
        samples = []
        for _ in range(count):
            self.synchronize()
            time.sleep(rest)
            samples.append(self._once(call, cold))
        return samples

    def measure_train(self, call: Call, seconds: float) -> list[float]:
        """Seconds of each of many calls that follow each other without a pause."""
        count = max(4, min(2000, int(seconds / max(self._once(call, False), 1e-6))))
        if self.device.type != "cuda":
            return [self._once(call, False) for _ in range(count)]
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        self._lead(False)
        events[0].record()
        for event in events[1:]:
            call()
            event.record()
        torch.cuda.synchronize(self.device)
        return [start.elapsed_time(end) / 1e3 for start, end in zip(events, events[1:], strict=False)]

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
