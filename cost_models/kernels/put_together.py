"""Putting together what several launches made of the same rows, as the executors do it.

Where the launches of one attention operation share rows (forward, or of dQ) or columns (of dK and dV), each run of rows
that any of them has is filled with zeros in fp32, the launches' parts are merged or added into it one by one, and it is
cast to the working dtype; otherwise parts stay where the kernels left them. A launch of several segments has a part for
each run of rows that its segments cover.

    seconds = those of:   fill 4 U;   merge or add, (4 + e) P read and 4 P written;   cast, 4 U read and e U written

U are the elements of all runs, P those of all parts, e the bytes of an element.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cost_models.kernels.elementwise import estimate_elementwise_s
from cost_models.kernels.launches import launches_of
from cost_models.kernels.shape import AttentionShape
from cost_models.masks import MAX_LAUNCHES, KernelCall

if TYPE_CHECKING:
    from cost_models.hardware import AttentionCurve, HardwareProfile

Slices = list[tuple[int, int]]
LAUNCHES_OF_RUN = {"forward": 3, "backward": 2}
"""Besides those of the parts: filling (output and LSE) and casting."""


@dataclass(frozen=True)
class Shared:
    """Rows or columns that launches share; nothing where they share none.

    Attributes
    ----------
    parts, part_rows : of all launches.
    runs, rows : of what they cover together.
    """

    parts: int = 0
    part_rows: int = 0
    runs: int = 0
    rows: int = 0

    def launches(self, direction: str) -> int:
        """Memory-bound kernels that put one tensor together."""
        return self.parts + LAUNCHES_OF_RUN[direction] * self.runs


def launches_apart(curve: AttentionCurve, calls: Sequence[KernelCall]) -> list[KernelCall]:
    """Launches that each have a result of their own; calls that are one launch of a general kernel are one here.

    That one's segments are all that it covers.
    """
    if takes_together(curve, calls):
        return [KernelCall(tuple(segment for call in calls for segment in call.segments), None, None)]
    return [launch for call in calls for launch in launches_of(curve, call)]


def takes_together(curve: AttentionCurve, calls: Sequence[KernelCall]) -> bool:
    """Whether calls are one launch of a kernel for general masks."""
    return len(calls) > MAX_LAUNCHES and curve.general_masks


def find_shared(launches: Iterable[KernelCall], side: str) -> Shared:
    """What launches share of the rows (``q``) or columns (``k``).

    >>> from cost_models.masks import Segment
    >>> find_shared([KernelCall((Segment(0, 4, 0, 4),), None, 0), KernelCall((Segment(2, 6, 4, 8),), None, None)], "q")
    Shared(parts=2, part_rows=8, runs=1, rows=6)
    """
    start, stop = f"{side}_start", f"{side}_stop"
    covered = [join_slices([(getattr(s, start), getattr(s, stop)) for s in launch.segments]) for launch in launches]
    parts = sorted(part for each in covered for part in each)
    if not any(after[0] < before[1] for before, after in pairwise(parts)):
        return Shared()
    runs = join_slices(parts)
    return Shared(len(parts), _length(parts), len(runs), _length(runs))


def join_slices(slices: Slices) -> Slices:
    """The same rows in disjoint slices, in order.

    >>> join_slices([(4, 8), (0, 2), (1, 4)])
    [(0, 8)]
    """
    joined: Slices = []
    for first, last in sorted(slices):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined


def _length(slices: Slices) -> int:
    return sum([last - first for first, last in slices])


def shared_tensors(
    launches: Sequence[KernelCall], shape: AttentionShape, direction: str
) -> list[tuple[Shared, int]]:  # fmt: skip
    """Each tensor that is put together: what is shared of it, and values of a row.

    O forward; dQ, dK and dV backward.
    """
    if len(launches) < 2:
        return []
    rows = find_shared(launches, "q")
    queries = shape.problems * (shape.v_head_dim if direction == "forward" else shape.head_dim)
    found = [(rows, queries)] if rows.parts else []
    if direction == "forward":
        return found
    columns, heads = find_shared(launches, "k"), shape.batch * shape.kv_heads
    return found + [(columns, heads * dim) for dim in (shape.head_dim, shape.v_head_dim) if columns.parts]


def estimate_put_together_s(
    profile: HardwareProfile, launches: Sequence[KernelCall], shape: AttentionShape, direction: str
) -> float:
    """Time on the GPU, in seconds."""
    adds = {"forward": "merge", "backward": "accumulate"}[direction]
    overhead_s, e, seconds = profile.elementwise.overhead_s, shape.element_bytes, 0.0
    for shared, width in shared_tensors(launches, shape, direction):
        whole, parts = shared.rows * width, shared.part_rows * width
        for read, written, pattern in (
            (0, 4 * whole, "fill"), ((4 + e) * parts, 4 * parts, adds), (4 * whole, e * whole, "copy"),
        ):  # fmt: skip
            seconds += float(estimate_elementwise_s(profile, read, written, pattern)) - overhead_s
        seconds += shared.launches(direction) * overhead_s
    return seconds


def put_together_launches(launches: Sequence[KernelCall], shape: AttentionShape, direction: str) -> int:
    """Memory-bound kernels that the host launches for it."""
    return sum([shared.launches(direction) for shared, _ in shared_tensors(launches, shape, direction)])


def put_together_bytes(
    launches: Sequence[KernelCall], shape: AttentionShape, direction: str, workspace_bytes: int
) -> int:
    """Memory that an operation takes besides its results.

    The parts; with them the last launch's workspace, before there are results, or the sum in fp32 of one tensor.

    Parameters
    ----------
    workspace_bytes : the most that a launch needs.
    """
    tensors = shared_tensors(launches, shape, direction)
    parts = sum([shared.part_rows * width * shape.element_bytes for shared, width in tensors])
    results = sum([shared.rows * width * shape.element_bytes for shared, width in tensors])
    summed = max([4 * shared.rows * width for shared, width in tensors], default=0)
    return max(workspace_bytes + parts - results, parts + summed)
