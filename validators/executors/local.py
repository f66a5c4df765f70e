"""What one rank has at hand for an operation that is not communication: tensors, kernels, and which rows it is about.

The operations themselves are functions, one per kind, in `validators.executors.kinds`. Attention is done by an
`AttentionKernel`, so that the same code runs the float64 reference on a CPU and flash kernels on a GPU.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from cost_models.kernels.put_together import Slices, join_slices
from cost_models.masks import KernelCall, Lowering
from simulator.program.operations import Attention, Elementwise, Operation
from simulator.program.partition import Layout, rows_of
from validators.executors.store import Store
from validators.kernels.fused import merge_into


class AttentionKernel(Protocol):
    """One segment of a launch: tensors [B, n, heads, D], LSE and delta [B, H, n], a window as in `KernelCall`."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse)."""

    def backward(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv); ``row`` is delta [B, H, n] if ``delta``, else O."""


class Rows(NamedTuple):
    """Rows of a tensor by the tokens of another's: their index, 0 and (in ``found``) -1 where it lacks them."""

    at: Tensor
    found: Tensor


@runtime_checkable
class SegmentsKernel(AttentionKernel, Protocol):
    """One that can do several segments in one launch, if their rows and columns follow each other.

    Tensors are whole; rows of results, and columns of gradients, that no segment has hold anything.
    """

    def takes_segments(self, call: KernelCall) -> bool:
        """Whether it can do this launch."""

    def forward_segments(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse)."""

    def backward_segments(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv)."""


Merge = Callable[[Tensor, Tensor, Tensor, Tensor], None]


class LocalOperations:
    """The operations of one rank in one Program.

    Parameters
    ----------
    kernel : does attention.
    store : the rank's tensors.
    merge : updates a running (o, lse) in place by a partial one; `fused.merge_into` if None.

    Attributes
    ----------
    selected : indices [B, K, l_p] that APB's selection chose, once it has.
    launches : kernel calls of each attention operation, by its number, once they are known.
    """

    def __init__(self, kernel: AttentionKernel, store: Store, merge: Merge | None = None) -> None:
        self.kernel, self.store, self.merge = kernel, store, merge or merge_into
        self.selected: Tensor | None = None
        self.launches: dict[int, list[KernelCall]] = {}
        self._readers: dict[int, list[Callable[[], Tensor]]] = {}
        self._writers: dict[int, list[Callable[[], Tensor]]] = {}
        self._lowerings: dict[int, Lowering] = {}
        self._covered: dict[int, Slices] = {}
        self._constants: dict[Hashable, Tensor] = {}
        self._rows: dict[tuple[int, int], Rows] = {}

    # -- what an operation touches -----------------------------------------------------------------------------------

    def reads(self, operation: Operation) -> tuple[Tensor, ...]:
        """Its inputs, whole."""
        readers = self._readers.get(operation.id)
        if readers is None:
            readers = self._readers[operation.id] = [self.store.reader(buffer) for buffer in operation.reads]
        return tuple([read() for read in readers])

    def writes(self, operation: Operation) -> tuple[Tensor, ...]:
        """Its outputs, whole: to be filled, or updated in place."""
        writers = self._writers.get(operation.id)
        if writers is None:
            writers = self._writers[operation.id] = [self.store.reader(buffer) for buffer in operation.writes]
        return tuple([write() for write in writers])

    def constant(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """A small tensor that operations share, made once."""
        if key not in self._constants:
            self._constants[key] = make()
        return self._constants[key]

    def lowering(self, operation: Operation) -> Lowering:
        """The kernels this rank launches."""
        if operation.id not in self._lowerings:
            column = typing.cast(Attention, operation.work).lowering
            self._lowerings[operation.id] = column.of(self.store.rank)
        return self._lowerings[operation.id]

    def covered(self, operation: Operation) -> Slices | None:
        """Disjoint slices of the rows that an elementwise operation is about, in order; None for all.

        They are those that the attention kernels touch that it is restricted to, or that its option names.
        """
        if operation.id not in self._covered:
            work = typing.cast(Elementwise, operation.work)
            column, side = work.lowering, work.side
            if "covered" in operation.options:
                column, side = operation.options["covered"], operation.options.get("side", "q")
            if column is None:
                return None
            self._covered[operation.id] = covered_slices(column.of(self.store.rank).calls, side)
        return self._covered[operation.id]

    def rows(self, operation: Operation, number: int, source: Layout, target: Layout) -> Rows:
        """Where each token of one layout is in another; on the device, found in the first call only.

        ``number`` tells an operation's pairs of layouts apart.
        """
        key = operation.id, number
        if key not in self._rows:
            rank = self.store.rank
            found = rows_of(source.tokens_of(rank), target.tokens_of(rank))
            there = torch.from_numpy(np.asarray(found, np.int64)).to(self.store.device)
            self._rows[key] = Rows(there.clamp(min=0), there)
        return self._rows[key]


Perform = Callable[[LocalOperations, Operation], None]


def covered_slices(calls: Iterable[KernelCall], side: str) -> Slices:
    """Disjoint slices of rows ("q") or columns ("k") that some calls touch, in order.

    >>> from cost_models.masks import CausalMask, TokenRange, lower
    >>> covered_slices(lower(CausalMask(), (TokenRange(4, 8),), (TokenRange(2, 6),), 8).calls, "k")
    [(0, 4)]
    """
    start, stop = f"{side}_start", f"{side}_stop"
    return join_slices([(getattr(s, start), getattr(s, stop)) for call in calls for s in call.segments])


def gaps(slices: Slices, length: int) -> Slices:
    """What disjoint slices in order leave of ``length`` rows.

    >>> gaps([(0, 2), (4, 6)], 8)
    [(2, 4), (6, 8)]
    """
    edges = [0, *(edge for each in slices for edge in each), length]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]
