"""A Hugging Face ``config.json`` to a :class:`ModelShape`, without transformers.

Of the file only the fields that decide shapes are read; the others (and what newer versions rename: ``torch_dtype`` to
``dtype``, ``rope_theta`` and ``rope_scaling`` to ``rope_parameters``) may be there or not. Spellings of one field in
different versions are alternatives. A multimodal file nests the language model under ``text_config``.

Defaults are those of transformers 5: key-value heads null or absent are as many as heads, ``head_dim`` null or absent
is hidden size / heads, embeddings are not tied, a compression rank of queries of null or 0 means none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cost_models.models.shape import MlaShape, ModelShape, MoeShape
from traces.errors import InputError

MAX_SIZE = 2**24
"""Larger than any size in a model: what is above is a mistake in the file."""

Config = Mapping[str, object]


@dataclass(frozen=True)
class _Fields:
    """The fields of one file, read with checks; errors name the model and the field."""

    config: Config
    name: str

    def size(self, *spellings: str) -> int:
        """A required positive whole number."""
        value = self.optional_size(*spellings)
        if value is None:
            raise InputError(f"model {self.name} does not say {' or '.join(spellings)}", expected="a whole number")
        return value

    def optional_size(self, *spellings: str, least: int = 1) -> int | None:
        """A whole number, None where the file says null or nothing."""
        for key in spellings:
            value = self.config.get(key)
            if value is not None:
                return self._checked(key, value, least)
        return None

    def flag(self, key: str) -> bool:
        """A boolean, false where the file says null or nothing."""
        value = self.config.get(key)
        if value is not None and not isinstance(value, bool):
            raise InputError(f"{key} of model {self.name} is neither true nor false", got=_shown(value))
        return bool(value)

    def _checked(self, key: str, value: object, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_SIZE:
            expected = f"a whole number from {least} to {MAX_SIZE:,}"
            raise InputError(f"{key} of model {self.name} makes no sense", got=_shown(value), expected=expected)
        return value


def parse_hf_config(config: Config, name: str, source: str = "") -> ModelShape:
    """Shape of the model that a parsed ``config.json`` describes.

    Parameters
    ----------
    config : the file's object.
    name : of the model, for messages and results.
    source : where the file comes from.

    Raises
    ------
    InputError
        Where the type of model is not supported, or a field is missing or makes no sense.

    >>> parse_hf_config({"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
    ...                  "intermediate_size": 128, "vocab_size": 1000}, "tiny").head_dim
    16
    """
    nested = config.get("text_config")
    fields = _Fields(nested if isinstance(nested, Mapping) else config, name)
    model_type = fields.config.get("model_type")
    family = _FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise InputError(
            f"type of model {name} is not supported", got=f"model_type {_shown(model_type)}",
            expected="one of " + ", ".join(_FAMILIES), remedy="give heads, kv_heads and head_dim instead",
        )  # fmt: skip
    return family(fields, source)


def _dense(fields: _Fields, source: str, moe: MoeShape | None = None) -> ModelShape:
    """Llama and those like it: grouped heads."""
    hidden, heads, layers = (
        fields.size(key) for key in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )  # fmt: skip
    head_dim = fields.optional_size("head_dim") or _even_head_dim(fields, hidden, heads)
    sliding_layers = _sliding_layers(fields, layers)
    return ModelShape(
        name=fields.name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=fields.optional_size("num_key_value_heads") or heads,
        head_dim=head_dim,
        v_head_dim=head_dim,
        intermediate=fields.size("intermediate_size"),
        vocab=fields.size("vocab_size"),
        tied_embeddings=fields.flag("tie_word_embeddings"),
        sliding_window=fields.optional_size("sliding_window") if sliding_layers else None,
        sliding_layers=sliding_layers,
        moe=moe,
        source=source,
    )


def _even_head_dim(fields: _Fields, hidden: int, heads: int) -> int:
    if hidden % heads:
        raise InputError(
            f"heads of model {fields.name} do not divide its hidden size", got=f"{hidden} / {heads}",
            remedy="name head_dim",
        )  # fmt: skip
    return hidden // heads


def _sliding_layers(fields: _Fields, layers: int) -> int:
    """Layers with a window: those listed, else all from ``max_window_layers`` on; none unless switched on (Qwen)."""
    if fields.optional_size("sliding_window") is None:
        return 0
    if "use_sliding_window" in fields.config and not fields.flag("use_sliding_window"):
        return 0
    listed = fields.config.get("layer_types")
    if isinstance(listed, list):
        return listed.count("sliding_attention")
    pattern = fields.optional_size("sliding_window_pattern", "_sliding_window_pattern")
    if pattern is None and fields.config.get("model_type") == "gemma2":
        pattern = 2
    if pattern is not None:
        return layers - layers // pattern  # each pattern-th layer sees all keys (Gemma 2 and 3)
    return max(layers - (fields.optional_size("max_window_layers", least=0) or 0), 0)


def _tied(fields: _Fields, source: str) -> ModelShape:
    """Those whose head is the embedding unless the file says otherwise (Gemma, Cohere)."""
    tied = fields.config.get("tie_word_embeddings") is None or fields.flag("tie_word_embeddings")
    return replace(_dense(fields, source), tied_embeddings=tied)


def _ungated(fields: _Fields, source: str) -> ModelShape:
    """GPT-NeoX and those like it: a feed-forward of two matrices, GELU between them."""
    return replace(_dense(fields, source), gated=False)


def _qwen_experts(fields: _Fields, source: str) -> ModelShape:
    """Qwen's mixtures: experts in every layer, and in Qwen2 a shared one, as wide as several."""
    wide = fields.size("moe_intermediate_size")
    shared_wide = fields.optional_size("shared_expert_intermediate_size", least=0) or 0
    _refuse_some_layers(fields, "decoder_sparse_step")
    if fields.config.get("mlp_only_layers"):
        raise InputError(f"model {fields.name} has experts in some layers only", got="mlp_only_layers")
    if shared_wide % wide:
        raise InputError(f"the shared expert of model {fields.name} is no multiple of the others",
                         got=f"{shared_wide} and {wide}")  # fmt: skip
    moe = MoeShape(fields.size("num_experts", "num_local_experts"), fields.size("num_experts_per_tok"),
                   shared_wide // wide, wide)  # fmt: skip
    return _dense(fields, source, moe)


def _glm_experts(fields: _Fields, source: str) -> ModelShape:
    """GLM-4.5: grouped heads, experts as DeepSeek-V3's."""
    return _dense(fields, source, _deepseek_experts(fields))


def _llama4(fields: _Fields, source: str) -> ModelShape:
    """Llama 4 with experts in every layer (Scout); its chunked attention is taken as causal over all tokens."""
    _refuse_some_layers(fields, "interleave_moe_layer_step")
    moe = MoeShape(fields.size("num_local_experts"), fields.size("num_experts_per_tok"), 1,
                   fields.size("intermediate_size"))  # fmt: skip
    return _dense(fields, source, moe)


def _refuse_some_layers(fields: _Fields, key: str) -> None:
    every = fields.optional_size(key) or 1
    if every != 1:
        raise InputError(f"model {fields.name} has experts in some layers only", got=f"{key} {every}")


def _mixtral(fields: _Fields, source: str) -> ModelShape:
    moe = MoeShape(
        experts=fields.size("num_local_experts", "num_experts"),
        top_k=fields.size("num_experts_per_tok"),
        shared=0,
        intermediate=fields.size("intermediate_size"),
    )
    return _dense(fields, source, moe)


def _deepseek(fields: _Fields, source: str) -> ModelShape:
    """DeepSeek-V2 and V3: latent attention. ``num_key_value_heads`` is not the size of its keys and values."""
    heads = fields.size("num_attention_heads")
    mla = MlaShape(
        q_lora=fields.optional_size("q_lora_rank", least=0) or None,
        kv_lora=fields.size("kv_lora_rank"),
        nope=fields.size("qk_nope_head_dim"),
        rope=fields.size("qk_rope_head_dim"),
    )
    return ModelShape(
        name=fields.name,
        layers=fields.size("num_hidden_layers"),
        hidden=fields.size("hidden_size"),
        heads=heads,
        kv_heads=heads,
        head_dim=mla.nope + mla.rope,
        v_head_dim=fields.size("v_head_dim"),
        intermediate=fields.size("intermediate_size"),
        vocab=fields.size("vocab_size"),
        tied_embeddings=fields.flag("tie_word_embeddings"),
        moe=_deepseek_experts(fields),
        mla=mla,
        source=source,
    )


def _deepseek_experts(fields: _Fields) -> MoeShape | None:
    experts = fields.optional_size("n_routed_experts", "num_local_experts", "num_experts")
    if experts is None:
        return None
    _refuse_some_layers(fields, "moe_layer_freq")
    return MoeShape(
        experts=experts,
        top_k=fields.size("num_experts_per_tok"),
        shared=fields.optional_size("n_shared_experts", least=0) or 0,
        intermediate=fields.size("moe_intermediate_size"),
        first_dense=fields.optional_size("first_k_dense_replace", least=0) or 0,
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_FAMILIES: dict[str, Callable[[_Fields, str], ModelShape]] = {
    **dict.fromkeys(
        ("llama", "Yi", "mistral", "qwen2", "qwen3", "phi3", "olmo", "olmo2", "granite", "internlm2"), _dense
    ),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "cohere"), _tied),
    **dict.fromkeys(("gpt_neox", "starcoder2", "phi"), _ungated),
    **dict.fromkeys(("mixtral", "gpt_oss"), _mixtral),
    **dict.fromkeys(("qwen2_moe", "qwen3_moe"), _qwen_experts),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "kimi_k2"), _deepseek),
    "glm4_moe": _glm_experts,
    "llama4_text": _llama4,
}
"""Readers by model_type. Norms besides two a layer, biases, and sinks or gates of a few numbers are left out."""
