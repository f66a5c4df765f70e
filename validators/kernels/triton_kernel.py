"""Our own flash attention in Triton, for what PyTorch's operators cannot say (`triton_attention`).

Besides what `AttentionKernel` asks for: `run_forward` does all segments of a launch at once, on a running (O, LSE) if
wanted; `run_backward` takes delta and writes into the gradients it is given.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cost_models.masks import KernelCall, Segment
from traces.errors import InputError
from validators.kernels import triton_attention as kernels
from validators.kernels.bands import column_table, row_table
from validators.kernels.fused import row_dot
from validators.kernels.interpreter import triton

LOG2_E = 1.4426950408889634


class Tiles(NamedTuple):
    """Rows, columns, warps and pipeline stages of a kernel."""

    rows: int
    columns: int
    warps: int
    stages: int


class TritonKernel:
    """Flash attention over any bands."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse)."""
        return self.forward_segments(q, k, v, _whole(call, q, k))

    def backward(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv)."""
        return self.backward_segments(q, k, v, do, lse, row, _whole(call, q, k), delta=delta)

    def takes_segments(self, call: KernelCall) -> bool:
        """All that do not share columns."""
        return True

    def forward_segments(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse) of whole tensors; rows of no segment hold anything."""
        o, lse = _results(q, v)
        self.run_forward(q, k, v, call, o, lse)
        return o, lse

    def backward_segments(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv) of whole tensors; rows and columns of no segment hold anything."""
        if not delta:
            o, row = row, torch.empty(lse.shape, dtype=torch.float32, device=lse.device)
            row_dot(do, o, row)
        gradients = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
        self.run_backward(q, k, v, do, lse, row, call, gradients)
        return gradients

    def run_forward(
        self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall, o: Tensor, lse: Tensor, *, running: bool = False
    ) -> None:
        """All segments of a launch, into o [B, n, H, Dv] and lse [B, H, n]; other rows stay untouched.

        ``running``: o (fp32 usually) and lse hold the result of other keys, which is merged in.
        """
        tiles = _forward_tiles(max(q.shape[3], v.shape[3]))
        table = row_table(call, tiles.rows, tiles.columns, q.device)
        group = q.shape[2] // k.shape[2]
        kernels.forward[(len(table), q.shape[0] * q.shape[2])](
            q, k, v, o, lse, table, q.shape[2], group, LOG2_E / q.shape[3] ** 0.5,
            *_strides(q), *_strides(k), *_strides(v), *_strides(o), *lse.stride()[:2], q.shape[3], v.shape[3],
            RUNNING=running, **_dims(q, v), **_options(tiles, q),
        )  # fmt: skip

    def run_backward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        do: Tensor,
        lse: Tensor,
        delta: Tensor,
        call: KernelCall,
        gradients: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """All segments of a launch, into (dq, dk, dv); rows and columns of no segment stay untouched.

        Raises
        ------
        InputError
            Where segments share columns: their gradients would overwrite each other.
        """
        _check_disjoint_columns(call)
        dq, dk, dv = gradients
        lse, delta = (each if each.stride(2) == 1 else each.contiguous() for each in (lse, delta))
        group, factor = q.shape[2] // k.shape[2], 1.0 / q.shape[3] ** 0.5
        tiles, tiles_kv = _backward_tiles(max(q.shape[3], v.shape[3]))
        shared = (*_strides(q), *_strides(k), *_strides(v), *_strides(do), *lse.stride()[:2], *delta.stride()[:2])
        inputs = (q, k, v, do, lse, delta)
        table = column_table(call, tiles_kv.columns, tiles_kv.rows, q.device)
        per_head = [_per_query_head(each, q.shape[2]) for each in (dk, dv)] if group > 1 else [dk, dv]
        kernels.backward_kv[(len(table), q.shape[0] * q.shape[2])](
            *inputs, *per_head, table, q.shape[2], group, LOG2_E * factor, factor, *shared, *_strides(per_head[0]),
            *_strides(per_head[1]), q.shape[3], v.shape[3], **_dims(q, v), **_options(tiles_kv, q),
        )  # fmt: skip
        if group > 1:
            _sum_groups(call, per_head, (dk, dv))
        table = row_table(call, tiles.rows, tiles.columns, q.device)
        kernels.backward_q[(len(table), q.shape[0] * q.shape[2])](
            *inputs, dq, table, q.shape[2], group, LOG2_E * factor, factor, *shared, *_strides(dq),
            q.shape[3], v.shape[3], **_dims(q, v), **_options(tiles, q),
        )  # fmt: skip


def _results(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Room for O and LSE."""
    return q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(*[q.shape[at] for at in (0, 2, 1)], dtype=torch.float32)


def _per_query_head(gradient: Tensor, heads: int) -> Tensor:
    """Room for a gradient of keys or values from each query head."""
    return gradient.new_empty(gradient.shape[0], gradient.shape[1], heads, gradient.shape[3])


def _sum_groups(call: KernelCall, per_head: list[Tensor], gradients: tuple[Tensor, Tensor]) -> None:
    """Sum over the query heads of each group, in fp32, on the columns of the launch."""
    for source, target in zip(per_head, gradients, strict=True):
        for segment in call.segments:
            columns = slice(segment.k_start, segment.k_stop)
            grouped = source[:, columns].unflatten(2, (target.shape[2], -1))
            target[:, columns] = grouped.sum(dim=3, dtype=torch.float32)


def _whole(call: KernelCall, q: Tensor, k: Tensor) -> KernelCall:
    """The launch on tensors that are one segment's."""
    return KernelCall((Segment(0, q.shape[1], 0, k.shape[1]),), call.left, call.right)


def _strides(tensor: Tensor) -> tuple[int, ...]:
    assert tensor.stride(3) == 1 or tensor.shape[3] == 1, "the last dim is contiguous"
    return tensor.stride()[:3]


def _dims(q: Tensor, v: Tensor) -> dict[str, int]:
    return {"D": _padded(q.shape[3]), "DV": _padded(v.shape[3])}


def _padded(dim: int) -> int:
    """Head dim of a tile: a power of two that the matrix units take."""
    return max(16, triton.next_power_of_2(dim))


def _options(tiles: Tiles, q: Tensor) -> dict[str, object]:
    precision = "ieee" if q.dtype == torch.float32 else "tf32"
    return {"TILE_M": tiles.rows, "TILE_N": tiles.columns, "PRECISION": precision, "num_warps": tiles.warps,
            "num_stages": tiles.stages}  # fmt: skip


def _forward_tiles(dim: int) -> Tiles:
    if not torch.cuda.is_available():
        return Tiles(16, 16, 1, 1)
    if dim <= 64:
        return Tiles(128, 128, 4, 3)
    return Tiles(128, 128, 8, 2) if dim <= 128 else Tiles(128, 64, 8, 2)


def _backward_tiles(dim: int) -> tuple[Tiles, Tiles]:
    """Of dQ, and of dK and dV."""
    if not torch.cuda.is_available():
        return Tiles(16, 16, 1, 1), Tiles(16, 16, 1, 1)
    if dim <= 64:
        return Tiles(128, 64, 4, 3), Tiles(64, 128, 4, 3)
    return (Tiles(128, 64, 8, 2), Tiles(64, 128, 8, 2)) if dim <= 128 else (Tiles(64, 32, 4, 1), Tiles(32, 64, 4, 1))


def _check_disjoint_columns(call: KernelCall) -> None:
    columns = sorted((segment.k_start, segment.k_stop) for segment in call.segments)
    for (_, stop), (start, _) in zip(columns, columns[1:], strict=False):
        if start < stop:
            raise InputError(
                "triton backward: segments of a launch share columns",
                got=f"columns up to {stop} and from {start}",
                remedy="run each segment on its own and add the gradients",
            )
