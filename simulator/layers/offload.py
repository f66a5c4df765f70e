"""What backward needs of checkpointed layers, kept in memory of the host meanwhile.

    forward of layer i     copy out what is kept of it, while layer i + 1 computes; then its memory on the GPU is free
    backward of layer i    copy in what is kept of layer i - 1, while layer i is recomputed and differentiated

So one layer's is on its way out, and one layer's ahead on its way in. Each direction has a copy engine of its own. The
last layer's stays: backward begins with it.
Source: the scheme of Rajbhandari et al. 2021 (ZeRO-Infinity, arXiv 2104.07857, section 5.2.2) for activation
checkpoints, without NVMe.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program.recorder import Recorder
from simulator.program.tape import Tensor


class Ticket:
    """Tensors of one layer that are in memory of the host."""

    def __init__(self, on_host: tuple[Tensor, ...]) -> None:
        self.on_host: tuple[Tensor, ...] = on_host
        self.fetched: tuple[Tensor, ...] | None = None


class Stash:
    """Keeps tensors in memory of the host; what is put last is taken first.

    Parameters
    ----------
    r : the recorder.
    """

    def __init__(self, r: Recorder) -> None:
        self._r = r
        self._tickets: list[Ticket] = []
        self._leaving: Ticket | None = None

    def put(self, tensors: Sequence[Tensor]) -> Ticket:
        """Copy out; the copies before have left once the compute lane comes to what is recorded next."""
        self._settle()
        ticket = Ticket(self._r.offload(tensors))
        self._tickets.append(ticket)
        self._leaving = ticket
        return ticket

    def take(self, ticket: Ticket) -> tuple[Tensor, ...]:
        """What was put, on the GPU again; and what was put before it begins to come."""
        assert self._tickets and self._tickets[-1] is ticket, "what is put last is taken first"
        self._settle()
        self._tickets.pop()
        tensors = self._fetch(ticket)
        ticket.fetched = None
        self.ahead()
        return tensors

    def ahead(self) -> None:
        """What is taken next begins to come."""
        self._settle()
        if self._tickets:
            self._fetch(self._tickets[-1])

    def _fetch(self, ticket: Ticket) -> tuple[Tensor, ...]:
        if ticket.fetched is None:
            ticket.fetched = self._r.fetch(ticket.on_host)
            ticket.on_host = ()
        return ticket.fetched

    def _settle(self) -> None:
        """Wait for what is on its way out."""
        if self._leaving is not None and self._leaving.on_host:
            self._r.wait_for(self._leaving.on_host)
        self._leaving = None
