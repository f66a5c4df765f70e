"""Packed rows of keys and values (`cost_models.packing`) as bytes, in a tensor of any dtype that holds 255."""

from __future__ import annotations

import torch
from torch import Tensor

from cost_models.packing import SCALE_BYTES, Form, packed_form
from simulator.program.operations import Buffer, Operation
from validators.executors.local import LocalOperations, Perform


def pack(values: Tensor, form: Form) -> Tensor:
    """[..., D] as bytes [..., row], uint8."""
    scale = (values.abs().amax(dim=-1, keepdim=True) / form.largest).float()
    scaled = torch.where(scale > 0, values / scale, torch.zeros_like(values))
    if not form.whole:
        codes = scaled.float().clamp(-form.largest, form.largest).to(torch.float8_e4m3fn).view(torch.uint8)
    else:
        whole = scaled.round().clamp(-form.largest, form.largest).to(torch.int8)
        codes = whole.view(torch.uint8) if form.bits == 8 else _to_halves(whole)
    return torch.cat([codes, scale.contiguous().view(torch.uint8)], dim=-1)


def unpack(rows: Tensor, form: Form, dtype: torch.dtype) -> Tensor:
    """What `pack` stored, [..., D]."""
    data = rows.to(torch.uint8).contiguous()
    codes, scale = data[..., :-SCALE_BYTES].contiguous(), data[..., -SCALE_BYTES:].contiguous().view(torch.float32)
    if not form.whole:
        return codes.view(torch.float8_e4m3fn).to(dtype) * scale.to(dtype)
    return (codes.view(torch.int8) if form.bits == 8 else _from_halves(codes)).to(dtype) * scale.to(dtype)


def _to_halves(codes: Tensor) -> Tensor:
    low, high = (codes + 8).to(torch.uint8).unflatten(-1, (-1, 2)).unbind(-1)
    return low + 16 * high


def _from_halves(data: Tensor) -> Tensor:
    return torch.stack([data % 16, data // 16], dim=-1).flatten(-2).to(torch.int8) - 8


def readable(tensor: Tensor, buffer: Buffer, dtype: torch.dtype) -> Tensor:
    """A buffer's values, unpacked where it holds packed rows."""
    form = packed_form(buffer.dtype)
    return tensor if form is None else unpack(tensor, form, dtype)


def pack_rows(local: LocalOperations, operation: Operation) -> None:
    """Codes and scales."""
    form = packed_form(operation.writes[0].dtype)
    assert form is not None
    (values,), (rows,) = local.reads(operation), local.writes(operation)
    rows.copy_(pack(values, form))


def unpack_rows(local: LocalOperations, operation: Operation) -> None:
    """Values."""
    (rows,), (values,) = local.reads(operation), local.writes(operation)
    values.copy_(readable(rows, operation.reads[0], values.dtype))


KINDS: dict[str, Perform] = {"pack_rows": pack_rows, "unpack_rows": unpack_rows}
