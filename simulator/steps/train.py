"""A training step: forward and backward of all microbatches, reduction of gradients, optimizer.

Each pipeline stage runs the units of a part (embedding, layers, end) in order, and backward in reverse; a unit's
weights are gathered while the unit before computes, its gradients are reduced while the next one does. A stage has one
part, or several, interleaved with those of the other stages (`pipeline`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from simulator.layers.checkpoint import checkpoint
from simulator.layers.core import Kept
from simulator.layers.ends import Rows
from simulator.layers.model import Model
from simulator.layers.net import Net, Slot, Var
from simulator.layers.offload import Stash
from simulator.layers.parameter import Parameter
from simulator.layers.preference import preference_loss
from simulator.layers.weights import WeightMaker
from simulator.program.tape import Sink, Tensor
from simulator.program.units import tell_units
from simulator.steps.parameters import ParameterStore
from simulator.steps.pipeline import BACKWARD, FORWARD, SEND, Task, one_forward_one_backward
from simulator.steps.plan import Plan
from simulator.steps.ranks import Ranks
from simulator.steps.reference import reference_of

Unit = tuple[Sequence[Parameter], Callable[[Net, Var | None], Var | None]]

OPTIMIZER = "optimizer"


@dataclass
class _Pass:
    """One microbatch in one part: its net, where each unit's backwards begin, and the ends of its graph."""

    net: Net
    marks: list[int] = field(default_factory=list)
    entry: Slot | None = None
    exit_slot: Slot | None = None


class TrainingStep:
    """Records a step.

    Parameters
    ----------
    plan : resolved and checked.
    sink : what receives the Program.

    Attributes
    ----------
    losses : log-sum-exp and target logit of the tokens of each microbatch.
    """

    def __init__(self, plan: Plan, sink: Sink) -> None:
        self.plan, self._ranks, self._tell = plan, Ranks(plan, sink), tell_units(sink)
        self.r, context = self._ranks.r, self._ranks.context
        maker, options = WeightMaker(plan.shape, context.parallel, plan.dtype, fp8=plan.options.fp8), plan.options
        self.model = Model(context, maker, options.loss_chunks, options.parsed_method, options.ep)
        on_host = options.offloads("optimizer")
        self.store = ParameterStore(self.r, plan.grid, options.zero, options.optimizer, on_host=on_host)
        self.losses: list[Rows] = []
        self._microbatch = 0
        self._log_probability: Tensor | None = None
        self._passes: dict[tuple[int, int], _Pass] = {}
        self._activations: dict[tuple[int, int], Tensor] = {}
        self._made: dict[Task, Tensor] = {}
        self._gradients: dict[tuple[int, int], Tensor] = {}
        self._reference = reference_of(self.model, self.plan, self._ranks, self.store)

    def record(self) -> None:
        """Record everything."""
        stages, options = self.plan.grid.pp, self.plan.options
        units = [self._units(part) for part in range(self.plan.parts)]
        for part, each in enumerate(units):
            self._ranks.on(part % stages)
            for number, (weights, _) in enumerate(each):
                self._begin("hold", part, number)
                self.store.hold(weights)
        for part, kind, microbatch in one_forward_one_backward(stages, options.microbatches, options.virtual_stages):
            if kind in SEND.values():
                self._send(part, kind, microbatch)
            elif kind == BACKWARD:
                self._backward(part, microbatch, units[part])
            else:
                self._forward(part, microbatch, units[part])
        self.r.phase = OPTIMIZER
        self._ranks.on(*range(stages))
        begin = partial(self._begin, OPTIMIZER, 0) if len(units) == 1 else None
        for stage in range(stages):
            self._ranks.on(stage)
            self.store.step_units([weights for part in units[stage::stages] for weights, _ in part], begin)
        self._tell("close", None)
        outputs = {f"{name} {index}": tensor for index, rows in enumerate(self.losses)
                   for name, tensor in zip(("lse", "target"), rows, strict=True)}  # fmt: skip
        self.r.close(outputs | self.store.updated)

    # -- units -------------------------------------------------------------------------------------------------------

    def _units(self, part: int) -> list[Unit]:
        model, parts = self.model, self.plan.parts
        units: list[Unit] = []
        if part == 0:
            units.append(([model.ends["embed_tokens"]], self._embed))
        layers = model.stage_layers(part, parts)
        units += [(list(model.layers[index].values()), self._layer(index, index == layers[-1])) for index in layers]
        if part == parts - 1:
            units.append(([model.ends["norm"], model.ends["lm_head"]], self._loss))
        return units

    def _begin(self, section: str, part: int, number: int) -> None:
        """Tell of a unit of a part."""
        layers = self.model.stage_layers(part, self.plan.parts)
        layer = layers[0] + number - (part == 0)
        self._tell(f"{section} {part}", layer if layer in layers else None)

    def _embed(self, net: Net, _: Var | None) -> Var:
        return self.model.embed(net, self._ranks.ids("ids", self._microbatch))

    def _layer(self, index: int, last: bool) -> Callable[[Net, Var | None], Var]:
        def run(net: Net, x: Var | None) -> Var:
            assert x is not None

            def region(entry: Var, kept: Kept | None) -> Var:
                return self.model.layer(net, index, entry, kept)

            return checkpoint(net, region, x, self.plan.options.checkpoint, stays=last)

        return run

    def _loss(self, net: Net, x: Var | None) -> None:
        assert x is not None
        method, labels = self.plan.options.parsed_method, self._ranks.ids("labels", self._microbatch)
        if method.answers > 1:
            head, parallel = self.model.ends["lm_head"], self.model.context.parallel
            size = self.plan.batch, self.plan.seq_len
            x, reference = self.model.entered(net, x), self._log_probability
            self.losses.append(preference_loss(net, parallel, x, head, labels, method, reference, *size))
            return
        scale = 1 / (self.plan.batch * self.plan.seq_len)
        self.losses += self.model.loss(net, x, labels, scale)

    # -- passes ------------------------------------------------------------------------------------------------------

    def _forward(self, part: int, microbatch: int, units: Sequence[Unit]) -> None:
        self._microbatch, self.r.phase = microbatch, "forward"
        run = self._passes[part, microbatch] = _Pass(Net(self.r, training=True))
        run.net.stash = Stash(self.r) if self.plan.options.offloads("activations") else None
        self._log_probability = self._reference(microbatch) if self._reference else None
        x = Var(self._activations.pop((part, microbatch)), Slot()) if part else None
        run.entry = x.slot if x else None
        self._ranks.on(part % self.plan.grid.pp)
        self._tell(f"begin forward {part}.{microbatch}", None)
        self.store.gather(units[0][0])
        for number, (weights, unit) in enumerate(units):
            self._begin(f"forward {microbatch} of", part, number)
            if number + 1 < len(units):
                self.store.gather(units[number + 1][0])
            run.marks.append(run.net.mark())
            x = unit(run.net, x)
            if number + 1 < len(units):
                self.store.free(weights)
        run.exit_slot, run.net.last_cast = x.slot if x else None, None
        if x is not None and part < self.plan.parts - 1:
            self._made[part, FORWARD, microbatch] = x.tensor

    def _backward(self, part: int, microbatch: int, units: Sequence[Unit]) -> None:
        self.r.phase = "backward"
        run = self._passes.pop((part, microbatch))
        if part < self.plan.parts - 1:
            assert run.exit_slot is not None
            run.exit_slot.grad = self._gradients.pop((part, microbatch))
        self._ranks.on(part % self.plan.grid.pp)
        last = microbatch == self.plan.options.microbatches - 1
        self._tell(f"begin backward {part}.{microbatch}", None)
        self.store.gather(units[-1][0])
        for number in reversed(range(len(units))):
            self._begin(f"backward {microbatch} of", part, number)
            weights = units[number][0]
            if number:
                self.store.gather(units[number - 1][0])
            run.net.backward(run.marks[number])
            self.store.free(weights, done=last)
            self.store.reduce(weights, last=last)
        if part > 0:
            assert run.entry is not None
            self._made[part, BACKWARD, microbatch] = run.entry.take()

    def _send(self, part: int, kind: str, microbatch: int) -> None:
        """What a task has made, to the stage of the part that goes on with it."""
        if kind == SEND[FORWARD]:
            self.r.phase = "forward"
            made = self._made.pop((part, FORWARD, microbatch))
            self._activations[part + 1, microbatch] = self._ranks.pass_on(made, part, part + 1)
        else:
            self.r.phase = "backward"
            made = self._made.pop((part, BACKWARD, microbatch))
            self._gradients[part - 1, microbatch] = self._ranks.pass_on(made, part, part - 1)


def record_training_step(plan: Plan, sink: Sink) -> None:
    """Record a training step of a plan.

    Raises
    ------
    InputError
        Where the plan cannot run.
    """
    plan.check(training=True)
    TrainingStep(plan.resolved(), sink).record()
