"""Prefill and decode of a model.

    prefill   all tokens through all layers, under any schedule; every rank keeps the keys and values of its tokens
    decode    one token of each sequence, at the end of a context whose keys and values lie spread over the ranks

Schedules that approximate (APB, Star) process the query once more after the prompt, exactly, attending to the keys of
all ranks: prefill of theirs ends when that has ended. Pipeline stages pass microbatches on, one after the other; data
parallel ranks are replicas that serve other sequences. Weights are replicated over context and data parallel ranks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulator.layers.cache import KvCache
from simulator.layers.layer import Context
from simulator.layers.linear import embed
from simulator.layers.model import Model
from simulator.layers.net import Net, Var
from simulator.layers.tensor_parallel import TensorParallel
from simulator.layers.weights import WeightMaker
from simulator.program.partition import Layout
from simulator.program.partitioners import build_partition
from simulator.program.tape import Sink, Tensor
from simulator.steps.parameters import ParameterStore
from simulator.steps.plan import Plan
from simulator.steps.ranks import Ranks

QUERY_TOKENS = 50
"""Tokens of the query that approximate schedules process again (the authors' scripts of APB take the last 50)."""


class InferenceStep:
    """Records prefill or decode.

    Parameters
    ----------
    plan : resolved and checked.
    sink : what receives the Program.
    """

    def __init__(self, plan: Plan, sink: Sink) -> None:
        self.plan, self._ranks = plan, Ranks(plan, sink)
        self.r, context = self._ranks.r, self._ranks.context
        self.net = Net(self.r, training=False)
        maker, options = WeightMaker(plan.shape, context.parallel, plan.dtype), plan.options
        self.model = Model(context, maker, None, options.parsed_method, options.ep)
        whole = replace(context, parallel=TensorParallel(plan.grid, version=1))
        self._on_all = replace_context(self.model, whole)
        self.store = ParameterStore(self.r, plan.grid, 0, None)
        self._stages = plan.grid.pp
        self.logits: list[Tensor] = []
        self._unused: list[Tensor] = []

    def prefill(self) -> None:
        """Record prefill of all microbatches."""
        self._hold_weights()
        caches = []
        for microbatch in range(self.plan.options.microbatches):
            caches.append(self._prompt(microbatch))
            if not self.plan.schedule.exact:
                self._new_tokens(microbatch, caches[-1], min(QUERY_TOKENS, self.plan.seq_len // self.plan.grid.cp))
        self._close(caches)

    def decode(self) -> None:
        """Record one token of every sequence."""
        self._hold_weights()
        caches = [self._context_cache(index) for index in range(self.plan.options.microbatches)]
        for microbatch, cache in enumerate(caches):
            self._new_tokens(microbatch, cache, 1)
        self._close(caches)

    def _hold_weights(self) -> None:
        model = self.model
        for stage in range(self._stages):
            self._ranks.on(stage)
            units = [model.layers[index] for index in model.stage_layers(stage, self._stages)]
            held = [each for unit in units for each in unit.values()]
            for each in held:
                each.bits = self.plan.options.weight_bits if each.rows > 1 and each.planes == 1 else each.bits
            held += [model.ends["embed_tokens"]] if stage == 0 else []
            held += [model.ends["norm"], model.ends["lm_head"]] if stage == self._stages - 1 else []
            self.store.hold(held)

    def _prompt(self, microbatch: int) -> list[KvCache]:
        caches = [KvCache() for _ in self.model.layers]
        self._ranks.on(0)
        x = self.model.embed(self.net, self._ranks.ids("ids", microbatch))
        x = self._through(self.model, x, caches)
        self.logits.append(self.model.last_logits(self.net, x))
        return caches

    def _new_tokens(self, microbatch: int, caches: list[KvCache], tokens: int) -> None:
        """Tokens at the end of the context, the same on all ranks of a context parallel group."""
        end, model = self.plan.seq_len, self._on_all
        for cache in caches:
            cache.positions = end - tokens, end
        self._ranks.on(0)
        rows = (self._ranks.sequences(microbatch),)
        ids = self.r.tensor("last ids", None, 1, 1, "int64", tokens=tokens, is_input=True, slices=rows)
        table = model.ends["embed_tokens"]
        offset = self.plan.grid.coordinate("tp") * table.rows
        x = model.context.parallel.leave(self.net, embed(self.net, ids, table, self.plan.shape.hidden, offset))
        x = self._through(model, x, caches)
        self.logits.append(model.last_logits(self.net, x))

    def _through(self, model: Model, x: Var, caches: list[KvCache]) -> Var:
        """All layers, stage after stage."""
        for stage in range(self._stages):
            if stage:
                x = Var(self._ranks.send(x.tensor, stage - 1, stage), None)
            self._ranks.on(stage)
            for index in model.stage_layers(stage, self._stages):
                x = model.layer(self.net, index, x, cache=caches[index])
        return x

    def _context_cache(self, microbatch: int) -> list[KvCache]:
        """Caches that hold a whole context already."""
        workload, caches = self.plan.setup.workload, []
        layout = Layout.home(build_partition("contiguous", self.plan.seq_len, self.plan.grid.cp))
        slices = (self._ranks.sequences(microbatch), self._ranks.heads(workload.kv_heads))
        for stage in range(self._stages):
            self._ranks.on(stage)
            for index in self.model.stage_layers(stage, self._stages):
                keys, values = [
                    self.r.tensor(f"{name} {index}", layout, workload.kv_heads, dim, self.plan.dtype, is_input=True,
                                  slices=slices)
                    for name, dim in (("keys", workload.head_dim), ("values", workload.v_head_dim))
                ]  # fmt: skip
                caches.append(KvCache(keys, values))
                self._unused += self._rest_of_pages(keys, values)
        return caches

    def _rest_of_pages(self, *cached: Tensor) -> list[Tensor]:
        """What is allocated and holds nothing: the end of every sequence's last page."""
        block, found = self.plan.options.kv_block or 1, []
        for each in cached:
            b = each.buffer
            rest = -np.asarray(b.tokens) % block
            if rest.any():
                found.append(self.r.tensor(f"{b.name}, unused", None, b.heads, b.dim, b.dtype, tokens=int(rest.max()),
                                           batch=b.batch))  # fmt: skip
        return found

    def _close(self, caches: list[list[KvCache]]) -> None:
        outputs = {f"logits {index}": tensor for index, tensor in enumerate(self.logits)}
        for microbatch, cache in enumerate(caches):
            for index, each in enumerate(cache):
                assert each.keys is not None and each.values is not None
                outputs |= {f"keys {microbatch}.{index}": each.keys, f"values {microbatch}.{index}": each.values}
        self.r.close(outputs)


def replace_context(model: Model, context: Context) -> Model:
    """The same weights in another context."""
    other = Model(context, model.maker, None, model.method, model.experts_over)
    other.layers, other.ends = model.layers, model.ends
    return other


def record_prefill(plan: Plan, sink: Sink) -> None:
    """Record prefill of a plan.

    Raises
    ------
    InputError
        Where the plan cannot run.
    """
    plan.check(training=False)
    InferenceStep(plan.resolved(), sink).prefill()


def record_decode(plan: Plan, sink: Sink) -> None:
    """Record the decoding of one token of every sequence.

    Raises
    ------
    InputError
        Where the plan cannot run.
    """
    plan.check(training=False)
    InferenceStep(plan.resolved(), sink).decode()
