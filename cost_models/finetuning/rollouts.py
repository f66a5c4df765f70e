"""Closed forms of what is more than one step: PPO, mixture of agents, memory experts, pruning.

    S(n) = 3 Flin + 3.5 Fatt + 3 Fhead   a training step,   E(n) = Flin + Fatt + Fhead   a forward pass, over all layers

| what | FLOP | bytes |
|---|---|---|
| PPO, n = prompt + answer | E(n) to generate, 4 E(n) to score, 2 epochs S(n) | 16 (actor, critic), 2 (others) |
| mixture of agents, l layers of N | l - 1 prompts of p + N o tokens each | text between agents |
| memory experts, k of rank r | 2 n k r (in + out) per matrix | all experts are held |
| pruning, unstructured | unchanged | unchanged |
| pruning, heads or neurons | as the smaller model | as the smaller model |

Generation reads all weights and the cache for each token: it is bound by memory, everything else by compute. Derived
from the algorithms; PPO as DeepSpeed-Chat runs it (Yao et al. 2023, arXiv 2308.01320), agents as Wang et al. 2024
(arXiv 2406.04692). Simulated workflows (`simulator.workflows`) and pruned models are held to these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cost_models.finetuning.formulas import attention_flop, head_flop, layer_matrices, linear_flop
from cost_models.models import ModelShape
from traces.errors import InputError


def forward_flop(shape: ModelShape, tokens: int) -> int:
    """E(n)."""
    return shape.layers * (linear_flop(shape, tokens) + attention_flop(shape, tokens)) + head_flop(shape, tokens)


def training_flop(shape: ModelShape, tokens: int) -> float:
    """S(n), nothing recomputed."""
    core = shape.layers * attention_flop(shape, tokens)
    return 3 * (shape.layers * linear_flop(shape, tokens) + head_flop(shape, tokens)) + 3.5 * core


@dataclass(frozen=True)
class PpoFlop:
    """Products of one PPO iteration on one prompt, by phase. The phases follow each other."""

    generation: float
    scoring: float
    training: float

    @property
    def generation_share(self) -> float:
        """Of all."""
        return self.generation / (self.generation + self.scoring + self.training)


def ppo_flop(actor: ModelShape, critic: ModelShape, prompt: int, answer: int, epochs: int = 1) -> PpoFlop:
    """Actor and reference are alike, critic and reward model are.

    >>> from cost_models.models import load_model
    >>> shape = load_model("llama-3.1-8b")
    >>> round(ppo_flop(shape, shape, 256, 256).generation_share, 2)
    0.09
    """
    n = prompt + answer
    scoring = 2 * forward_flop(actor, n) + 2 * forward_flop(critic, n)
    training = epochs * (training_flop(actor, n) + training_flop(critic, n))
    return PpoFlop(forward_flop(actor, n), scoring, training)


@dataclass(frozen=True)
class Agents:
    """Tokens that a mixture of agents processes: prompts read and answers written, of all agents, and in a row."""

    read: int
    written: int
    read_in_a_row: int
    written_in_a_row: int


def mixture_of_agents(layers: int, agents: int, prompt: int, answer: int) -> Agents:
    """``layers`` layers, the last with one agent that answers; every other layer's answers are in the next's prompt.

    >>> mixture_of_agents(3, 6, 1000, 100)
    Agents(read=17200, written=1300, read_in_a_row=4200, written_in_a_row=300)
    """
    if layers < 1 or agents < 1:
        raise InputError("a mixture of agents has layers and agents", got=f"{layers} layers, {agents} agents")
    prompts = [prompt] + [prompt + agents * answer] * (layers - 1)
    many = [agents] * (layers - 1) + [1]
    read = sum(count * tokens for count, tokens in zip(many, prompts, strict=True))
    return Agents(read, sum(many) * answer, sum(prompts), layers * answer)


def memory_expert_flop(shape: ModelShape, tokens: int, retrieved: int, rank: int) -> int:
    """Forward products of the retrieved experts in one layer, on all matrices."""
    return 2 * tokens * retrieved * rank * sum(each.out + each.into for each in layer_matrices(shape).values())


def memory_expert_weights(shape: ModelShape, experts: int, rank: int) -> int:
    """Weights of all experts in all layers."""
    return shape.layers * experts * rank * sum(each.out + each.into for each in layer_matrices(shape).values())


def prune(shape: ModelShape, heads: float = 1.0, neurons: float = 1.0) -> ModelShape:
    """The smaller model that keeps a share of heads (whole groups of a KV head) and of hidden features.

    Raises
    ------
    InputError
        Where a share leaves nothing or no whole number of groups.
    """
    kept, wide = shape.kv_heads * heads, shape.intermediate * neurons
    if not (0 < heads <= 1 and 0 < neurons <= 1 and kept == int(kept) and wide == int(wide)):
        raise InputError("a share of heads or neurons does not leave whole ones", got=f"{heads} and {neurons}")
    groups = shape.heads // shape.kv_heads
    return replace(
        shape, name=f"{shape.name}, pruned", kv_heads=int(kept), heads=groups * int(kept), intermediate=int(wide)
    )  # fmt: skip
