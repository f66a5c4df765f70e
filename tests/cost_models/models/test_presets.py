"""Presets against the parameter counts that their publishers state."""

from __future__ import annotations

import pytest

from cost_models.models import PRESET_NAMES, load_model

# Published totals in units of 10^9 (model cards and papers), and exact ones where the card's checkpoint states them.
PUBLISHED_BILLIONS = {
    "llama-2-7b": 6.74,
    "llama-2-13b": 13.0,
    "llama-3.1-8b": 8.03,
    "llama-3.1-70b": 70.6,
    "llama-3.1-405b": 405.9,
    "qwen2.5-14b": 14.8,
    "qwen3-32b": 32.8,
    "yi-34b": 34.4,
    "mixtral-8x7b": 46.7,
    "deepseek-v3": 671.0,
}
EXACT = {"llama-3.1-8b": 8_030_261_248, "llama-3.1-70b": 70_553_706_496, "mixtral-8x7b": 46_702_792_704}


def test_the_contract_names_exactly_these() -> None:
    assert set(PRESET_NAMES) == set(PUBLISHED_BILLIONS)


@pytest.mark.parametrize("name", PUBLISHED_BILLIONS)
def test_parameters_are_the_published_number(name: str) -> None:
    assert load_model(name).n_parameters / 1e9 == pytest.approx(PUBLISHED_BILLIONS[name], rel=0.01)


@pytest.mark.parametrize("name", EXACT)
def test_parameters_are_exact_where_there_are_no_biases(name: str) -> None:
    assert load_model(name).n_parameters == EXACT[name]


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_every_preset_says_where_it_comes_from(name: str) -> None:
    shape = load_model(name)
    assert shape.name == name
    assert "config.json" in shape.source


@pytest.mark.parametrize(
    ("name", "dims"),
    [
        ("llama-2-7b", (32, 32, 128, 128)),
        ("llama-3.1-8b", (32, 8, 128, 128)),
        ("llama-3.1-405b", (128, 8, 128, 128)),
        ("qwen3-32b", (64, 8, 128, 128)),
        ("yi-34b", (56, 8, 128, 128)),
        ("deepseek-v3", (128, 128, 192, 128)),
    ],
)
def test_heads_of_the_attention_core(name: str, dims: tuple[int, ...]) -> None:
    shape = load_model(name)
    assert (shape.heads, shape.kv_heads, shape.head_dim, shape.v_head_dim) == dims


def test_latent_attention_and_experts_of_deepseek() -> None:
    shape = load_model("deepseek-v3")
    assert shape.mla is not None
    assert (shape.mla.q_lora, shape.mla.kv_lora, shape.mla.nope, shape.mla.rope) == (1536, 512, 128, 64)
    assert shape.moe is not None
    assert (shape.moe.experts, shape.moe.top_k, shape.moe.shared, shape.moe.first_dense) == (256, 8, 1, 3)


def test_no_preset_has_a_window_switched_on() -> None:
    assert {load_model(name).sliding_window for name in PRESET_NAMES} == {None}
