"""Reference log-probabilities of preference training: by a second, frozen model, or by the policy without its adapters.

Forward only, on the same tokens: no gradients, no checkpointing; activations are gone when a layer is done. A second
model takes 2 bytes per weight (an N-th of it with zero 3, gathered layer by layer).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cost_models.finetuning import Dpo, FullFineTuning
from simulator.layers.model import Model
from simulator.layers.net import Net
from simulator.layers.preference import sequence_log_probability
from simulator.program.tape import Tensor
from simulator.steps.parameters import ParameterStore
from simulator.steps.plan import Plan
from simulator.steps.ranks import Ranks

ADDED = (".lora_a", ".lora_b", ".length")


def reference_of(
    policy: Model, plan: Plan, ranks: Ranks, store: ParameterStore
) -> Callable[[int], Tensor] | None:  # fmt: skip
    """What gives a microbatch's reference log-probabilities; None where the method needs none."""
    method = plan.options.parsed_method
    if not isinstance(method, Dpo):
        return None
    if method.where == "stored":
        rows = ranks.sequences
        return lambda microbatch: ranks.r.tensor(
            "reference", None, 1, 1, "fp32", tokens=1, is_input=True, slices=(rows(microbatch),)
        )
    model = _without_adapters(policy) if method.where == "adapters" else _frozen(policy)
    if method.where == "model":
        units = [model.ends, *model.layers]
        store.hold([each for unit in units for each in unit.values()])
    return lambda microbatch: _log_probability(model, ranks, store, microbatch)


def _frozen(policy: Model) -> Model:
    model = Model(
        policy.context, replace(policy.maker, prefix="reference."), None, FullFineTuning(), policy.experts_over
    )
    for unit in (model.ends, *model.layers):
        for each in unit.values():
            each.trainable = False
    return model


def _without_adapters(policy: Model) -> Model:
    model = Model(policy.context, policy.maker, None, FullFineTuning(), policy.experts_over)
    model.ends = policy.ends
    model.layers = [{name: each for name, each in layer.items() if not name.endswith(ADDED)} for layer in policy.layers]
    return model


def _log_probability(model: Model, ranks: Ranks, store: ParameterStore, microbatch: int) -> Tensor:
    """Log-probability of each sequence, without gradients."""
    net, ends = Net(ranks.r, training=False), model.ends
    store.gather([ends["embed_tokens"]])
    x = model.embed(net, ranks.ids("ids", microbatch))
    store.free([ends["embed_tokens"]])
    units = [list(layer.values()) for layer in model.layers] + [[ends["norm"], ends["lm_head"]]]
    store.gather(units[0])
    for index, unit in enumerate(units[:-1]):
        store.gather(units[index + 1])
        x = model.layer(net, index, x)
        store.free(unit)
    labels, head = ranks.ids("labels", microbatch), ends["lm_head"]
    x = model.entered(net, x)
    total = sequence_log_probability(net, model.context.parallel, x, head, labels)[0]
    store.free(units[-1])
    return total
