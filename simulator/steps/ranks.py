"""The ranks on which a step is recorded: the recorder of one context parallel group, lifted to the grid, by stages."""

from __future__ import annotations

import numpy as np

from simulator.layers.layer import Context
from simulator.layers.routing import Routing
from simulator.layers.tensor_parallel import TensorParallel
from simulator.program.lift import Lift
from simulator.program.operations import PROPAGATION, Column, Elementwise, Slices, Transfer
from simulator.program.partition import Layout
from simulator.program.recorder import Recorder
from simulator.program.tape import Sink, Tensor
from simulator.steps.plan import Plan
from simulator.steps.serving import stage_link

MOST_AWAY = 64
"""Messages of wide-area links that may be under way at once."""


class Ranks:
    """What steps record on.

    Attributes
    ----------
    r : the recorder.
    context : what layers share.
    """

    def __init__(self, plan: Plan, sink: Sink) -> None:
        self.plan, grid = plan, plan.grid
        self._lift = Lift(grid, sink) if grid.n_ranks > grid.cp else None
        self.r = Recorder(plan.setup, self._lift or sink)
        home = Layout.home(plan.schedule.input_partition(plan.setup))
        parallel = TensorParallel(grid, plan.options.tp_version)
        self._routings: dict[tuple[bytes, bool], Routing] = {}
        self._link, self._sent = stage_link(plan.options), 0
        self.context = Context(plan.shape, plan.schedule, parallel, home, self.routing)

    def routing(self, tokens: Column, *, replicated: bool = False) -> Routing:
        """One for all layers, so that what they send is priced once."""
        key = np.asarray(tokens).tobytes(), replicated
        if key not in self._routings:
            self._routings[key] = self.plan.routing(tokens, replicated=replicated)
        return self._routings[key]

    def on(self, *stages: int) -> None:
        """What is recorded from here on is these pipeline stages'."""
        if self._lift is not None:
            self._lift.stages = stages

    def ids(self, name: str, microbatch: int, home: Layout | None = None) -> Tensor:
        """Token ids or labels of a microbatch, each rank's tokens of its sequences (or of those of a chunk)."""
        rows = (self.sequences(microbatch),)
        return self.r.tensor(name, home or self.context.home, 1, 1, "int64", is_input=True, slices=rows)

    def sequences(self, microbatch: int) -> Slices:
        """The sequences of a microbatch that each rank has."""
        start = self.plan.grid.coordinate("dp") * self.plan.options.microbatches + microbatch
        start = start * self.plan.sequences
        return Slices(0, start, start + self.plan.sequences)

    def heads(self, per_rank: int) -> Slices:
        """The heads that each rank has of tensors [batch, tokens, heads, dim]."""
        start = self.plan.grid.coordinate("tp") * per_rank
        return Slices(2, start, start + per_rank)

    def pass_on(self, tensor: Tensor, part: int, to: int) -> Tensor:
        """A tensor of one part of the layers, on the stage of a neighbouring part.

        Activations and gradients have lanes of their own, and so have those that go around, from the last stage to the
        first or back: none waits for another of which its receiver has no need yet.
        """
        stages, way = self.plan.grid.pp, "down" if to > part else "up"
        around = "" if part // stages == to // stages else "-around"
        return self.send(tensor, part % stages, to % stages, f"{way}{around}")

    def send(self, tensor: Tensor, source: int, target: int, way: str | None = None) -> Tensor:
        """A tensor of one pipeline stage, on another one."""
        grid, b, way = self.plan.grid, tensor.buffer, way or ("down" if target > source else "up")
        message = self._far(b.bytes, source, target)
        self.on(target)
        received = self.r.tensor(b.name, b.layout, b.heads, b.dim, b.dtype, tokens=b.tokens, batch=b.batch)
        self.on(source, target)
        stage, others = grid.coordinate("pp"), grid.groups("pp")
        numbers = others + np.where(stage == target, source, stage) * (int(others.max()) + 1)
        groups = np.unique(numbers, return_inverse=True)[1].reshape(-1)
        sends = stage == source
        to = np.arange(grid.n_ranks) + np.where(sends, (target - source) * grid.stride("pp"), 0)
        work = Transfer("send", b.bytes, np.where(sends, b.bytes, 0), groups, to=to, arrived=self._link is not None)
        lane = f"comm:pp-{source}-{target}" if self._link else f"comm:pp-{way}"
        self.r.emit("send", work, (tensor, *message), (received, *message), lane=lane)
        return received

    def _far(self, size: Column, source: int, target: int) -> tuple[Tensor, ...]:
        """What a message takes of a far link: its turn to be sent, then its own way; what comes after waits for it."""
        link, grid = self._link, self.plan.grid
        if link is None:
            return ()
        self._sent += 1
        self.on(source)
        message = self.r.tensor("message", None, 1, 1, "int32", tokens=0)
        rate = link.bytes_per_s * grid.pp / grid.n_ranks  # the ranks of a stage share the link
        ways = {f"comm:pp-{source}-{target}-out": int(np.max(size)) / rate,
                f"comm:pp-away-{self._sent % MOST_AWAY}": link.latency_s}  # fmt: skip
        for lane, seconds in ways.items():
            self.r.emit(PROPAGATION, Elementwise("copy", 0, 0), (message,), (message,), lane=lane, seconds=seconds)
        return (message,)
