"""Flash-attention through PyTorch's own operators, which return the LSE.

PyTorch is built with flash-attention 2 and can be told, for the whole process, to call an installed flash-attention 3
or 4 instead (`torch.nn.attention.activate_flash_attention_impl`). Windows are aligned at the bottom right corner, as
`KernelCall`'s are; those that the interface garbles are split (`flash_windows`). A delta that is given is passed
through an output that has it (`fused.output_with_delta`). Several segments are one variable-length call (`varlen`).

V narrower than Q and K is padded with zeros, which costs a copy; the operators take one head dim.
Source: PyTorch aten/src/ATen/native/native_functions.yaml (`_flash_attention_forward`, `_flash_attention_backward`).
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from cost_models.kernels import check_backward_size
from cost_models.masks import KernelCall
from validators.kernels.flash_windows import Part, split_window
from validators.kernels.fused import output_with_delta
from validators.kernels.varlen import (
    flatten,
    flatten_lse,
    list_sequences,
    unflatten,
    unflatten_lse,
    window_is_kept,
)

FORWARD = torch.ops.aten._flash_attention_forward.default
BACKWARD = torch.ops.aten._flash_attention_backward.default

_split = lru_cache(maxsize=4096)(split_window)
"""A call has the same parts each time."""


class Flash2Kernel:
    """flash-attention 2 as PyTorch was built with."""

    name: ClassVar[str] = "flash2"

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse)."""
        parts = _split(q.shape[1], k.shape[1], call.left, call.right)
        if len(parts) == 1:
            return _forward(q, k, v, parts[0])
        results = [_forward(q[:, p.rows], k[:, p.columns], v[:, p.columns], p) for p in parts]
        return torch.cat([each[0] for each in results], dim=1), torch.cat([each[1] for each in results], dim=2)

    def backward(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv)."""
        check_backward_size(self.name, max(q.numel(), k.numel()))
        o = output_with_delta(do, row) if delta else row
        parts = _split(q.shape[1], k.shape[1], call.left, call.right)
        if len(parts) == 1:
            return _backward(q, k, v, do, lse, o, parts[0])
        results = [
            _backward(q[:, p.rows], k[:, p.columns], v[:, p.columns], do[:, p.rows], lse[:, :, p.rows], o[:, p.rows], p)
            for p in parts
        ]
        dk, dv = torch.zeros_like(k), torch.zeros_like(v)
        for part, (_, part_dk, part_dv) in zip(parts, results, strict=True):
            dk[:, part.columns] += part_dk
            dv[:, part.columns] += part_dv
        return torch.cat([each[0] for each in results], dim=1), dk, dv

    def takes_segments(self, call: KernelCall) -> bool:
        """Whether the interface keeps the window of every segment."""
        return window_is_kept(call)

    def forward_segments(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse) of whole tensors; rows of no segment hold anything."""
        found, width = list_sequences(call, *q.shape[:2], k.shape[1], q.device), v.shape[3]
        o, lse, *_ = FORWARD(
            flatten(q), flatten(k), flatten(_widened(v, q)), found.rows, found.columns, found.most_rows,
            found.most_columns, 0.0, _causal(call), False, **_window(call),
        )  # fmt: skip
        return _narrowed(unflatten(o, q.shape[0]), width), unflatten_lse(lse, q.shape[0])

    def backward_segments(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv) of whole tensors; rows and columns of no segment hold anything."""
        check_backward_size(self.name, max(q.numel(), k.numel()))
        o = output_with_delta(do, row) if delta else row
        found, batch, width = list_sequences(call, *q.shape[:2], k.shape[1], q.device), q.shape[0], v.shape[3]
        gradients = BACKWARD(
            flatten(_widened(do, q).contiguous()), flatten(q), flatten(k), flatten(_widened(v, q)),
            flatten(_widened(o, q).contiguous()), flatten_lse(lse), found.rows, found.columns, found.most_rows,
            found.most_columns, 0.0, _causal(call), *_random_state(q.device), **_window(call),
        )  # fmt: skip
        dq, dk, dv = (unflatten(each, batch) for each in gradients)
        return dq, dk, _narrowed(dv, width)


def _forward(q: Tensor, k: Tensor, v: Tensor, part: Part) -> tuple[Tensor, Tensor]:
    width = v.shape[3]
    o, lse, *_ = FORWARD(
        q, k, _widened(v, q), None, None, q.shape[1], k.shape[1], 0.0, _causal(part), False, **_window(part)
    )
    return _narrowed(o, width), lse


def _backward(
    q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, o: Tensor, part: Part
) -> tuple[Tensor, Tensor, Tensor]:
    width = v.shape[3]
    dq, dk, dv = BACKWARD(
        _widened(do, q).contiguous(), q, k, _widened(v, q), _widened(o, q).contiguous(), lse.contiguous(), None,
        None, q.shape[1], k.shape[1], 0.0, _causal(part), *_random_state(q.device), **_window(part),
    )  # fmt: skip
    return dq, dk, _narrowed(dv, width)


class _Activated(Flash2Kernel):
    """The same operators, with another implementation behind them from now on."""

    implementation: ClassVar[str]

    def __init__(self) -> None:
        from torch.nn.attention import activate_flash_attention_impl

        activate_flash_attention_impl(self.implementation)


class Flash3Kernel(_Activated):
    """flash-attention 3, for compute capability 9."""

    name, implementation = "flash3", "FA3"


class Flash4Kernel(_Activated):
    """flash-attention 4, for compute capability 9 and 10."""

    name, implementation = "flash4", "FA4"


def _causal(call: Part | KernelCall) -> bool:
    return call.left is None and call.right == 0


def _window(call: Part | KernelCall) -> dict[str, int]:
    """-1 is unbounded; a causal call has no other window."""
    if _causal(call) or (call.left is None and call.right is None):
        return {}
    unbounded = -1
    return {
        "window_size_left": unbounded if call.left is None else call.left,
        "window_size_right": unbounded if call.right is None else call.right,
    }


def _widened(tensor: Tensor, q: Tensor) -> Tensor:
    missing = q.shape[3] - tensor.shape[3]
    return pad(tensor, (0, missing)) if missing else tensor


def _narrowed(tensor: Tensor, width: int) -> Tensor:
    return tensor if tensor.shape[3] == width else tensor[..., :width]


@cache
def _random_state(device: torch.device) -> tuple[Tensor, Tensor]:
    """Of dropout, which there is none of."""
    return torch.zeros(2, dtype=torch.uint64, device=device), torch.zeros((), dtype=torch.uint64, device=device)
