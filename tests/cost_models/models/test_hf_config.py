"""Hugging Face configurations: families, spellings, and files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.models import load_model
from cost_models.models.hf_config import parse_hf_config
from traces.errors import InputError

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 1000,
}
MIXTRAL = LLAMA | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "intermediate_size": 96,
    "vocab_size": 1000,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}


def parse(base: dict[str, object], **changes: object) -> object:
    return parse_hf_config(base | changes, "m")


def test_heads_default_as_in_transformers() -> None:
    shape = parse_hf_config(LLAMA | {"num_key_value_heads": None, "head_dim": None}, "m")
    assert (shape.kv_heads, shape.head_dim, shape.v_head_dim) == (8, 8, 8)


def test_head_dim_need_not_be_hidden_over_heads() -> None:
    assert parse_hf_config(LLAMA | {"model_type": "qwen3", "head_dim": 32}, "m").head_dim == 32


def test_old_and_new_spellings_read_the_same() -> None:
    old = {"torch_dtype": "bfloat16", "rope_theta": 1e6, "rope_scaling": None, "num_nextn_predict_layers": 1}
    new = {"dtype": "bfloat16", "rope_parameters": {"rope_theta": 1e6}, "num_mtp_layers": 1, "num_local_experts": 16}
    without = {key: value for key, value in DEEPSEEK.items() if key != "n_routed_experts"}
    assert parse(DEEPSEEK, **old) == parse(without, **new)


def test_multimodal_files_nest_the_language_model() -> None:
    nested = {"model_type": "llava", "vision_config": {"hidden_size": 1}, "text_config": LLAMA}
    assert parse_hf_config(nested, "m") == parse_hf_config(LLAMA, "m")


def test_tied_embeddings_are_counted_once() -> None:
    untied, tied = (parse_hf_config(LLAMA | {"tie_word_embeddings": tied}, "m") for tied in (False, True))
    assert untied.n_parameters - tied.n_parameters == 1000 * 64


def test_parameters_of_a_mixture_by_hand() -> None:
    attention = 64 * (8 * 8 + 2 * 2 * 8) + 8 * 8 * 64
    experts = 4 * 3 * 64 * 96 + 64 * 4
    assert parse_hf_config(MIXTRAL, "m").n_parameters == 4 * (attention + experts + 2 * 64) + 64 + 2 * 64_000


def test_parameters_of_latent_attention_by_hand() -> None:
    queries = 64 * 24 + 24 + 24 * 8 * 12
    keys_values = 64 * (16 + 4) + 16 + 16 * 8 * (8 + 6)
    attention = queries + keys_values + 8 * 6 * 64
    mlps = 3 * 64 * 96 + 3 * (17 * 3 * 64 * 32 + 64 * 16)
    assert parse_hf_config(DEEPSEEK, "m").n_parameters == 4 * (attention + 2 * 64) + mlps + 64 + 2 * 64_000


@pytest.mark.parametrize("none", [None, 0])
def test_queries_without_compression(none: object) -> None:
    shape = parse_hf_config(DEEPSEEK | {"q_lora_rank": none, "model_type": "deepseek_v2"}, "m")
    assert shape.mla is not None
    assert shape.mla.q_lora is None
    compressed = 64 * 24 + 24 + 24 * 8 * 12
    assert parse_hf_config(DEEPSEEK, "m").n_parameters - shape.n_parameters == 4 * (compressed - 64 * 8 * 12)


def test_latent_attention_expands_keys_and_values_to_all_heads() -> None:
    shape = parse_hf_config(DEEPSEEK | {"num_key_value_heads": 1}, "m")
    assert (shape.heads, shape.kv_heads, shape.head_dim, shape.v_head_dim) == (8, 8, 12, 6)


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({"sliding_window": 16}, (16, 4)),
        ({"sliding_window": None}, (None, 0)),
        ({"sliding_window": 16, "use_sliding_window": False}, (None, 0)),
        ({"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 3}, (16, 1)),
        ({"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 9}, (None, 0)),
        ({"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2}, (16, 2)),
    ],
)
def test_sliding_windows(changes: dict[str, object], window: tuple[int | None, int]) -> None:
    shape = parse_hf_config(LLAMA | changes, "m")
    assert (shape.sliding_window, shape.sliding_layers) == window


@pytest.mark.parametrize("base", [LLAMA, MIXTRAL, DEEPSEEK], ids=["llama", "mixtral", "deepseek"])
def test_a_missing_field_is_named(base: dict[str, object]) -> None:
    optional = {"num_key_value_heads", "n_routed_experts", "n_shared_experts", "first_k_dense_replace", "q_lora_rank"}
    for field in base.keys() - optional - {"model_type"}:
        with pytest.raises(InputError, match=field):
            parse_hf_config({key: value for key, value in base.items() if key != field}, "m")


@pytest.mark.parametrize("nonsense", [0, -1, 2**40, 1.5, "8", True, [], {}, float("nan")])
@pytest.mark.parametrize("base", [LLAMA, MIXTRAL, DEEPSEEK], ids=["llama", "mixtral", "deepseek"])
def test_nonsense_is_named(base: dict[str, object], nonsense: object) -> None:
    zero_allowed = {"n_shared_experts", "first_k_dense_replace", "q_lora_rank"} if nonsense == 0 else set()
    ignored = {"num_key_value_heads"} if base is DEEPSEEK else set()
    for field in base.keys() - zero_allowed - ignored - {"model_type"}:
        with pytest.raises(InputError, match=field):
            parse_hf_config(base | {field: nonsense}, "m")


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (LLAMA, {"num_key_value_heads": 3}, "do not divide"),
        (LLAMA, {"hidden_size": 65}, "head_dim"),
        (LLAMA, {"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        (MIXTRAL, {"num_experts_per_tok": 9}, "more experts"),
        (DEEPSEEK, {"first_k_dense_replace": 9}, "more dense layers"),
        (DEEPSEEK, {"moe_layer_freq": 2}, "moe_layer_freq 2"),
        (LLAMA, {"model_type": "gpt2"}, "got model_type 'gpt2', expected one of llama, Yi, .*deepseek_v3"),
        (LLAMA, {"model_type": ["llama"]}, "not supported"),
        (LLAMA, {"model_type": None}, "not supported"),
    ],
)
def test_contradictions_are_refused(base: dict[str, object], changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(base, **changes)


words = st.sampled_from(["", "8", "llama", "sliding_attention"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


@given(base=st.sampled_from([LLAMA, MIXTRAL, DEEPSEEK]), data=st.data())
def test_any_damage_is_an_input_error_or_a_model(base: dict[str, object], data: st.DataObject) -> None:
    fields = st.sampled_from(sorted(base)) | st.sampled_from(["text_config", "sliding_window", "layer_types"])
    changes = data.draw(st.dictionaries(fields, json_values, max_size=4))
    try:
        shape = parse_hf_config(base | changes, "m")
    except InputError:
        return
    assert shape.n_parameters > 0


def test_a_file_and_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    by_file, by_folder = load_model(tmp_path / "config.json"), load_model(str(tmp_path))
    assert by_file.n_parameters == by_folder.n_parameters
    assert by_file.name == str(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b" " * (4 * 2**20 + 1), "too large"),
    ],
    ids=["empty", "cut", "binary", "deep", "long-number", "list", "null", "large"],
)
def test_broken_files(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_model(file)


@pytest.mark.parametrize("name", ["gpt-5", "", "no/such/config.json", "x" * 5000, "a\0b"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        load_model(name)
