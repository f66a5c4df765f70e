"""Who holds which part of weights, gradients and optimizer states, and the communication that this costs (ZeRO).

N ranks that see different tokens (context and data parallel together) would hold the same Psi elements of a weight.

| zero | weights | gradients | optimizer | communication of a step, per rank |
|---|---|---|---|---|
| 0 | Psi | Psi | Psi | all-reduce of gradients |
| 1 | Psi | Psi, to the end | Psi/N | reduce-scatter of gradients, all-gather of weights |
| 2 | Psi | a layer, then Psi/N | Psi/N | the same, gradients of each layer as soon as backward has them |
| 3 | a layer, and the next | a layer, then Psi/N | Psi/N | all-gather of weights forward and backward, reduce-scatter |

Zero 3 is FSDP: the next layer's weights are gathered while this layer computes. Communication of a layer is one
launch. Gradients are reduced as soon as a layer's backward has been issued, on a lane of their own, and at most one
reduction is under way: the compute lane waits for the one before. With several microbatches, zero 0 and 1 reduce in the
last one only, 2 and 3 in every one. Source: Rajbhandari et al. 2020 (arXiv 1910.02054) sections 5 and 7; Zhao et al.
2023 (FSDP, arXiv 2304.11277) sections 3.3 and 3.4.

States may lie in memory of the host. A unit's are copied to the GPU while the unit before is updated, and back while
the next one is: 24 bytes per element over PCIe, in both directions at once, and two or three units' on the GPU.

AdamW in mixed precision keeps fp32 master weights and two moments: 12 bytes per element (with 8-bit moments, Dettmers
et al. 2022, arXiv 2110.02861: 4 + 2 (1 + 4/256)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from simulator.grid import Grid
from simulator.layers.parameter import Parameter
from simulator.program.operations import Collective, Elementwise
from simulator.program.recorder import Recorder
from simulator.program.tape import Tensor
from simulator.steps.axes import DATA
from simulator.steps.host_states import HostStates
from simulator.steps.shards import Shards, Sharers
from traces.errors import InputError

OPTIMIZERS = {"adamw": 32.0, "adamw-8bit": 8 + 32 / 256}
"""Bits of a moment's element."""

OFFLOADS = ("none", "activations", "optimizer", "all")

ADAMW: dict[str, float] = {
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "beta1": 0.9,
    "beta2": 0.95,
    "epsilon": 1e-8,
    "step": 10,
}
"""What executors compute with: a step in the middle of training, so that moments matter."""


@dataclass
class _State:
    """A trainable weight's share of this rank."""

    parameter: Parameter
    shard: Tensor | None
    grad: Tensor | None
    states: tuple[Tensor, ...]


class ParameterStore:
    """Weights of a model with their gradients and optimizer states.

    Parameters
    ----------
    r : the recorder.
    grid : the ranks.
    zero : stage, 0 to 3.
    optimizer : of `OPTIMIZERS`; None where nothing is trained (inference).
    on_host : whether optimizer states are in memory of the host.
    """

    def __init__(
        self, r: Recorder, grid: Grid, zero: int = 0, optimizer: str | None = "adamw", *, on_host: bool = False
    ) -> None:  # fmt: skip
        if zero not in (0, 1, 2, 3):
            raise InputError("unknown zero stage", got=zero, expected="0, 1, 2 or 3")
        self._r, self._grid, self._optimizer = r, grid, optimizer
        self._away = HostStates(r, on_host=on_host)
        self._zero = zero if grid.size(*DATA) > 1 else 0
        self._shards = Shards(r, grid)
        self._states: dict[int, _State] = {}
        self._pending: list[Tensor] = []
        self._whole: list[Tensor] = []
        self.updated: dict[str, Tensor] = {}

    def hold(self, weights: Iterable[Parameter]) -> None:
        """Allocate what this rank holds between steps."""
        for parameter in weights:
            if id(parameter) not in self._states:
                self._states[id(parameter)] = self._hold(parameter)

    def _hold(self, parameter: Parameter) -> _State:
        shard = None
        if self._zero < 3:
            parameter.tensor = parameter.new_tensor(self._r, is_input=True)
        else:
            shard = self._shards.part(parameter, parameter.name, parameter.dtype, is_input=True, bits=parameter.bits)
        states: tuple[Tensor, ...] = ()
        if self._optimizer and parameter.trainable:
            bits = OPTIMIZERS[self._optimizer]
            kinds = {"m": bits, "v": bits, "master": 32.0}
            states = tuple([self._state(parameter, kind, size) for kind, size in kinds.items()])
        return _State(parameter, shard, None, states)

    def _state(self, parameter: Parameter, kind: str, bits: float) -> Tensor:
        name = f"{kind} {parameter.name}"
        if self._zero:
            return self._shards.part(parameter, name, "fp32", is_input=True, bits=bits, on_host=self._away.on_host)
        return self._r.tensor(
            name, None, 1, parameter.columns, "fp32", tokens=parameter.rows, batch=parameter.planes, is_input=True,
            slices=parameter.slices, bits=bits, on_host=self._away.on_host,
        )  # fmt: skip

    # -- weights -----------------------------------------------------------------------------------------------------

    def gather(self, weights: Iterable[Parameter]) -> None:
        """Make weights whole; what is whole already stays."""
        missing = [each for each in weights if each.tensor is None]
        for alike in self._shards.alike(missing):
            shards = [self._states[id(each)].shard for each in alike]
            self._gather(alike, [shard for shard in shards if shard is not None])

    def _gather(self, weights: Sequence[Parameter], shards: Sequence[Tensor]) -> None:
        for each in weights:
            each.tensor = each.new_tensor(self._r)
        size = sum(int(shard.buffer.bytes) for shard in shards)
        sharers = self._shards.sharers_of(weights[0])
        work = Collective("all_gather", size, size * (sharers.ranks - 1), sharers.groups)
        self._r.emit("all_gather", work, shards, [each.held for each in weights], lane="comm:dp")

    def free(self, weights: Iterable[Parameter], *, done: bool = False) -> None:
        """Give whole weights back, where shards of them are held; what was cast of them too, and if they are done."""
        for each in weights:
            if self._zero == 3:
                each.tensor = None
            if self._zero == 3 or done:
                each.cast = None

    # -- gradients ---------------------------------------------------------------------------------------------------

    def reduce(self, weights: Iterable[Parameter], *, last: bool) -> None:
        """Sum gradients over the ranks that saw other tokens; ``last``: no microbatch adds to them any more."""
        ready = [each for each in {id(each): each for each in weights}.values() if each.grad is not None]
        if not ready or not (last or self._zero >= 2):
            return
        self._reduce_replicas([each for each in ready if each.replicas])
        for alike in self._shards.alike(ready):
            if self._shards.sharers_of(alike[0]).ranks == 1 and not self._zero:
                self._keep(alike, [each.grad for each in alike])
            elif self._zero == 0:
                self._all_reduce(alike)
            else:
                self._reduce_scatter(alike)

    def _reduce_replicas(self, weights: Sequence[Parameter]) -> None:
        if weights and self._grid.tp > 1:
            grads = [each.grad for each in weights if each.grad is not None]
            size = sum(int(each.buffer.bytes) for each in grads)
            work = Collective(
                "all_reduce", size, 2 * size * (self._grid.tp - 1) // self._grid.tp, self._grid.groups("tp")
            )
            self._r.emit("all_reduce", work, grads, grads, lane="comm:tp")

    def _all_reduce(self, weights: Sequence[Parameter]) -> None:
        grads = [each.grad for each in weights if each.grad is not None]
        self._collective("all_reduce", grads, grads, 2, self._shards.sharers_of(weights[0]))
        self._keep(weights, grads)

    def _reduce_scatter(self, weights: Sequence[Parameter]) -> None:
        grads = [each.grad for each in weights if each.grad is not None]
        shards = [self._shards.part(each, f"d {each.name}", each.grad_dtype) for each in weights]
        self._collective("reduce_scatter", grads, shards, 1, self._shards.sharers_of(weights[0]))
        if self._zero == 1:
            self._whole += grads
        del grads
        self._keep(weights, shards)
        self._wait(shards)

    def _collective(
        self, kind: str, reads: Sequence[Tensor], writes: Sequence[Tensor], times: int, sharers: Sharers
    ) -> None:
        size, ranks = sum(int(each.buffer.bytes) for each in reads), sharers.ranks
        work = Collective(kind, size, times * size * (ranks - 1) // ranks, sharers.groups)
        self._r.emit(kind, work, reads, writes, lane="comm:dp")

    def _keep(self, weights: Sequence[Parameter], grads: Sequence[Tensor | None]) -> None:
        for each, grad in zip(weights, grads, strict=True):
            state = self._states[id(each)]
            each.grad = None
            if state.grad is not None and grad is not None and grad is not state.grad:
                self._r.add((state.grad,), (grad,))
            else:
                state.grad = grad

    def _wait(self, shards: Sequence[Tensor]) -> None:
        """Let the compute lane wait for the reduction before this one, so that its gradients' memory is free."""
        if self._pending:
            self._r.wait_for(self._pending)
        self._pending = list(shards)

    # -- optimizer ---------------------------------------------------------------------------------------------------

    def step_units(self, units: Sequence[Iterable[Parameter]], begin: Callable[[int], None] | None = None) -> None:
        """Update the weights of units that are gathered together, from their gradients, which are gone then.

        A weight of two units (a head that is the embedding) is updated with the first. ``begin`` is told of each.
        """
        self._pending, self._whole = [], []
        ready, seen = [], set[int]()
        for unit in units:
            ready.append([state for state in self._ready(unit) if id(state) not in seen])
            seen |= {id(state) for state in ready[-1]}
        here = [self._here(states) for states in ready[:1]]
        for number, (states, after) in enumerate(zip(ready, (*ready[1:], []), strict=True)):
            if begin is not None:
                begin(number)
            here.append(self._here(after))
            self._step(states, here.pop(0))
        self._away.settle()

    def _here(self, states: Sequence[_State]) -> list[tuple[Tensor, ...]]:
        return self._away.bring([state.states for state in states])

    def _ready(self, weights: Iterable[Parameter]) -> list[_State]:
        states = [self._states[id(each)] for each in weights]
        return [state for state in states if state.grad is not None and state.states]

    def _step(self, updated: Sequence[_State], here: Sequence[tuple[Tensor, ...]]) -> None:
        targets = {
            id(state.parameter): self._update(state, tensors) for state, tensors in zip(updated, here, strict=True)
        }
        self._away.take_back([state.states for state in updated], here)
        del here
        if self._zero in (1, 2):
            for alike in self._shards.alike([state.parameter for state in updated]):
                for each in alike:
                    each.tensor = None
                self._gather(alike, [targets[id(each)] for each in alike])
        for state in updated:
            parameter = state.parameter
            self.updated[parameter.name] = targets[id(parameter)] if self._zero == 3 else parameter.held
            self.updated[state.states[0].buffer.name] = state.states[0]

    def _update(self, state: _State, states: tuple[Tensor, ...]) -> Tensor:
        """Moments, master weights, and the weights that this rank updates."""
        parameter, grad = state.parameter, state.grad
        assert grad is not None
        target = state.shard if self._zero == 3 else parameter.tensor
        if self._zero in (1, 2):
            target = self._shards.part(parameter, parameter.name, parameter.dtype)
        assert target is not None
        moved = sum(int(each.buffer.bytes) for each in states)
        work = Elementwise("accumulate", int(grad.buffer.bytes) + moved, moved + int(target.buffer.bytes))
        self._r.emit("adamw", work, (grad, *states), (*states, target), settings=ADAMW)
        state.grad = None
        return target
