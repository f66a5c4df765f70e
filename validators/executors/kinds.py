"""The kinds of local operations, and the function that does each, on tensors of any device and dtype."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from simulator.program.operations import Operation
from validators.executors import (
    attending,
    convolving,
    layering,
    moving,
    packing,
    rounding,
    routing,
    selecting,
    unfused,
    vertical_slash,
)
from validators.executors.local import LocalOperations, Perform

KINDS: dict[str, Perform] = {
    "attention_forward": attending.attention_forward,
    "attention_cached": attending.attention_cached,
    "attention_backward": attending.attention_backward,
    "merge": attending.merge,
    "clear": attending.clear,
    "combine": attending.combine,
    "row_dot": attending.row_dot,
    "offload": moving.host_copy,
    "fetch": moving.host_copy,
    "accumulate": moving.accumulate,
    "cast": moving.cast,
    "reorder": moving.reorder,
    "place": moving.place,
    "pack": moving.pack,
    "unpack": moving.unpack,
    "reduce_replicas": moving.reduce_replicas,
    "score": selecting.score,
    "select": selecting.select,
    "concat": selecting.concat,
    "scores": unfused.scores,
    "softmax": unfused.softmax,
    "softmax_backward": unfused.softmax_backward,
    "weigh": unfused.weigh,
    "weigh_transposed": unfused.weigh_transposed,
    "vertical_slash_scores": vertical_slash.vertical_slash_scores,
    "vertical_slash_select": vertical_slash.vertical_slash_select,
    "attention_sparse": vertical_slash.attention_sparse,
    **convolving.KINDS,
    "propagation": layering.wait,
    **layering.KINDS,
    **packing.KINDS,
    **rounding.KINDS,
    **routing.KINDS,
}


def bind(local: LocalOperations, operation: Operation) -> Callable[[], None]:
    """What does one operation on one rank, to be called as often as wanted.

    Raises
    ------
    NotImplementedError
        For a kind of operation that has no executor.
    """
    if operation.kind not in KINDS:
        raise NotImplementedError(f"no executor for operations of kind {operation.kind}")
    return partial(KINDS[operation.kind], local, operation)


def perform(local: LocalOperations, operation: Operation) -> None:
    """Do one operation on one rank, as `bind` says."""
    bind(local, operation)()
