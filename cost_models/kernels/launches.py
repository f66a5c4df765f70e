"""Which launches the host makes for one attention call, and how many kernels those are.

A `KernelCall` is what a step computes. A kernel takes it as it is, or in parts that together are the same pairs:

- With ``varlen`` one launch has several segments, whose rows and whose columns follow each other in memory: segments in
  an order of columns that goes back begin another launch. Without it every segment is a launch.
- With ``top_left`` only full attention and causal attention of as many rows as columns can be said (cuDNN as PyTorch
  calls it). A segment in which row i sees columns j <= i + d, d >= 0, of n_q rows and n_k columns is then

      rows [0, n_k - d)   on columns [0, d)     full,   where d > 0
      rows [0, n_k - d)   on columns [d, n_k)   causal, as many rows as columns
      rows [n_k - d, n_q) on all columns        full,   where rows are left

  and the first two, which share rows, are merged by their log-sum-exp.

| kernel | forward | backward | source |
|---|---|---|---|
| flash2 | 1 | 3: delta and clearing, main, dQ conversion | Dao-AILab/flash-attention, csrc/flash_attn/src/flash_bwd_launch_template.h |
| flash3 | 1 | 3: as flash2 | hopper/flash_bwd_launch_template.h |
| cudnn | 1 | 1: one graph, which holds its own kernels | PyTorch aten/src/ATen/native/cudnn/MHA.cpp |
| flex | 1 | 2: delta, main | PyTorch torch/_inductor/kernel/flex_attention.py |
| triton | 1 | 2: preprocess, main | Triton tutorial 06-fused-attention |
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from cost_models.masks import KernelCall, Segment

if TYPE_CHECKING:
    from cost_models.hardware import AttentionCurve

_LAUNCHES = {"flash2": (1, 3), "flash3": (1, 3), "cudnn": (1, 1), "flex": (1, 2), "triton": (1, 2)}
_UNKNOWN = (1, 3)


def attention_launches(kernel: str, direction: str) -> int:
    """Launches of one call; a kernel of the user's own counts as flash-attention 2.

    >>> attention_launches("flash2", "forward"), attention_launches("flash2", "backward")
    (1, 3)
    """
    return _LAUNCHES.get(kernel, _UNKNOWN)[direction == "backward"]


def launches_of(curve: AttentionCurve, call: KernelCall) -> tuple[KernelCall, ...]:
    """The launches that are priced: a kernel that takes segments is priced as if it took them in any order of columns.

    (flash-attention's backward does not, and masks that make such calls are rare.)
    """
    if curve.varlen and curve.windows:
        return (call,)
    return split_call(call, varlen=curve.varlen, top_left=not curve.windows)


@lru_cache(maxsize=65536)
def split_call(call: KernelCall, *, varlen: bool, top_left: bool = False) -> tuple[KernelCall, ...]:
    """The launches that a kernel makes of a call; the call itself where it takes it whole.

    >>> documents = KernelCall((Segment(0, 4, 4, 8), Segment(4, 8, 0, 4), Segment(8, 9, 8, 9)), None, 0)
    >>> [len(launch.segments) for launch in split_call(documents, varlen=True)]
    [2, 1]
    >>> more_keys = KernelCall((Segment(0, 4, 0, 6),), None, 0)
    >>> [launch.right for launch in split_call(more_keys, varlen=False, top_left=True)]
    [None, 0]
    """
    if top_left:
        return tuple(part for segment in call.segments for part in _corners(segment, call))
    chains = _chains(call.segments) if varlen else [[segment] for segment in call.segments]
    return (call,) if len(chains) <= 1 else tuple(KernelCall(tuple(chain), call.left, call.right) for chain in chains)


def merged_rows(call: KernelCall) -> int:
    """Rows that two of a ``top_left`` kernel's launches share.

    >>> merged_rows(KernelCall((Segment(0, 4, 0, 6),), None, 0)), merged_rows(KernelCall((Segment(0, 4, 0, 4),), None, 0))
    (4, 0)
    """  # noqa: E501
    if call.left is not None or call.right is None:
        return 0
    cut = [segment for segment in call.segments if not _sees_all(segment, call.right)]
    return sum(_square(segment, call.right) for segment in cut if _ahead(segment, call.right) > 0)


def _sees_all(segment: Segment, right: int) -> bool:
    """Whether the right bound keeps no column from any row."""
    return right >= segment.q_stop - segment.q_start - 1


def _chains(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Segments, in order of rows, in the fewest runs whose columns follow each other."""
    chains: list[list[Segment]] = []
    for segment in segments:
        chain = next((each for each in chains if each[-1].k_stop <= segment.k_start), None)
        if chain is None:
            chains.append([segment])
        else:
            chain.append(segment)
    return chains


def _ahead(segment: Segment, right: int) -> int:
    """Columns besides its own that the first row sees: d."""
    return segment.k_stop - segment.k_start - (segment.q_stop - segment.q_start) + right


def _square(segment: Segment, right: int) -> int:
    """Rows that the diagonal crosses."""
    return segment.k_stop - segment.k_start - _ahead(segment, right)


def _corners(segment: Segment, call: KernelCall) -> list[KernelCall]:
    """A segment as full and causal square launches; a window that cannot be said so is left as it is."""
    if call.left is not None or call.right is None or _ahead(segment, call.right) < 0:
        return [KernelCall((segment,), call.left, call.right)]
    if _sees_all(segment, call.right):
        return [KernelCall((segment,), None, None)]
    q, q_end, k, k_end = segment.q_start, segment.q_stop, segment.k_start, segment.k_stop
    first, middle = k + _ahead(segment, call.right), q + _square(segment, call.right)
    parts = [
        KernelCall((Segment(q, middle, k, first),), None, None),
        KernelCall((Segment(q, middle, first, k_end),), None, 0),
        KernelCall((Segment(middle, q_end, k, k_end),), None, None),
    ]
    return [part for part in parts if all(s.q_start < s.q_stop and s.k_start < s.k_stop for s in part.segments)]
