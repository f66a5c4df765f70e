"""Merges, sums and copies of eager PyTorch code, by the bytes that its separate kernels move.

| per element of O | kernels | read | written |
|---|---|---|---|
| scripted (ring-flash-attn) | one fused, out of place | 4 running + 2 partial | 4 |
| eager (torch) | o - o_i, sigmoid(..) times it, o minus that; all fp32 | 8 + 4 + 8 | 12 |
| a slice put back | copy of the rows | 4 | 4 |
| `torch.cat` of chunks | copy of the whole | 4 | 4 |

Kernels on tensors of two dtypes, and copies of transposed ones, are not vectorised: `EAGER` of
`cost_models.hardware.dense`. Row statistics are a 1/D of that and counted with the fused merge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.program.operations import Elementwise
from simulator.program.recorder import Gradient, Partial, Recorder
from simulator.program.tape import Tensor

SCRIPTED, EAGER = (6, 4), (20, 12)
"""Bytes read and written per element of O."""


def to_fp32(r: Recorder, part: Partial) -> Partial:
    """A partial result in fp32, on the rows that it has."""
    b = part.o.buffer
    wide, row = r.like(part.o, "o_i", dtype="fp32"), b.batch * b.heads * b.dim
    r.emit(
        "cast", Elementwise("mixed", 2 * row, 4 * row, part.lowering, "q"), (part.o,), (wide,), lowering=part.lowering
    )
    return Partial(wide, part.lse, part.lowering)


def merge(r: Recorder, total: Partial | None, part: Partial, per_element: tuple[int, int]) -> Partial:
    """Merge into a new tensor, as out-of-place code does; the first is converted to fp32."""
    if total is None:
        first = r.merge(None, part)
        return Partial(r.cast(first.o, "fp32", "mixed"), first.lse, first.lowering)
    b = total.o.buffer
    row, scratch = b.batch * b.heads * b.dim, r.like(total.o, "o, new")
    read, written = (each * row for each in per_element)
    work = Elementwise("merge", read, written, part.lowering, "q")
    r.emit("merge", work, (part.o, part.lse), (total.o, total.lse), lowering=part.lowering)
    del scratch
    return total


def add(r: Recorder, total: Tensor | None, part: Gradient) -> Tensor:
    """Into an fp32 accumulator, by a kernel of its own; the first is converted."""
    return r.accumulate(None if total is None else (total,), (part,), "fp32", "mixed")[0]


def copy_again(
    r: Recorder, tensor: Tensor, ranks: NDArray[np.bool_], pattern: str = "copy", share: float = 1.0
) -> None:  # fmt: skip
    """A copy of a tensor, or of a share of its rows, that some ranks make, to no other effect."""
    if ranks.any():
        size = int(share * tensor.buffer.bytes)
        r.emit("cast", Elementwise(pattern, size, size), (tensor,), (r.like(tensor, "copy"),), ranks=ranks)


def everywhere(r: Recorder, condition: bool = True) -> NDArray[np.bool_]:
    """All ranks, or none."""
    return np.full(r.setup.n_ranks, condition)


def contiguous_copies(r: Recorder, *tensors: Tensor) -> tuple[Tensor, ...]:
    """`torch.cat` of flattened tensors, before they are sent."""
    return tuple([r.copy("cast", (each,), r.like(each, each.buffer.name), "copy") for each in tensors])
