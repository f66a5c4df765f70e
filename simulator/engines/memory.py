"""Bytes in use on every rank, in issue order, as PyTorch's allocator counts them; those of the host apart.

    in use after event i = sum of the buffers allocated and not yet released,   peak = max over i

A kernel's workspace counts while it is issued. Where a curve is wanted, or what holds memory at its peak, one rank is
followed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simulator.engines.holders import Holder, group_holders
from simulator.program.operations import Buffer, Column, IntArray, Operation
from simulator.program.tape import Ignore

WORKSPACE_ID = -1


class Memory(Ignore):
    """A sink that follows memory.

    Parameters
    ----------
    n_ranks : number of ranks.
    workspace_bytes : bytes an operation needs while it runs, besides its buffers.
    follow : rank whose curve is kept.

    Attributes
    ----------
    curve : (operation, bytes in use) of the rank followed, wherever it changed.
    """

    def __init__(
        self, n_ranks: int, workspace_bytes: Callable[[Operation], Column] | None = None, follow: int | None = None
    ) -> None:
        self._n_ranks, self._workspace_bytes, self._follow = n_ranks, workspace_bytes, follow
        self._now: Column = 0
        self._peak: Column = 0
        self._on_host: Column = 0
        self._host_peak: Column = 0
        self.curve: list[tuple[str, int]] = []
        self._changes: list[tuple[int, str, int]] = []

    @property
    def peak_bytes(self) -> IntArray:
        """The most that was ever in use, on each rank."""
        return np.broadcast_to(np.asarray(self._peak), self._n_ranks)

    def holders_at_peak(self) -> tuple[Holder, ...]:
        """What the rank followed holds when most is in use, the largest first."""
        most = max(range(len(self.curve)), key=lambda i: self.curve[i][1], default=-1)
        held: dict[int, tuple[str, int]] = {}
        for buffer, name, change in self._changes[: most + 1]:
            if change > 0:
                held[buffer] = name, change
            else:
                held.pop(buffer, None)
        return group_holders(held.values())

    @property
    def host_peak_bytes(self) -> IntArray:
        """The most that each rank ever had in memory of its host."""
        return np.broadcast_to(np.asarray(self._host_peak), self._n_ranks)

    def allocate(self, buffer: Buffer) -> None:
        """More in use."""
        if buffer.on_host:
            self._on_host = self._on_host + buffer.bytes
            self._host_peak = _more(self._on_host, self._host_peak)
            return
        self._now = self._now + buffer.bytes
        self._peak = _more(self._now, self._peak)
        if self._follow is not None:
            self._follow_change("+", buffer.name, buffer.id, buffer.bytes)

    def release(self, buffer: Buffer) -> None:
        """Less in use."""
        if buffer.on_host:
            self._on_host = self._on_host - buffer.bytes
            return
        self._now = self._now - buffer.bytes
        if self._follow is not None:
            self._follow_change("-", buffer.name, buffer.id, buffer.bytes)

    def operation(self, operation: Operation) -> None:
        """Workspace, while it is issued."""
        if self._workspace_bytes is not None:
            needed = self._workspace_bytes(operation)
            if not isinstance(needed, int) or needed:
                self._peak = _more(self._now + needed, self._peak)
                self._follow_workspace(operation.kind, needed)

    def _follow_workspace(self, kind: str, needed: Column) -> None:
        """Up and down again."""
        if self._follow is None:
            return
        if _of(needed, self._follow):
            self._follow_change("+", f"workspace of {kind}", WORKSPACE_ID, needed, self._now + needed)
            self._follow_change("-", f"workspace of {kind}", WORKSPACE_ID, needed)

    def _follow_change(self, sign: str, name: str, buffer: int, changed: Column, used: Column | None = None) -> None:
        assert self._follow is not None
        own = _of(changed, self._follow)
        self.curve.append((f"{sign} {name}", _of(self._now if used is None else used, self._follow)))
        self._changes.append((buffer, name, own if sign == "+" else -own))


def _of(column: Column, rank: int) -> int:
    return column if isinstance(column, int) else int(column[rank])


def _more(used: Column, peak: Column) -> Column:
    return max(used, peak) if isinstance(used, int) and isinstance(peak, int) else np.maximum(used, peak)
