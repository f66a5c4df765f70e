"""Depthwise convolutions of one rank's strip of an image, with its neighbours' nearest rows."""

from __future__ import annotations

import typing

import torch
from torch import Tensor

from simulator.program.operations import Operation
from validators.executors.layering import matrix, store_grad
from validators.executors.local import LocalOperations, Perform


def depthwise(local: LocalOperations, operation: Operation) -> None:
    """Each channel's convolution; zeros beyond the image."""
    x, above, below, w = local.reads(operation)
    y = torch.nn.functional.conv2d(_padded(operation, x, above, below), _kernels(operation, w), groups=x.shape[-1])
    local.writes(operation)[0].copy_(_positions(y, x))


def depthwise_dx(local: LocalOperations, operation: Operation) -> None:
    """The gradient of the rows: the same, with mirrored kernels."""
    dy, above, below, w = local.reads(operation)
    mirrored = _kernels(operation, w).flip(2, 3)
    dx = torch.nn.functional.conv2d(_padded(operation, dy, above, below), mirrored, groups=dy.shape[-1])
    local.writes(operation)[0].copy_(_positions(dx, dy))


def depthwise_dw(local: LocalOperations, operation: Operation) -> None:
    """Sum over positions of dy times the row's neighbourhood."""
    dy, x, above, below = local.reads(operation)[:4]
    target = local.writes(operation)[0]
    padded, rows = _padded(operation, x, above, below), _image(operation, dy)
    high = _reach(operation) + 1
    wide = target.numel() // x.shape[-1] // high
    taps = [
        (padded[:, :, i : i + rows.shape[2], j : j + rows.shape[3]] * rows).sum(dim=(0, 2, 3))
        for i in range(high)
        for j in range(wide)
    ]
    store_grad(operation, target, torch.stack(taps, dim=1))


def _reach(operation: Operation) -> int:
    return typing.cast(int, operation.options["above"]) + typing.cast(int, operation.options["below"])


def _image(operation: Operation, x: Tensor) -> Tensor:
    """[B, positions, 1, C] as [B, C, rows, width]."""
    width = typing.cast(int, operation.options["width"])
    return x[:, :, 0].unflatten(1, (-1, width)).permute(0, 3, 1, 2)


def _positions(image: Tensor, like: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).reshape(like.shape)


def _padded(operation: Operation, x: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """With the neighbours' rows, or zeros, and zeros left and right."""
    wanted = [typing.cast(int, operation.options[name]) for name in ("above", "below")]
    width = typing.cast(int, operation.options["width"])
    parts = []
    for rows, halo in zip(wanted, (above, below), strict=True):
        image = _image(operation, halo) if halo.numel() else x.new_zeros(x.shape[0], x.shape[-1], rows, width)
        parts.append(image)
    whole = torch.cat([parts[0], _image(operation, x), parts[1]], dim=2)
    side = sum(wanted) // 2 if width > 1 else 0
    return torch.nn.functional.pad(whole, (side, side))


def _kernels(operation: Operation, w: Tensor) -> Tensor:
    """[C, 1, high, wide]."""
    high = _reach(operation) + 1
    return matrix(w).view(len(matrix(w)), 1, high, -1)


KINDS: dict[str, Perform] = {each.__name__: each for each in (depthwise, depthwise_dx, depthwise_dw)}
