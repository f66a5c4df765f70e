"""Bytes in use on every rank, in issue order, as PyTorch's allocator counts them.

    in use after event i = sum of the buffers allocated and not yet released,   peak = max over i

A kernel's workspace counts while it is issued. Where a curve is wanted, one rank is followed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simulator.program.operations import Buffer, Column, IntArray, Operation
from simulator.program.tape import Ignore


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
        self.curve: list[tuple[str, int]] = []

    @property
    def peak_bytes(self) -> IntArray:
        """The most that was ever in use, on each rank."""
        return np.broadcast_to(np.asarray(self._peak), self._n_ranks)

    def allocate(self, buffer: Buffer) -> None:
        """More in use."""
        self._now = self._now + buffer.bytes
        self._note(self._now)
        if self._follow is not None:
            self._follow_change(f"+ {buffer.name}")

    def release(self, buffer: Buffer) -> None:
        """Less in use."""
        self._now = self._now - buffer.bytes
        if self._follow is not None:
            self._follow_change(f"- {buffer.name}")

    def operation(self, operation: Operation) -> None:
        """Workspace, while it is issued."""
        if self._workspace_bytes is not None:
            needed = self._workspace_bytes(operation)
            if not isinstance(needed, int) or needed:
                self._note(self._now + needed)
                self._follow_workspace(operation.kind, needed)

    def _note(self, used: Column) -> None:
        if isinstance(used, int) and isinstance(self._peak, int):
            self._peak = max(used, self._peak)
        else:
            self._peak = np.maximum(used, self._peak)

    def _follow_workspace(self, kind: str, needed: Column) -> None:
        """Up and down again."""
        if self._follow is None:
            return
        own = needed if isinstance(needed, int) else int(needed[self._follow])
        if own:
            self._follow_change(f"+ workspace of {kind}", own)
            self._follow_change(f"- workspace of {kind}")

    def _follow_change(self, what: str, more: int = 0) -> None:
        assert self._follow is not None
        used = self._now if isinstance(self._now, int) else int(self._now[self._follow])
        self.curve.append((what, used + more))
