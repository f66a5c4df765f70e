"""Closed forms of PPO, agents, memory experts and pruning against the facts' figures and each other."""

from __future__ import annotations

import pytest

from cost_models.finetuning.formulas import linear_flop
from cost_models.finetuning.rollouts import (
    Agents,
    forward_flop,
    memory_expert_flop,
    memory_expert_weights,
    mixture_of_agents,
    ppo_flop,
    prune,
)
from cost_models.models import ModelShape, load_model
from traces.errors import InputError

LLAMA = load_model("llama-3.1-8b")
TINY = ModelShape("tiny", 1, 8, 1, 1, 8, 8, 8, 8)


def test_ppo_phases() -> None:
    """Without attention, equal sizes: generation 2, scoring 8, training 12 of Psi n; 9 % is generation."""
    phases = ppo_flop(LLAMA, LLAMA, 8, 8)
    assert phases.scoring / phases.generation == 4
    assert phases.training / phases.generation == pytest.approx(6, rel=1e-3)
    assert phases.generation_share == pytest.approx(1 / 11, rel=1e-3)
    assert ppo_flop(LLAMA, LLAMA, 8, 8, epochs=2).training == 2 * phases.training


def test_ppo_with_a_small_critic() -> None:
    """2 / (2 + 2 + 6 ...) = 20 % is DeepSpeed-Chat's figure, which counts one model's scoring and training."""
    phases = ppo_flop(LLAMA, TINY, 128, 128)
    assert phases.generation_share == pytest.approx(1 / 6, rel=0.01), "actor: 2 generate, 4 score (twice), 6 train"


def test_agents() -> None:
    assert mixture_of_agents(1, 6, 50, 10) == Agents(50, 10, 50, 10), "one agent alone"
    two = mixture_of_agents(2, 6, 50, 10)
    assert (two.read, two.written) == (6 * 50 + 50 + 60, 70)
    with pytest.raises(InputError, match="layers and agents"):
        mixture_of_agents(0, 1, 1, 1)


def test_memory_experts() -> None:
    assert memory_expert_flop(LLAMA, 10, 4, 8) == 4 * memory_expert_flop(LLAMA, 10, 1, 8)
    assert memory_expert_weights(LLAMA, 1, 16) == 41_943_040, "one expert is a LoRA of all matrices"


def test_pruning() -> None:
    half = prune(LLAMA, heads=0.5, neurons=0.5)
    assert (half.heads, half.kv_heads, half.intermediate) == (16, 4, 7168)
    assert linear_flop(half, 100) * 2 == linear_flop(LLAMA, 100)
    assert forward_flop(half, 100) < forward_flop(LLAMA, 100)
    with pytest.raises(InputError, match="whole ones"):
        prune(LLAMA, heads=0.3)
