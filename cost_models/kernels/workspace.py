"""Memory that one backward call needs while it runs, besides its arguments and results.

    delta        4 B per row and query head, rows padded                      unless it is given to one that takes it
    output       one that has the given delta, as large as O                  flash2, flash3, cudnn; given delta
    dQ           fp32 accumulator, rows padded, head dim rounded up to 32     flash2, flash3, cudnn
    dK, dV       one copy per query head before groups are summed             all but flex; grouped heads

Rows are rounded up to 128; those of several segments get 128 more for each segment instead. Triton and Flex kernels compute dQ in a pass of their own. Forward calls need nothing that counts.
Source: flash-attention 2, csrc/flash_attn/flash_api.cpp, mha_bwd (softmax_d, dq_accum, dk_expanded); hopper/flash_api.cpp; for
cudnn, the kernels that a profiler shows of a call (`validators.bench.launched`: fmha_reduce_head with grouped heads).
"""  # noqa: E501

from __future__ import annotations

from typing import NamedTuple

from cost_models.kernels.shape import AttentionShape
from cost_models.masks import KernelCall

ROW_TILE = 128
DIM_TILE = 32


class _Needs(NamedTuple):
    accumulates_dq: bool
    expands_groups: bool
    takes_delta: bool


_NEEDS = {
    "flash2": _Needs(True, True, False),
    "flash3": _Needs(True, True, False),
    "cudnn": _Needs(True, True, False),
    "flex": _Needs(False, False, True),
    "triton": _Needs(False, True, True),
}


def attention_workspace_bytes(
    kernel: str, call: KernelCall, shape: AttentionShape, *, precomputed_delta: bool = False
) -> int:
    """Bytes that a backward call needs besides its tensors; a kernel of the user's own counts as flash-attention 2.

    >>> from cost_models.masks import Segment
    >>> call = KernelCall((Segment(0, 1000, 0, 1000),), None, 0)
    >>> shape = AttentionShape(1, 8, 8, 128, 128, "bf16")
    >>> attention_workspace_bytes("flash2", call, shape), attention_workspace_bytes("triton", call, shape)
    (4227072, 32768)
    """
    needs = _NEEDS.get(kernel, _NEEDS["flash2"])
    rows = _padded_rows(call) * shape.problems
    needed = 0 if precomputed_delta and needs.takes_delta else 4 * rows
    if precomputed_delta and not needs.takes_delta:
        needed += sum(each.q_stop - each.q_start for each in call.segments) * (
            shape.problems * shape.v_head_dim * shape.element_bytes
        )
    if needs.accumulates_dq:
        needed += 4 * rows * _round_up(shape.head_dim, DIM_TILE)
    if needs.expands_groups and shape.kv_heads < shape.heads:
        columns = sum(each.k_stop - each.k_start for each in call.segments)
        needed += columns * shape.problems * (shape.head_dim + shape.v_head_dim) * shape.element_bytes
    return needed


def _padded_rows(call: KernelCall) -> int:
    rows = sum(each.q_stop - each.q_start for each in call.segments)
    return _round_up(rows, ROW_TILE) if len(call.segments) == 1 else rows + ROW_TILE * len(call.segments)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
