"""CUDA graphs: all kernels of a step, and of one microbatch in it, are launched at once.

    host time of a graph = graph_s + node_s x kernels,    on each rank that has any

in place of a launch per kernel. A graph replays fixed shapes, so that it is for decoding; kernels take as long as ever.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulator.program.operations import Buffer, Operation
from simulator.program.tape import Sink


class Graphed:
    """A sink that passes a Program on with operations marked: ``graphed`` is where a rank launches its graph.

    An operation is part of the graph of its step; the first of each rank carries the launch.
    """

    def __init__(self, sink: Sink, n_ranks: int) -> None:
        self._sink, self._step = sink, -1
        self._launched = np.zeros(n_ranks, dtype=bool)

    def allocate(self, buffer: Buffer) -> None:
        """Pass it on."""
        self._sink.allocate(buffer)

    def release(self, buffer: Buffer) -> None:
        """Pass it on."""
        self._sink.release(buffer)

    def operation(self, operation: Operation) -> None:
        """Pass it on, marked."""
        if operation.step != self._step:
            self._step, self._launched = operation.step, np.zeros_like(self._launched)
        takes_part = np.ones_like(self._launched) if operation.ranks is None else operation.ranks
        first = takes_part & ~self._launched
        self._launched = self._launched | takes_part
        self._sink.operation(replace(operation, options={**operation.options, "graphed": first.astype(np.int64)}))

    def finish(self, outputs: dict[str, Buffer]) -> None:
        """Pass it on."""
        self._sink.finish(outputs)
