"""Options of a request: name, default, and how the command line shows each, said once.

A field of these classes is an option of ``simulate``, ``compare``, ``plan``, ``sweep`` and ``choices``, a keyword of
`attnsim.simulate` and a field of `simulator.request.SimulationRequest`. What an option means is its help. Checks live
with the code that uses it (`request_checks`, `steps.plan`, `faults`); what inherits from the classes here may import
what is heavy, this module nothing: ``--help`` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile
    from cost_models.masks import Mask
    from cost_models.models import ModelShape
    from cost_models.topology import ClusterTopology


@dataclass(frozen=True)
class Flag:
    """How the command line shows an option.

    Parameters
    ----------
    type : of its value there, as typer takes it.
    metavar, help : in the help text.
    names : its flags where they are not ``--`` and the field's name.
    """

    type: Any
    metavar: str | None
    help: str
    names: tuple[str, ...] = ()


def _option(default: Any, type: Any, metavar: str | None, help: str, *names: str) -> Any:
    return field(default=default, metadata={"flag": Flag(type, metavar, help, names)})


def flags(of: type) -> list[tuple[Field[Any], Flag]]:
    """The fields of a class of options that the command line has, with how it shows them."""
    return [(each, each.metadata["flag"]) for each in fields(of) if "flag" in each.metadata]


@dataclass(frozen=True, kw_only=True)
class AttentionFields:
    """Which attention, on which GPUs, and how it is simulated.

    Text may be the object that it names: ``model`` a `ModelShape`, ``mask`` a `Mask`, ``topology`` a `ClusterTopology`,
    ``hardware`` a `HardwareProfile`. Three fields are no common options: ``schedule`` (``NAME[:key=value,...]``; None
    where all are compared), ``peers`` (whether ``compare`` lists other people's implementations) and ``timeline``
    (whether results keep theirs).
    """

    seq_len: int | str = _option(
        MISSING, str, "N", "Tokens of the whole sequence; 128k is binary. With simulate also max: all that fit."
    )
    gpus: int = _option(MISSING, int, "P", "GPUs in all.")
    schedule: str | None = None
    model: str | Path | ModelShape | None = _option(
        None, str | None, "NAME|FILE", "Model: a name, or a Hugging Face config.json."
    )
    prune: str = _option("", str, "heads=SHARE,neurons=SHARE", "What is left of a model's heads and hidden features.")
    heads: int | None = _option(None, int | None, "H", "Query heads, instead of --model.")
    kv_heads: int | None = _option(None, int | None, "K", "Key-value heads; default --heads.")
    head_dim: int | None = _option(None, int | None, "D", "Head dim, instead of --model.")
    nodes: int | None = _option(None, int | None, "M", "Nodes; P/M GPUs on each. Default: as few as hold them.")
    topology: str | Path | ClusterTopology | None = _option(
        None, str | None, "NAME|FILE", "A preset, NCCL topology XML, or the text of nvidia-smi topo -m."
    )
    hardware: str | HardwareProfile | None = _option(
        None, str | None, "NAME|FILE", "GPU profile. Default: the GPU that the topology says."
    )
    nccl: Sequence[str] = _option((), list[str] | None, "VARIABLE=VALUE", "NCCL's environment, as NCCL_P2P_LEVEL=SYS.")
    host_numa: str | None = _option(
        None, str | None, "NODE", "NUMA node of each host to which processes, and so their buffers in host memory, are "
        "bound. Default: each near its GPU.",
    )  # fmt: skip
    batch: int = _option(1, int, "B", "Sequences.")
    dtype: str = _option("bf16", str, "TYPE", "Type of Q, K, V and O.")
    mask: str | Mask = _option("causal", str, "NAME[:key=value,...]", "Which pairs are attended.")
    layers: str = _option("attention", str, "attention|layer|model", "What of the model is simulated.")
    pass_: str | None = _option(
        None, str | None, "PASS", "forward, backward or both (default); of a model prefill, decode or step.", "--pass"
    )
    kernel: str | None = _option(
        None, str | None, "NAME", "Attention kernel. Default: the hardware's fastest exact one."
    )
    allocator_slack: float | None = _option(
        None, float | None, "FACTOR",
        "Memory that the allocator takes over what tensors have. Default: in training the hardware's, else 1.",
    )  # fmt: skip
    engine: str = _option("auto", str, "auto|maxplus|des", "auto: des where links are shared and it is fast enough.")
    interference: bool = _option(
        True, bool, None, "Kernels and communication take SMs and memory bandwidth from each other.",
        "--interference/--no-interference",
    )  # fmt: skip
    peers: bool = False
    timeline: bool = True
    what_if: str = _option("", str, "PART=FACTOR,...", "Make flop, hbm, host, nvlink, c2c, pcie, sys or net faster.")


@dataclass(frozen=True, kw_only=True)
class StepFields:
    """How a layer or a whole model is parallelised, and what it keeps."""

    tp: int = _option(1, int, "N", "Tensor parallel ranks (layer, model).")
    dp: int = _option(1, int, "N", "Data parallel ranks (model).")
    pp: int = _option(1, int, "N", "Pipeline stages (model).")
    placement: str = _option("tp-cp-dp-pp", str, "AXES", "Order of the parallel axes over the ranks, innermost first.")
    tp_version: int = _option(1, int, "1|3", "Tensor parallel version; 3 splits tokens between products.")
    zero: int = _option(0, int, "0-3", "ZeRO stage over context and data parallel ranks.")
    checkpoint: str = _option("none", str, "none|full|attention|sequence", "What of a layer is recomputed in backward.")
    microbatches: int = _option(1, int, "M", "Microbatches of each data parallel rank.")
    fp8: bool = _option(
        False, bool, None, "Products of layers on operands in FP8, scaled per tensor.", "--fp8/--no-fp8"
    )
    virtual_stages: int = _option(
        1, int, "V", "Parts of each pipeline stage's layers, interleaved (step). Microbatches: a multiple of --pp."
    )
    loss_chunks: int | None = _option(None, int | None, "N", "Fuse head and loss over N chunks. Default: whole logits.")
    optimizer: str = _option("adamw", str, "adamw|adamw-8bit", "Optimizer of a step.")
    offload: str = _option(
        "none", str, "none|activations|optimizer|all", "What lies in memory of the host during a step."
    )
    method: str = _option("full", str, "NAME[:key=value,...]", "Fine-tuning method of a step.")
    weight_bits: float | None = _option(
        None, float | None, "BITS", "Of a stored weight (prefill, decode). Default: the type's."
    )
    kv_block: int | None = _option(None, int | None, "TOKENS", "Tokens of a page of the KV cache (decode).")
    kv_dtype: str | None = _option(
        None, str | None, "int8|int4|fp8", "Packed KV cache (prefill, decode). Default: the type's."
    )
    mla: str | None = _option(
        None, str | None, "absorbed|expanded", "Attention to latent rows, or to keys made of them. Default: absorbed "
        "in decode, expanded in prefill.",
    )  # fmt: skip
    prefill_chunk: int | str | None = _option(None, str | None, "TOKENS", "Prefill in chunks of so many tokens, as 8k.")
    cached_prefix: int | str | None = _option(
        None, str | None, "TOKENS", "Tokens at the prompt's start whose keys are cached (prefill)."
    )
    new_tokens: int = _option(1, int, "N", "Tokens decoded one after the other.")
    cuda_graphs: bool = _option(
        False, bool, None, "Decode: launch a token's kernels as one CUDA graph, not one by one.",
        "--cuda-graphs/--no-cuda-graphs",
    )  # fmt: skip
    overlap_microbatches: bool = _option(
        False, bool, None, "Compute two microbatches in turn, so that messages of one are beside kernels of the other "
        "(prefill, decode).", "--overlap-microbatches/--no-overlap-microbatches",
    )  # fmt: skip
    stage_link: str | None = _option(
        None, str | None, "TIME,RATE", "Wide-area link between pipeline stages (prefill, decode), as 40ms,100Mbit/s."
    )
    ep: int = _option(1, int, "N", "Ranks over which experts are spread.")
    routing: str = _option("uniform", str, "uniform|zipf:exponent=,seed=|@FILE", "Tokens per expert.")
    capacity: float | None = _option(
        None, float | None, "C", "Most that an expert takes, in even shares. Default: all."
    )

    @property
    def chunked(self) -> bool:
        """Whether a prompt comes in chunks, or after a cached prefix."""
        return self.prefill_chunk is not None or self.cached_prefix is not None


@dataclass(frozen=True, kw_only=True)
class FaultFields:
    """What is wrong with the cluster, and how much durations vary."""

    slow_rank: Sequence[str] = _option(
        (), list[str] | None, "RANK:FACTOR", "Kernels of a rank take FACTOR times as long."
    )
    slow_link: Sequence[str] = _option((), list[str] | None, "NAME:SHARE", "A link has SHARE of its capacity.")
    lost: Sequence[str] = _option((), list[str] | None, "NAME", "A link or port is gone, and routed around.")
    lost_rank: str | None = _option(
        None, str | None, "RANK[:SECONDS]", "A rank begins nothing any more: who waits for whom."
    )
    jitter: float = _option(0.0, float, "SIGMA", "Durations vary by this; says how the time spreads over draws.")
    seed: int = _option(0, int, "N", "Of the draws.")
    draws: int = _option(200, int, "N", "Draws, with --jitter.")


@dataclass(frozen=True, kw_only=True)
class RequestFields(FaultFields, StepFields, AttentionFields):
    """All of them, in the order of the help text."""
