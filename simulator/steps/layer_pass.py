"""One transformer layer: forward, backward or both, with its weights and their gradients in memory."""

from __future__ import annotations

from simulator.layers.build import layer_weights
from simulator.layers.checkpoint import checkpoint
from simulator.layers.core import Kept
from simulator.layers.layer import transformer_layer
from simulator.layers.net import Net, Slot, Var
from simulator.layers.weights import WeightMaker
from simulator.program.operations import Column
from simulator.program.tape import Sink
from simulator.steps.plan import Plan
from simulator.steps.ranks import Ranks
from traces.errors import InputError


def record_layer(plan: Plan, pass_: str, sink: Sink) -> None:
    """Record the first layer of a model, or the first that has experts.

    Raises
    ------
    InputError
        Where the plan cannot run, or parallelises what a layer does not have.
    """
    options = plan.options
    for name in ("dp", "pp", "microbatches"):
        if getattr(options, name) > 1:
            raise InputError(f"{name} does not go with one layer", remedy="ask for layers model")
    plan.check(training=pass_ != "forward")
    plan = plan.resolved()
    ranks = Ranks(plan, sink)
    r, context = ranks.r, ranks.context
    index = plan.shape.moe.first_dense if plan.shape.moe else 0
    maker = WeightMaker(plan.shape, context.parallel, plan.dtype, fp8=options.fp8)
    weights = layer_weights(maker, index, options.ep)
    r.muted = pass_ == "backward"
    for each in weights.values():
        each.tensor = each.new_tensor(r, is_input=True)
    split = context.parallel.splits_tokens
    tokens: Column = context.home.tokens // plan.grid.tp if split else context.home.tokens
    home = None if split else context.home
    tensor = r.tensor("x", home, 1, plan.shape.hidden, plan.dtype, tokens=tokens, is_input=True)
    net, x = Net(r, training=pass_ != "forward"), Var(tensor, Slot() if pass_ != "forward" else None)
    del tensor

    def region(entry: Var, kept: Kept | None) -> Var:
        return transformer_layer(net, context, weights, entry, kept)

    y = checkpoint(net, region, x, options.checkpoint)
    outputs = {"y": y.tensor} if pass_ != "backward" else {}
    if pass_ != "forward":
        assert x.slot is not None and y.slot is not None
        slot, out_slot, like = x.slot, y.slot, y.tensor.buffer
        del x, y
        r.phase, r.step = "backward", 0
        if r.muted:
            r.unmute()
        out_slot.grad = r.tensor("dy", home, 1, like.dim, like.dtype, tokens=like.tokens, is_input=True)
        net.backward()
        outputs["dx"] = slot.take()
        outputs |= {f"d {each.name}": each.grad for each in weights.values() if each.grad is not None}
    r.close(outputs)
