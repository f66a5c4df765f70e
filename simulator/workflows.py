"""What is more than one step: phases one after the other, each a simulation of its own.

| workflow | phases, on a prompt of p tokens |
|---|---|
| ppo | generate: prefill of p, o decodings; score: 4 forwards of n = p + o; train actor and critic, so many epochs |
| agents | layers of agents, each prefill and o decodings; the next layer's prompt has the answers of this one's too |
| memory | a step, and prefill, with the k retrieved experts of rank r of each token as one update of rank k r |

Phases are barriers: their times add up. Agents of a layer run on machines of their own, alike, so a layer takes as long
as one agent. A decoding is priced at the middle of the answer: its time is linear in the context. A forward that scores
is a prefill, whose head looks at the last token only: log-probabilities of all tokens take 2 n hidden vocab FLOP more.

    peak memory = max over phases of (the phase's own peak + what the other models hold meanwhile)

A model that is trained holds weights and optimizer states, one that is not its weights. Of memory experts all E are
held, with their states, and shared by zero as other weights are; only those retrieved have gradients.
Sources: Yao et al. 2023 (DeepSpeed-Chat, arXiv 2308.01320) section 4; Wang et al. 2024 (arXiv 2406.04692); Li et al.
2024 (Lamini memory tuning, arXiv 2406.17642).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cost_models.finetuning.rollouts import memory_expert_weights, mixture_of_agents
from cost_models.models import ModelShape, load_model
from cost_models.spec import Spec, parse_spec
from cost_models.units import parse_count
from simulator.program.operations import Buffer, Operation
from simulator.program.tape import Ignore
from simulator.request import SimulationRequest
from simulator.schedules import parse_schedule
from simulator.simulate import simulate
from simulator.steps.record import subject_of
from traces.errors import InputError

INFERENCE_DEFAULTS: dict[str, Any] = {
    "zero": 0,
    "checkpoint": "none",
    "loss_chunks": None,
    "optimizer": "adamw",
    "offload": "none",
}
"""Options of training that prefill and decode do not have."""


@dataclass(frozen=True)
class Phase:
    """A part of a workflow.

    Attributes
    ----------
    times : how often it runs, one after the other.
    time_s : of one run.
    peak_memory_bytes : its own, and what is held beside it.
    flop : of one run, over all ranks.
    """

    name: str
    times: int
    time_s: float
    peak_memory_bytes: int
    flop: int


@dataclass(frozen=True)
class Workflow:
    """All phases."""

    name: str
    phases: tuple[Phase, ...]
    room_bytes: int

    @property
    def time_s(self) -> float:
        """Of all phases, one after the other."""
        return sum(each.times * each.time_s for each in self.phases)

    @property
    def peak_memory_bytes(self) -> int:
        """Of the phase that needs most."""
        return max(each.peak_memory_bytes for each in self.phases)

    def to_json(self) -> dict[str, Any]:
        """As the command writes it."""
        phases = [{**vars(each)} for each in self.phases]
        fits = self.peak_memory_bytes <= self.room_bytes
        return {"schema_version": 1, "workflow": self.name, "time_s": self.time_s,
                "peak_memory_bytes": self.peak_memory_bytes, "fits": fits, "phases": phases}  # fmt: skip


def run_workflow(spec: str, request: SimulationRequest) -> Workflow:
    """Simulate a workflow; the request's sequence is the prompt, its options are those of every phase.

    Raises
    ------
    InputError
        For an unknown workflow or option, or a phase that cannot run.
    """
    parsed = parse_spec(spec, "workflow")
    if parsed.name not in WORKFLOWS:
        raise InputError("unknown workflow", got=repr(parsed.name), expected="one of " + ", ".join(WORKFLOWS))
    asked = replace(request, layers="model", timeline=False)
    phases = tuple(WORKFLOWS[parsed.name](parsed, asked))
    return Workflow(str(parsed), phases, replace(asked, seq_len=_prompt(asked)).resolve().room_bytes)


def _ppo(spec: Spec, request: SimulationRequest) -> Iterator[Phase]:
    options = _options(spec, answer=1024, epochs=1, critic=None)
    prompt, answer, critic = _prompt(request), options["answer"], options["critic"] or request.model
    whole = prompt + answer
    trained = [replace(request, model=each, seq_len=whole, pass_="step") for each in (request.model, critic)]
    frozen = [_inference(request, "prefill", whole, each) for each in (request.model, critic)]
    states, weights = [held_bytes(each) for each in trained], [held_bytes(each) for each in frozen]
    beside = sum(states) + sum(weights)
    yield from _generation(request, "actor", prompt, answer, beside - weights[0])
    for name, scorer in zip(("actor and reference", "critic and reward"), frozen, strict=True):
        yield _phase(f"score: {name}", scorer, 2, beside - weights[0 if scorer is frozen[0] else 1])
    for name, step, own in zip(("actor", "critic"), trained, states, strict=True):
        yield _phase(f"train: {name}", step, options["epochs"], beside - own)


def _agents(spec: Spec, request: SimulationRequest) -> Iterator[Phase]:
    options = _options(spec, answer=512, layers=3, agents=6)
    prompt, answer, layers, agents = _prompt(request), options["answer"], options["layers"], options["agents"]
    mixture_of_agents(layers, agents, prompt, answer)
    for layer in range(layers):
        read = prompt + (agents * answer if layer else 0)
        yield from _generation(request, f"layer {layer + 1}", read, answer, 0)


def _memory(spec: Spec, request: SimulationRequest) -> Iterator[Phase]:
    options = _options(spec, experts=1024, retrieved=32, rank=8)
    rank, shape = options["retrieved"] * options["rank"], _shape(request.model)
    if options["retrieved"] > options["experts"]:
        raise InputError("more experts are retrieved than there are",
                         got=f"{options['retrieved']} of {options['experts']}")  # fmt: skip
    idle = memory_expert_weights(shape, options["experts"] - options["retrieved"], options["rank"])
    step = replace(request, pass_="step", method=f"lora:rank={rank},targets=all")
    ranks = request.gpus // (request.tp * request.pp)
    weights, states = 2 * idle // (ranks if request.zero == 3 else 1), 12 * idle // (ranks if request.zero else 1)
    yield _phase("step", step, 1, (weights + states) // (request.tp * request.pp))
    served = replace(_inference(request, "prefill", _prompt(request), request.model),
                     method=f"merged:rank={rank},count=1,targets=all")  # fmt: skip
    yield _phase("prefill", served, 1, 2 * idle // (request.tp * request.pp))


WORKFLOWS: Mapping[str, Callable[[Spec, SimulationRequest], Iterator[Phase]]] = {
    "ppo": _ppo, "agents": _agents, "memory": _memory
}  # fmt: skip


def _generation(
    request: SimulationRequest, who: str, prompt: int, answer: int, beside_bytes: int
) -> Iterator[Phase]:  # fmt: skip
    """A prompt is read, and an answer written token by token."""
    yield _phase(f"{who}: prefill", _inference(request, "prefill", prompt, request.model), 1, beside_bytes)
    middle = prompt + -(-answer // 2)
    yield _phase(f"{who}: decode", _inference(request, "decode", middle, request.model), answer, beside_bytes)


def _inference(request: SimulationRequest, pass_: str, seq_len: int, model: Any) -> SimulationRequest:
    """A forward pass, its length rounded up to what ranks share evenly."""
    granule = 2 * request.gpus
    length = -(-seq_len // granule) * granule
    return replace(request, model=model, seq_len=length, pass_=pass_, method="full", **INFERENCE_DEFAULTS)


def _phase(name: str, request: SimulationRequest, times: int, beside_bytes: int) -> Phase:
    result = simulate(request)
    return Phase(name, times, result.time_s, result.peak_memory_bytes + beside_bytes, result.flop_total)


def held_bytes(request: SimulationRequest) -> int:
    """What a rank holds before a pass begins: weights, and optimizer states where it trains."""

    class Held(Ignore):
        started, total = False, 0

        def allocate(self, buffer: Buffer) -> None:
            if not self.started and buffer.is_input and not buffer.on_host and buffer.dtype != "int64":
                self.total += buffer.bytes if isinstance(buffer.bytes, int) else int(buffer.bytes.max())

        def operation(self, operation: Operation) -> None:
            self.started = True

    resolved, held = request.resolve(), Held()
    if resolved.schedule is None:
        raise InputError("no schedule is named", remedy="name a schedule")
    subject_of(parse_schedule(resolved.schedule), resolved).record(held)
    return held.total


def _prompt(request: SimulationRequest) -> int:
    return parse_count(request.seq_len, "seq_len")


def _shape(model: Any) -> ModelShape:
    return model if isinstance(model, ModelShape) else load_model(model)


def _options(spec: Spec, **defaults: Any) -> dict[str, Any]:
    """Whole numbers, and names where the default is None."""
    spec.only(tuple(defaults))
    given = {name: text if defaults[name] is None else parse_count(text, f"{spec.name}: {name}")
             for name, text in spec.options.items()}  # fmt: skip
    return {**defaults, **given}
