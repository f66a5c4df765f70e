"""Launches of Triton kernels without what Triton does in Python for each of them.

Triton's own launch binds and specialises its arguments anew, some 20 us of the host. What a kernel is specialised to
follows from its integers, its constants, the dtypes of its tensors and whether these are aligned to 16 bytes. So a
launch that is alike in all that gets the compiled kernel of the first one, which Triton made, and hands its launcher
(`CompiledKernel.run` of Triton 3) the pointers themselves. What is not aligned, or interpreted, goes Triton's own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

ALIGNED = 15
"""Bits of an address that are 0 where it is aligned as Triton specialises to."""


class Launcher:
    """Launches one kernel.

    Parameters
    ----------
    kernel : a function of ``triton.jit`` whose parameters are tensors, then numbers, then constants (``constexpr``).
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._compiled: dict[tuple[object, ...], Any] = {}

    def __call__(
        self, grid: tuple[int, ...], tensors: Sequence[Tensor], numbers: tuple[float, ...],
        constants: tuple[int, ...], **options: int,
    ) -> None:  # fmt: skip
        """Launch on the current stream.

        Parameters
        ----------
        grid : programs along one or two axes.
        tensors, numbers, constants : arguments in the order of the parameters.
        options : of Triton (``num_warps``); always the same for the same constants.
        """
        pointers = [each.data_ptr() for each in tensors]
        together = 0
        for each in pointers:
            together |= each
        device = tensors[0].get_device()
        key = device, numbers, constants, *[each.dtype for each in tensors]
        compiled = None if together & ALIGNED else self._compiled.get(key)
        if compiled is None:
            self._ordinary(grid, tensors, numbers, constants, options, None if together & ALIGNED else key)
            return
        run, function, packed = compiled
        stream = torch._C._cuda_getCurrentRawStream(device)
        programs = grid[1] if len(grid) > 1 else 1
        run(grid[0], programs, 1, stream, function, packed, None, None, None, *pointers, *numbers, *constants)

    def _ordinary(
        self, grid: tuple[int, ...], tensors: Sequence[Tensor], numbers: tuple[float, ...],
        constants: tuple[int, ...], options: dict[str, int], key: tuple[object, ...] | None,
    ) -> None:  # fmt: skip
        """As Triton does; what it compiled is kept, where its launcher takes plain pointers."""
        compiled = self._kernel[grid](*tensors, *numbers, *constants, **options)
        if compiled is not None and key is not None and tensors[0].is_cuda:
            self._compiled[key] = compiled.run, compiled.function, compiled.packed_metadata
