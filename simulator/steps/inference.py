"""Prefill and decode of a model.

    prefill   a prompt through all layers, under any schedule; every rank keeps the rows of its tokens (keys and
              values, or latents). In chunks of c tokens, each attends to what the chunks before left in the caches,
              so that activations are those of c tokens; a cached prefix is a first chunk that is there already
    decode    one token of each sequence, or several one after the other, at the end of a context whose rows lie spread
              over the ranks: from the number of the last token to that of the next, which the first stage has again

Schedules that approximate a context (APB, Star) process the query once more after the prompt, exactly, with the keys
of all ranks: prefill of theirs ends when that has ended. Pipeline stages pass microbatches and chunks on, one after
the other; data parallel ranks are replicas that serve other sequences. Weights are replicated over context and data
parallel ranks. Decoding is launched kernel by kernel, as PyTorch does, unless as a CUDA graph (`graphs`). Two
microbatches can be computed in turn, so that messages of one are beside kernels of the other (`turns`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

from simulator.layers.cache import KvCache, Prompt
from simulator.layers.layer import Context
from simulator.layers.model import Model
from simulator.layers.net import Net, Var
from simulator.layers.sampling import best_word
from simulator.layers.tensor_parallel import TensorParallel
from simulator.layers.turns import Steps, in_turn
from simulator.layers.weights import WeightMaker
from simulator.program.partition import Layout
from simulator.program.tape import Sink, Tensor
from simulator.program.units import tell_units
from simulator.steps.caches import Caches
from simulator.steps.graphs import Graphed
from simulator.steps.parameters import ParameterStore
from simulator.steps.plan import Plan
from simulator.steps.ranks import Ranks
from simulator.steps.serving import check_pass

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
        self.plan, self._ranks, self._tell = plan, Ranks(plan, sink), tell_units(sink)
        self.r, context = self._ranks.r, replace(self._ranks.context, absorbed=plan.options.mla == "absorbed")
        self.net = Net(self.r, training=False)
        maker, options = WeightMaker(plan.shape, context.parallel, plan.dtype, fp8=plan.options.fp8), plan.options
        self.model = Model(context, maker, None, options.parsed_method, options.ep)
        whole = TensorParallel(plan.grid, version=1)
        absorbed, routing = plan.options.mla != "expanded", partial(self._ranks.routing, replicated=True)
        on_all = replace(context, parallel=whole, absorbed=absorbed, routing=routing)
        self._on_all = replace_context(self.model, on_all)
        self.store = ParameterStore(self.r, plan.grid, 0, None)
        self._stages = [self.model.stage_layers(stage, plan.grid.pp) for stage in range(plan.grid.pp)]
        self._caches = Caches(plan, self._ranks)
        self.outputs: dict[str, Tensor] = {}
        self._passes = 0

    def prefill(self) -> None:
        """Record prefill of all microbatches."""
        self._hold_weights()
        caches: list[list[KvCache]] = []
        for group in self._groups():
            caches += self._prompts(group)
            if self.plan.schedule.asks_again:
                query = min(QUERY_TOKENS, self.plan.seq_len // self.plan.grid.cp)
                self._query(group, caches[-len(group) :], query)
        self._close(caches)

    def decode(self) -> None:
        """Record new tokens of every sequence."""
        self._hold_weights()
        count, options = self.plan.options.microbatches, self.plan.options
        caches = [self._caches.holding(index, self._stages) for index in range(count)]
        self._ranks.on(0)
        ids = [self._last_ids(index, 1) for index in range(count)]
        for token in range(options.new_tokens):
            groups = self._groups()
            for number in self.r.steps(len(groups)):
                group, end = groups[number], self.plan.seq_len - options.new_tokens + token + 1
                logits = self._new_tokens(ids[group.start : group.stop], caches[group.start : group.stop], end - 1, end)
                for microbatch in group:
                    self.outputs[f"logits {microbatch}"] = logits.pop(0)
                    ids[microbatch] = self._next_ids(self.outputs[f"logits {microbatch}"])
                    self.outputs[f"ids {microbatch}"] = ids[microbatch]
        self._close(caches)

    def _groups(self) -> list[range]:
        """Microbatches that are computed in turn: one, or two that hide each other's communication."""
        count = 2 if self.plan.options.overlap_microbatches else 1
        return [range(first, first + count) for first in range(0, self.plan.options.microbatches, count)]

    def _hold_weights(self) -> None:
        model, last = self.model, len(self._stages) - 1
        for stage, layers in enumerate(self._stages):
            self._ranks.on(stage)
            for index in layers:
                self._tell(f"hold {stage}", index)
                held = list(model.layers[index].values())
                for each in held:
                    each.bits = 8.0 if each.fp8 else self.plan.options.weight_bits if each.rows > 1 else each.bits
                self.store.hold(held)
            self._tell(f"hold {stage}", None)
            ends = [model.ends["embed_tokens"]] if stage == 0 else []
            self.store.hold(ends + ([model.ends["norm"], model.ends["lm_head"]] if stage == last else []))

    def _prompts(self, group: range) -> list[list[KvCache]]:
        plan = self.plan
        cached = plan.options.cached_prefix is not None
        prompt = Prompt(plan.schedule, plan.chunks, cached) if plan.options.chunked else None
        caches = [self._caches.empty(microbatch, self._stages, prompt) for microbatch in group]
        for index in range(int(prompt.cached), len(prompt.chunks)) if prompt else [0]:
            for cache in chain(*caches):
                cache.index = index
            self._chunk(group, caches, prompt, index)
        return caches

    def _chunk(self, group: range, caches: Sequence[list[KvCache]], prompt: Prompt | None, index: int) -> None:
        """A chunk of the prompts, or all of them; logits come after the last."""
        model, home = self.model, self._ranks.context.home
        if prompt is not None:
            chunk = prompt.chunks[index]
            home = Layout.home(chunk.shifted(self.plan.schedule.input_partition(chunk.setup)))
            model = replace_context(model, replace(model.context, home=home))
        self._ranks.on(0)
        entries = [model.embed(self.net, self._ranks.ids("ids", microbatch, home)) for microbatch in group]
        exits = self._through(model, entries, caches)
        while exits and (prompt is None or index == len(prompt.chunks) - 1):
            self.outputs[f"logits {len(self.outputs)}"] = model.last_logits(self.net, exits.pop(0))

    def _query(self, group: range, caches: Sequence[list[KvCache]], tokens: int) -> None:
        """The last tokens of the prompts once more."""
        self._ranks.on(0)
        end, ids = self.plan.seq_len, [self._last_ids(microbatch, tokens) for microbatch in group]
        for logits in self._new_tokens(ids, caches, end - tokens, end):
            self.outputs[f"logits {len(self.outputs)}"] = logits

    def _last_ids(self, microbatch: int, tokens: int) -> Tensor:
        """Numbers of tokens at the end of the context, the same on all ranks of a context parallel group."""
        rows = (self._ranks.sequences(microbatch),)
        return self.r.tensor("last ids", None, 1, 1, "int64", tokens=tokens, is_input=True, slices=rows)

    def _new_tokens(
        self, ids: Sequence[Tensor], caches: Sequence[list[KvCache]], start: int, end: int
    ) -> list[Tensor]:  # fmt: skip
        """Logits after some tokens of the context, on the last stage, of microbatches computed in turn."""
        for cache in chain(*caches):
            cache.positions, cache.missing, cache.prompt = (start, end), self.plan.seq_len - end, None
        model = self._on_all
        self._ranks.on(0)
        exits = self._through(model, [model.embed(self.net, each) for each in ids], caches)
        return [model.last_logits(self.net, x) for x in exits]

    def _next_ids(self, logits: Tensor) -> Tensor:
        """Numbers of the most likely words, where the next tokens are computed: on the first stage."""
        ids = best_word(self.net, self._on_all.context.parallel, logits)
        last = len(self._stages) - 1
        return self._ranks.send(ids, last, 0) if last else ids

    def _through(self, model: Model, entries: list[Var], caches: Sequence[list[KvCache]]) -> list[Var]:
        """All layers, stage after stage; gives up the entries."""
        for stage, layers in enumerate(self._stages):
            if stage:
                entries = [Var(self._ranks.send(x.tensor, stage - 1, stage), None) for x in entries]
            self._ranks.on(stage)
            own = [each[layers.start : layers.stop] for each in caches]
            streams = [self._layers(model, layers, entries.pop(0), each) for each in own]
            entries = in_turn(streams)
        return entries

    def _layers(self, model: Model, layers: range, x: Var, caches: Sequence[KvCache]) -> Steps:
        """Layers of a stage on a microbatch."""
        self._passes += 1
        section = f"pass {self._passes}"
        for index, cache in zip(layers, caches, strict=True):
            self._tell(section, index)
            x = yield from model.layer_in_steps(self.net, index, x, cache)
        self._tell(section, None)
        return x

    def _close(self, caches: list[list[KvCache]]) -> None:
        outputs, names = dict(self.outputs), ("latents",) if self.plan.shape.mla else ("keys", "values")
        for microbatch, cache in enumerate(caches):
            for index, each in enumerate(cache):
                rows = zip(names, each.rows, strict=True)
                outputs |= {f"{name} {microbatch}.{index}": tensor for name, tensor in rows}
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
    check_pass(plan, "prefill")
    InferenceStep(plan.resolved(), sink).prefill()


def record_decode(plan: Plan, sink: Sink) -> None:
    """Record the decoding of new tokens of every sequence.

    Raises
    ------
    InputError
        Where the plan cannot run.
    """
    plan.check(training=False)
    check_pass(plan, "decode")
    InferenceStep(plan.resolved(), Graphed(sink, plan.ranks) if plan.options.cuda_graphs else sink).decode()
