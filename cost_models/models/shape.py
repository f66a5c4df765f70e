"""The shape of a decoder-only transformer: what decides its compute, communication and memory, and nothing else.

A layer is RMSNorm, attention, RMSNorm, and a gated MLP (three matrices: gate, up, down), one without gate (up, GELU,
down), or a mixture of gated experts.

    attention   h (H D + K D + K Dv) + H Dv h            grouped heads (GQA)
                h Rq + Rq H D + h (Rkv + rope) + Rkv H (nope + Dv) + H Dv h   latent (MLA), D = nope + rope
    MLP         3 h I dense (2 h I without gate);  3 h Im (experts + shared) + h experts   mixture, with its router
    model       sum over layers + embedding and head (V h each, one of them if tied) + norms

with hidden size h, heads H, key-value heads K, head dims D and Dv, low ranks R, intermediate sizes I and Im. Biases and
the norms of Q and K, where a model has them, are left out: under 0.01 % of the parameters.

Sources: Touvron et al. 2023 (Llama); Jiang et al. 2024 (Mixtral); DeepSeek-AI 2024, arXiv 2412.19437, section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from traces.errors import InputError


@dataclass(frozen=True)
class MoeShape:
    """Mixture of experts in the layers from ``first_dense`` on.

    Parameters
    ----------
    experts, top_k : routed experts, and how many of them a token visits.
    shared : experts that every token visits besides.
    intermediate : hidden size of one expert.
    first_dense : layers at the start that have a dense MLP instead.
    """

    experts: int
    top_k: int
    shared: int
    intermediate: int
    first_dense: int = 0

    def __post_init__(self) -> None:
        if self.top_k > self.experts:
            raise InputError("tokens visit more experts than there are", got=f"{self.top_k} of {self.experts}")


@dataclass(frozen=True)
class MlaShape:
    """Multi-head latent attention: keys and values of all heads are expanded from one latent vector per token.

    Parameters
    ----------
    q_lora : rank of the queries' compression, None where they are not compressed.
    kv_lora : size of the latent vector.
    nope, rope : dims of a head's query and key without and with rotary embedding; the rotary key is shared by heads.
    """

    q_lora: int | None
    kv_lora: int
    nope: int
    rope: int


@dataclass(frozen=True)
class ModelShape:
    """A transformer's dims. Heads and head dims are those of the attention core: for MLA the expanded ones.

    Parameters
    ----------
    name : preset or file.
    layers, hidden, intermediate, vocab : sizes; ``intermediate`` is that of the dense MLP.
    heads, kv_heads, head_dim, v_head_dim : of the attention core.
    tied_embeddings : whether embedding and head share their weights.
    gated : whether the dense MLP has a gate.
    sliding_window, sliding_layers : keys that a query sees at most, None for all; in how many layers.
    moe, mla : mixture of experts and latent attention, None where the model has none.
    source : where the numbers come from.

    Raises
    ------
    InputError
        Where the dims contradict each other.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    intermediate: int
    vocab: int
    tied_embeddings: bool = False
    gated: bool = True
    sliding_window: int | None = None
    sliding_layers: int = 0
    moe: MoeShape | None = None
    mla: MlaShape | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise InputError(
                f"kv heads of {self.name} do not divide its heads", got=f"{self.kv_heads} and {self.heads}"
            )
        if self.moe and self.moe.first_dense > self.layers:
            raise InputError(
                f"{self.name} has more dense layers than layers", got=f"{self.moe.first_dense} of {self.layers}"
            )

    @property
    def n_parameters(self) -> int:
        """Weights of the whole model, all experts included.

        >>> from cost_models.models import load_model
        >>> load_model("llama-3.1-8b").n_parameters
        8030261248
        """
        experts_from = self.moe.first_dense if self.moe else self.layers
        mlps = experts_from * self._dense_mlp + (self.layers - experts_from) * self._expert_mlp
        norms = (2 * self.layers + 1) * self.hidden
        embeddings = (1 if self.tied_embeddings else 2) * self.vocab * self.hidden
        return self.layers * self._attention + mlps + norms + embeddings

    @property
    def _attention(self) -> int:
        output = self.heads * self.v_head_dim * self.hidden
        if self.mla is None:
            q, kv = self.heads * self.head_dim, self.kv_heads * (self.head_dim + self.v_head_dim)
            return self.hidden * (q + kv) + output
        return _latent_queries(self, self.mla) + _latent_keys_values(self, self.mla) + output

    @property
    def _dense_mlp(self) -> int:
        return (3 if self.gated else 2) * self.hidden * self.intermediate

    @property
    def _expert_mlp(self) -> int:
        if self.moe is None:
            return 0
        experts = 3 * self.hidden * self.moe.intermediate * (self.moe.experts + self.moe.shared)
        return experts + self.hidden * self.moe.experts


def _latent_queries(model: ModelShape, mla: MlaShape) -> int:
    """The matrices of Q and the norm between them."""
    expanded = model.heads * model.head_dim
    if mla.q_lora is None:
        return model.hidden * expanded
    return mla.q_lora * (model.hidden + 1 + expanded)


def _latent_keys_values(model: ModelShape, mla: MlaShape) -> int:
    """The matrices of K and V and the norm between them."""
    compress = model.hidden * (mla.kv_lora + mla.rope)
    return compress + mla.kv_lora * (1 + model.heads * (mla.nope + model.v_head_dim))
