"""Closed forms of what is more than one step: PPO, mixture of agents, memory experts, pruning, quantised serving.

    S(n) = 3 Flin + 3.5 Fatt + 3 Fhead   a training step,   E(n) = Flin + Fatt + Fhead   a forward pass, over all layers

| what | FLOP | bytes |
|---|---|---|
| PPO, n = prompt + answer | E(n) to generate, 4 E(n) to score, 2 epochs S(n) | 16 (actor, critic), 2 (others) |
| mixture of agents, l layers of N | l - 1 prompts of p + N o tokens each | text between agents |
| memory experts, k of rank r | 2 n k r (in + out) per matrix | all experts are held |
| pruning, unstructured | unchanged | unchanged |
| pruning, 2:4 | half on sparse tensor cores | 9/16 in bf16: half the elements, 2 bits for each |
| pruning, heads or neurons | as the smaller model | as the smaller model |
| paged KV cache | unchanged | less than a block per sequence is wasted |

Generation reads all weights and the cache for each token: it is bound by memory, everything else by compute. Derived
from the algorithms; PPO as DeepSpeed-Chat runs it (Yao et al. 2023, arXiv 2308.01320), agents as Wang et al. 2024
(arXiv 2406.04692), 2:4 as NVIDIA's sparse tensor cores (Mishra et al. 2021, arXiv 2104.08378), pages as vLLM (Kwon et
al. 2023, arXiv 2309.06180).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cost_models.finetuning.formulas import attention_flop, head_flop, layer_matrices, linear_flop
from cost_models.finetuning.methods import MATRICES
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


def ppo_bytes(actor: ModelShape, critic: ModelShape) -> int:
    """Weights, gradients and states of the four models over all ranks: 16 per trained weight, 2 per frozen one."""
    return 18 * (actor.n_parameters + critic.n_parameters)


def generation_bytes(shape: ModelShape, prompt: int, answer: int, batch: int, kv_bits: int = 16) -> int:
    """What generating reads: weights once per token for the whole batch, and every sequence's cache so far."""
    weights = 2 * shape.n_parameters * answer
    tokens = sum(prompt + step for step in range(1, answer + 1))
    return weights + batch * kv_bytes(shape, tokens, kv_bits)


def kv_bytes(shape: ModelShape, tokens: int, bits: int = 16) -> int:
    """Keys and values of so many tokens in all layers."""
    return shape.layers * shape.kv_heads * (shape.head_dim + shape.v_head_dim) * tokens * bits // 8


def paged_kv_bytes(shape: ModelShape, lengths: list[int], block: int = 16, bits: int = 16) -> tuple[int, int]:
    """Bytes that sequences' pages take, and how many of them hold nothing.

    >>> from cost_models.models import load_model
    >>> used, wasted = paged_kv_bytes(load_model("llama-3.1-8b"), [100, 16, 1])
    >>> used // kv_bytes(load_model("llama-3.1-8b"), 1), wasted // kv_bytes(load_model("llama-3.1-8b"), 1)
    (144, 27)
    """
    pages = sum(-(-length // block) * block for length in lengths)
    return kv_bytes(shape, pages, bits), kv_bytes(shape, pages - sum(lengths), bits)


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
    matrices = layer_matrices(shape)
    return 2 * tokens * retrieved * rank * sum(matrices[name].out + matrices[name].into for name in MATRICES)


def memory_expert_weights(shape: ModelShape, experts: int, rank: int) -> int:
    """Weights of all experts in all layers."""
    matrices = layer_matrices(shape)
    return shape.layers * experts * rank * sum(matrices[name].out + matrices[name].into for name in MATRICES)


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


def sparse_bytes_share(dtype_bits: int = 16) -> float:
    """Bytes of a 2:4 matrix over those of a dense one: two of four elements, and two bits for each of those.

    >>> sparse_bytes_share(16)
    0.5625
    """
    return (2 * dtype_bits + 2 * 2) / (4 * dtype_bits)
