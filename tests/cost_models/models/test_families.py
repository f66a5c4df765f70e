"""Real models of many families: their parameters, within 1 % of what their cards say; others are refused.

Configurations and totals are as published with the models (Hugging Face config.json and model cards), recalled; what
counts is that both were recalled apart, so that a family read wrongly shows.
"""

from __future__ import annotations

import pytest

from cost_models.models.hf_config import parse_hf_config
from simulator.request import SimulationRequest
from simulator.simulate import simulate
from traces.errors import InputError

FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
          "intermediate_size", "vocab_size")  # fmt: skip
LATENT = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}

MODELS = {
    "mistral-7b": ("mistral", (4096, 32, 32, 8, None, 14336, 32000), {}, 7.242),
    "mistral-small-24b": ("mistral", (5120, 40, 32, 8, 128, 32768, 131072), {}, 23.57),
    "qwen2.5-72b": ("qwen2", (8192, 80, 64, 8, None, 29568, 152064), {}, 72.7),
    "qwen3-32b": ("qwen3", (5120, 64, 64, 8, 128, 25600, 151936), {}, 32.8),
    "gemma-7b": ("gemma", (3072, 28, 16, 16, 256, 24576, 256000), {}, 8.538),
    "gemma-2-9b": ("gemma2", (3584, 42, 16, 8, 256, 14336, 256000), {"sliding_window": 4096}, 9.242),
    "gemma-2-27b": ("gemma2", (4608, 46, 32, 16, 128, 36864, 256000), {"sliding_window": 4096}, 27.23),
    "gemma-3-27b": ("gemma3_text", (5376, 62, 32, 16, 128, 21504, 262208),
                    {"sliding_window": 1024, "sliding_window_pattern": 6}, 27.01),
    "phi-3-mini": ("phi3", (3072, 32, 32, 32, None, 8192, 32064), {}, 3.821),
    "phi-4": ("phi3", (5120, 40, 40, 10, None, 17920, 100352), {}, 14.66),
    "phi-2": ("phi", (2560, 32, 32, 32, None, 10240, 51200), {}, 2.780),
    "gpt-neox-20b": ("gpt_neox", (6144, 44, 64, None, None, 24576, 50432), {}, 20.55),
    "pythia-6.9b": ("gpt_neox", (4096, 32, 32, None, None, 16384, 50432), {}, 6.857),
    "starcoder2-15b": ("starcoder2", (6144, 40, 48, 4, None, 24576, 49152), {}, 15.96),
    "command-r": ("cohere", (8192, 40, 64, 64, None, 22528, 256000), {}, 34.98),
    "olmo-2-7b": ("olmo2", (4096, 32, 32, 32, None, 11008, 100352), {}, 7.30),
    "granite-3-8b": ("granite", (4096, 40, 32, 8, None, 12800, 49155), {"tie_word_embeddings": True}, 8.17),
    "internlm2-7b": ("internlm2", (4096, 32, 32, 8, None, 14336, 92544), {}, 7.74),
    "mixtral-8x22b": ("mixtral", (6144, 56, 48, 8, None, 16384, 32768),
                      {"num_local_experts": 8, "num_experts_per_tok": 2}, 140.6),
    "gpt-oss-120b": ("gpt_oss", (2880, 36, 64, 8, 64, 2880, 201088),
                     {"num_local_experts": 128, "num_experts_per_tok": 4}, 116.8),
    "gpt-oss-20b": ("gpt_oss", (2880, 24, 64, 8, 64, 2880, 201088),
                    {"num_local_experts": 32, "num_experts_per_tok": 4}, 20.9),
    "qwen3-30b-a3b": ("qwen3_moe", (2048, 48, 32, 4, 128, 6144, 151936),
                      {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}, 30.53),
    "qwen3-235b-a22b": ("qwen3_moe", (4096, 94, 64, 4, 128, 12288, 151936),
                        {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 1536}, 235.1),
    "qwen2-57b-a14b": ("qwen2_moe", (3584, 28, 28, 4, None, 18944, 151936),
                       {"num_experts": 64, "num_experts_per_tok": 8, "moe_intermediate_size": 2560,
                        "shared_expert_intermediate_size": 20480}, 57.4),
    "deepseek-v2": ("deepseek_v2", (5120, 60, 128, 128, None, 12288, 102400),
                    {"q_lora_rank": 1536, "n_routed_experts": 160, "num_experts_per_tok": 6, "n_shared_experts": 2,
                     "moe_intermediate_size": 1536, "first_k_dense_replace": 1, **LATENT}, 235.7),
    "deepseek-v2-lite": ("deepseek_v2", (2048, 27, 16, 16, None, 10944, 102400),
                         {"q_lora_rank": None, "n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2,
                          "moe_intermediate_size": 1408, "first_k_dense_replace": 1, **LATENT}, 15.7),
    "deepseek-v3": ("deepseek_v3", (7168, 61, 128, 128, None, 18432, 129280),
                    {"q_lora_rank": 1536, "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1,
                     "moe_intermediate_size": 2048, "first_k_dense_replace": 3, **LATENT}, 671.0),
    "kimi-k2": ("kimi_k2", (7168, 61, 64, 64, None, 18432, 163840),
                {"q_lora_rank": 1536, "n_routed_experts": 384, "num_experts_per_tok": 8, "n_shared_experts": 1,
                 "moe_intermediate_size": 2048, "first_k_dense_replace": 1, **LATENT}, 1026.0),
    "glm-4.5": ("glm4_moe", (5120, 92, 96, 8, 128, 12288, 151552),
                {"n_routed_experts": 160, "num_experts_per_tok": 8, "n_shared_experts": 1,
                 "moe_intermediate_size": 1536, "first_k_dense_replace": 3}, 355.0),
    "llama-4-scout": ("llama4_text", (5120, 48, 40, 8, 128, 8192, 202048),
                      {"num_local_experts": 16, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1}, 107.8),
}  # fmt: skip
"""model_type, sizes, other fields, and 10^9 parameters."""


def config(name: str) -> dict[str, object]:
    """The file of a model."""
    model_type, sizes, others, _ = MODELS[name]
    return {"model_type": model_type, **dict(zip(FIELDS, sizes, strict=True)), **others}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_the_card(name: str) -> None:
    shape = parse_hf_config(config(name), name)
    assert shape.n_parameters / 1e9 == pytest.approx(MODELS[name][3], rel=0.01)


def test_layers_with_a_window() -> None:
    windows = {name: parse_hf_config(config(name), name).sliding_layers for name in ("gemma-2-9b", "gemma-3-27b")}
    assert windows == {"gemma-2-9b": 21, "gemma-3-27b": 52}
    assert parse_hf_config(config("phi-4"), "phi-4").sliding_layers == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "type of model m is not supported"),
        ({"model_type": "jamba"}, "type of model m is not supported"),
        ({"model_type": "falcon"}, "type of model m is not supported"),
        ({"interleave_moe_layer_step": 2}, "experts in some layers only"),
        ({"model_type": "qwen3_moe", "decoder_sparse_step": 2, "moe_intermediate_size": 8, "num_experts": 4},
         "experts in some layers only"),
        ({"model_type": "qwen2_moe", "moe_intermediate_size": 7, "shared_expert_intermediate_size": 8},
         "no multiple of the others"),
    ],
)  # fmt: skip
def test_what_the_shape_cannot_say_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_hf_config(config("llama-4-scout") | changes, "m")


@pytest.mark.parametrize("pass_", ["step", "prefill", "decode"])
@pytest.mark.parametrize("name", ["gpt-neox-20b", "gemma-2-9b", "qwen3-30b-a3b", "gpt-oss-20b", "llama-4-scout"])
def test_families_are_simulated(name: str, pass_: str) -> None:
    shape = parse_hf_config(config(name) | {"num_hidden_layers": 2}, name)
    request = SimulationRequest(model=shape, schedule="ring", gpus=4, seq_len=8192, layers="model", pass_=pass_,
                                topology="dgx-h100", timeline=False, engine="maxplus",
                                zero=3 if pass_ == "step" else 0)  # fmt: skip
    result = simulate(request)
    assert result.time_s > 0 and result.fits
