"""The command line's options for a request and for its outputs, said once for all commands that take them.

A command written as ``command(request, outputs)`` becomes one that takes the contract's options: its signature, from
which typer builds the parser and the help, is that of :func:`_request_options` and options of its own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from simulator.request import SimulationRequest

JsonTarget = Annotated[
    str | None, typer.Option("--json", metavar="FILE|-", help="Write the result as JSON; - is standard output.")
]


@dataclass(frozen=True)
class Outputs:
    """Where results go besides the terminal."""

    json: str | None = None
    trace: Path | None = None
    html: Path | None = None
    chakra: Path | None = None

    @property
    def need_timeline(self) -> bool:
        """Whether any of them shows single operations."""
        return any(each is not None for each in (self.trace, self.html, self.chakra))


def option(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """One more option of a command: a field of the request, typer's annotation, and its default, if any."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def request_command(
    *own: inspect.Parameter, keep: tuple[str, ...] = (), without: tuple[str, ...] = (), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn ``command(request, outputs, **kept)`` into a function of the contract's options and the command's ``own``.

    Parameters
    ----------
    own : the command's own options.
    keep : of these, the ones that are no fields of the request: the command gets them by name.
    without : common options that the command does not have.
    defaults : other defaults of common options.
    """
    known = inspect.signature(_request_options, eval_str=True).parameters.items()
    common = [each.replace(default=defaults.get(name, each.default)) for name, each in known if name not in without]
    signature = inspect.Signature([*own, *common])

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            outputs = Outputs(*(values.pop(name, None) for name in ("json", "trace", "html", "chakra")))
            kept = {name: values.pop(name) for name in keep}
            command(_request(values, outputs), outputs, **kept)

        with_options.__signature__ = signature  # type: ignore[attr-defined]
        with_options.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        return with_options

    return decorate


def _request(values: dict[str, Any], outputs: Outputs) -> SimulationRequest:
    from simulator.request import SimulationRequest

    for name in ("nccl", "slow_rank", "slow_link", "lost"):
        values[name] = tuple(values[name] or ())
    return SimulationRequest(**values, timeline=outputs.need_timeline)


def _request_options(
    *,
    seq_len: Annotated[
        str,
        typer.Option(
            metavar="N", help="Tokens of the whole sequence; 128k is binary. With simulate also max: all that fit."
        ),
    ],
    gpus: Annotated[int, typer.Option(metavar="P", help="GPUs in all.")],
    model: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Model: a name, or a Hugging Face config.json.")
    ] = None,
    heads: Annotated[int | None, typer.Option(metavar="H", help="Query heads, instead of --model.")] = None,
    kv_heads: Annotated[int | None, typer.Option(metavar="K", help="Key-value heads; default --heads.")] = None,
    head_dim: Annotated[int | None, typer.Option(metavar="D", help="Head dim, instead of --model.")] = None,
    nodes: Annotated[
        int | None, typer.Option(metavar="M", help="Nodes; P/M GPUs on each. Default: as few as hold them.")
    ] = None,
    topology: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="A preset, NCCL topology XML, or the text of nvidia-smi topo -m."),
    ] = None,
    hardware: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="GPU profile. Default: the GPU that the topology says.")
    ] = None,
    nccl: Annotated[
        list[str] | None, typer.Option(metavar="VARIABLE=VALUE", help="NCCL's environment, as NCCL_P2P_LEVEL=SYS.")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="B", help="Sequences.")] = 1,
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="Type of Q, K, V and O.")] = "bf16",
    mask: Annotated[str, typer.Option(metavar="NAME[:key=value,...]", help="Which pairs are attended.")] = "causal",
    layers: Annotated[
        str, typer.Option(metavar="attention|layer|model", help="What of the model is simulated.")
    ] = "attention",
    pass_: Annotated[
        str | None,
        typer.Option(
            "--pass", metavar="PASS", help="forward, backward or both (default); of a model prefill, decode or step."
        ),
    ] = None,
    kernel: Annotated[
        str | None, typer.Option(metavar="NAME", help="Attention kernel. Default: the hardware's fastest exact one.")
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="auto|maxplus|des", help="auto: des where links are shared and it is fast enough.")
    ] = "auto",
    interference: Annotated[
        bool,
        typer.Option(
            "--interference/--no-interference",
            help="Kernels and communication take SMs and memory bandwidth from each other.",
        ),
    ] = True,
    tp: Annotated[int, typer.Option(metavar="N", help="Tensor parallel ranks (layer, model).")] = 1,
    dp: Annotated[int, typer.Option(metavar="N", help="Data parallel ranks (model).")] = 1,
    pp: Annotated[int, typer.Option(metavar="N", help="Pipeline stages (model).")] = 1,
    placement: Annotated[
        str, typer.Option(metavar="AXES", help="Order of the parallel axes over the ranks, innermost first.")
    ] = "tp-cp-dp-pp",
    tp_version: Annotated[
        int, typer.Option(metavar="1|3", help="Tensor parallel version; 3 splits tokens between products.")
    ] = 1,
    zero: Annotated[int, typer.Option(metavar="0-3", help="ZeRO stage over context and data parallel ranks.")] = 0,
    checkpoint: Annotated[
        str, typer.Option(metavar="none|full|attention|sequence", help="What of a layer is recomputed in backward.")
    ] = "none",
    microbatches: Annotated[int, typer.Option(metavar="M", help="Microbatches of each data parallel rank.")] = 1,
    loss_chunks: Annotated[
        int | None, typer.Option(metavar="N", help="Fuse head and loss over N chunks. Default: whole logits.")
    ] = None,
    optimizer: Annotated[str, typer.Option(metavar="adamw|adamw-8bit", help="Optimizer of a step.")] = "adamw",
    method: Annotated[str, typer.Option(metavar="NAME[:key=value,...]", help="Fine-tuning method of a step.")] = "full",
    weight_bits: Annotated[
        float | None, typer.Option(metavar="BITS", help="Of a stored weight (prefill, decode). Default: the type's.")
    ] = None,
    kv_block: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="Tokens of a page of the KV cache (decode)."),
    ] = None,
    ep: Annotated[int, typer.Option(metavar="N", help="Ranks over which experts are spread.")] = 1,
    routing: Annotated[
        str, typer.Option(metavar="uniform|zipf:exponent=,seed=|@FILE", help="Tokens per expert.")
    ] = "uniform",
    capacity: Annotated[
        float | None, typer.Option(metavar="C", help="Most that an expert takes, in even shares. Default: all.")
    ] = None,
    slow_rank: Annotated[
        list[str] | None, typer.Option(metavar="RANK:FACTOR", help="Kernels of a rank take FACTOR times as long.")
    ] = None,
    slow_link: Annotated[
        list[str] | None, typer.Option(metavar="NAME:SHARE", help="A link has SHARE of its capacity.")
    ] = None,
    lost: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A link or port is gone, and routed around.")
    ] = None,
    lost_rank: Annotated[
        str | None, typer.Option(metavar="RANK[:SECONDS]", help="A rank begins nothing any more: who waits for whom.")
    ] = None,
    jitter: Annotated[
        float, typer.Option(metavar="SIGMA", help="Durations vary by this; says how the time spreads over draws.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the draws.")] = 0,
    draws: Annotated[int, typer.Option(metavar="N", help="Draws, with --jitter.")] = 200,
    what_if: Annotated[
        str, typer.Option(metavar="PART=FACTOR,...", help="Make flop, hbm, host, nvlink, c2c, pcie, sys or net faster.")
    ] = "",
    json: JsonTarget = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write Chrome traces for Perfetto, a file per GPU.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report with figures.")] = None,
    chakra: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write Chakra execution traces, a file per GPU.")
    ] = None,
) -> None:
    """Only its signature is used."""
