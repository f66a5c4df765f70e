"""What a training step takes in memory at least, in closed form: no schedule is recorded.

    state       weights and optimizer states of a stage, as `ParameterStore` holds them before a step
    kept        what a layer keeps of a microbatch for its backward, of a rank's own tokens
    logits      and their gradient, T V e bytes each, where the loss is not fused

    least = max(state + layers x in flight x kept         first stage, all its microbatches in flight (`in_flight`)
                state + layers x kept + logits)           last stage, when its loss has its gradient

`kept` is recorded with one context parallel rank that has a rank's tokens: every schedule keeps at least the shards of
Q, K, V, O and LSE that it is given and gives. Weights gathered for use, receive buffers and gradients come on top. Of
models with experts, whose tokens move, only the state counts.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from cost_models.masks import parse_mask
from cost_models.units import DTYPE_BYTES
from simulator.engines.memory import Memory
from simulator.layers.checkpoint import checkpoint
from simulator.layers.core import Kept
from simulator.layers.model import Model
from simulator.layers.net import Net, Slot, Var
from simulator.layers.weights import WeightMaker
from simulator.schedules.flash import Flash
from simulator.steps.parameters import ParameterStore
from simulator.steps.pipeline import in_flight
from simulator.steps.plan import Plan
from simulator.steps.ranks import Ranks

FIRST, LAST = "first", "last"
FULL = parse_mask("full", 1)


def least_memory_bytes(plan: Plan) -> int:
    """Bytes that the fullest rank needs at least in a training step.

    Parameters
    ----------
    plan : resolved or not; its schedule does not matter.
    """
    options, layers = plan.options, plan.shape.layers // plan.grid.pp
    parts = in_flight(0, plan.grid.pp, options.microbatches, options.virtual_stages)
    held = _held(plan)
    states = {place: [_state_bytes(held, count, place) for count in (1, 2)] for place in (FIRST, LAST)}
    state = {place: one + (layers - 1) * (two - one) for place, (one, two) in states.items()}
    if plan.shape.moe:
        return max(state.values())
    kept = layers * _kept_bytes(_alone(plan))
    return max(state[FIRST] + parts * kept // options.virtual_stages, state[LAST] + kept + _logits_bytes(plan))


def _held(plan: Plan) -> Plan:
    """The same weights on the same ranks, whatever is computed with them."""
    options = replace(plan.options, checkpoint="none", microbatches=1)
    return replace(plan, schedule=Flash(), batch=plan.grid.dp, seq_len=plan.grid.cp, mask=FULL, options=options)


def _alone(plan: Plan) -> Plan:
    """One context parallel group of one rank, with the tokens of one rank."""
    tokens, tp = plan.seq_len // plan.grid.cp, plan.grid.tp
    options = replace(plan.options, dp=1, pp=1, zero=0, microbatches=1)
    return replace(
        plan, schedule=Flash(), batch=plan.micro_batch, seq_len=tokens, mask=FULL, ranks=tp, ranks_per_node=tp,
        options=options,
    )  # fmt: skip


def _logits_bytes(plan: Plan) -> int:
    if plan.options.loss_chunks or plan.options.parsed_method.answers > 1:
        return 0
    tokens = plan.seq_len // plan.grid.cp * plan.sequences
    return 2 * tokens * (plan.shape.vocab // plan.grid.tp) * DTYPE_BYTES[plan.dtype]


@lru_cache(maxsize=1024)
def _state_bytes(plan: Plan, layers: int, place: str) -> int:
    """Of the first or last of several stages, or of the only one, with so many layers."""
    stages, plan = plan.grid.pp, _with_layers(plan, layers)
    ranks = Ranks(plan, memory := Memory(plan.ranks))
    model = _model(plan, ranks)
    store = ParameterStore(ranks.r, plan.grid, plan.options.zero, plan.options.optimizer)
    units = [list(each.values()) for each in model.layers]
    if place == FIRST or stages == 1:
        units.append([model.ends["embed_tokens"]])
    if place == LAST or stages == 1:
        units.append([model.ends["norm"], model.ends["lm_head"]])
    for unit in units:
        store.hold(unit)
    return int(memory.peak_bytes.max())


@lru_cache(maxsize=1024)
def _kept_bytes(plan: Plan) -> int:
    """Of one layer, for the backward of one microbatch; what a second layer adds to a first."""
    plan = _with_layers(plan, 3)
    ranks = Ranks(plan, memory := _InUse(plan.ranks))
    model = _model(plan, ranks)
    store = ParameterStore(ranks.r, plan.grid, 0, None)
    for layer in model.layers:
        store.hold(layer.values())
    net = Net(ranks.r, training=True)
    x = Var(ranks.r.tensor("x", ranks.context.home, 1, plan.shape.hidden, plan.dtype), Slot())
    used = []
    for index in range(plan.shape.layers):

        def region(entry: Var, kept: Kept | None, index: int = index) -> Var:
            return model.layer(net, index, entry, kept)

        x = checkpoint(net, region, x, plan.options.checkpoint)
        store.free(model.layers[index].values(), done=True)
        used.append(memory.now_bytes)
    return used[2] - used[1]


def _with_layers(plan: Plan, layers: int) -> Plan:
    return replace(plan, shape=replace(plan.shape, layers=layers, sliding_layers=0))


def _model(plan: Plan, ranks: Ranks) -> Model:
    options = plan.options
    maker = WeightMaker(plan.shape, ranks.context.parallel, plan.dtype, fp8=options.fp8)
    return Model(ranks.context, maker, options.loss_chunks, options.parsed_method, options.ep)


class _InUse(Memory):
    """Memory, of which the present is asked."""

    @property
    def now_bytes(self) -> int:
        """The most in use on any rank."""
        return int(self._now if isinstance(self._now, int) else self._now.max())
