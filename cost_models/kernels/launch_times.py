"""Seconds of one launch of an attention kernel.

    launch = overhead + max(slowed(b), bytes / HBM rate) + around,      b = busy (1 + miss cost missed)

busy is the makespan of the pieces (`pieces`), which the power limit slows down with time (`power`).
The bytes are the least that the kernel moves. What the pieces in flight share (`pieces`) is read by all
multiprocessors, so that both partitions of the L2 cache hold it: missed = max(0, 1 - L2 / (2 shared)).

Forward launches of few queries split their keys (`split_keys`), where that is faster; flash-attention 2 splits those of
others too, by its own rule.

Around it backward has what flash-attention launches besides: before it delta = rowsum(dO O) with the clearing of the
fp32 dQ accumulator, after it the accumulator's conversion and, for grouped heads, the sum of dK and dV over the query
heads of a group.

The time does not depend on where rows lie, so every distinct launch is looked at once; the work before it, which the
power limit counts, comes on top.
Source: Dao 2023 (FlashAttention-2), sections 3.1 and 3.2; Shah et al. 2024 (FlashAttention-3), section 3.1.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cost_models.kernels.elementwise import estimate_elementwise_s
from cost_models.kernels.pieces import choose_splits, count_piece_waves, count_pieces
from cost_models.kernels.power import slowed_s
from cost_models.kernels.shape import AttentionShape
from cost_models.kernels.split_keys import (
    FEW_S,
    estimate_combine_s,
    estimate_unpack_s,
    has_few_queries,
    least_tiles,
    narrow_tile_rows,
    pack_heads,
    split_launch,
    split_tiles,
)
from cost_models.masks import KernelCall

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile, KernelPass


@dataclass(frozen=True, slots=True)
class Launch:
    """What of a launch does not depend on the work before it.

    Attributes
    ----------
    mains : ways in which its main kernel may run: how long it is busy at the highest clock, and what follows it.
    floor_s : time of its bytes alone.
    around_s : kernels before and after.
    """

    mains: tuple[tuple[float, float], ...]
    floor_s: float
    around_s: float


class LaunchTimes:
    """Times of an attention kernel's launches on a GPU, for one shape and direction.

    Parameters
    ----------
    profile, kernel, shape, direction, precomputed_delta, share : as for
        :func:`cost_models.kernels.estimate_calls_s`.

    Raises
    ------
    InputError
        Where the GPU has no such kernel, or no matrix units for the dtype.
    """

    def __init__(
        self, profile: HardwareProfile, kernel: str, shape: AttentionShape, direction: str,
        precomputed_delta: bool = False, share: float = 1.0,
    ) -> None:  # fmt: skip
        self.profile, self.kernel, self.shape, self.direction = profile, kernel, shape, direction
        self.curve = profile.kernel(kernel)
        self._pass = self.curve.direction(direction, shape.head_dim)
        self._peak, self._given_delta, self._share = profile.peak(shape.dtype), precomputed_delta, share
        self._kept: dict[Hashable, Launch] = {}

    def launch_s(self, calls: tuple[KernelCall, ...], worked_s: float = 0.0) -> float:
        """Time of a launch (of several calls: for general masks), in seconds, after ``worked_s`` without a rest."""
        launch = self._find(calls)
        main = min([self._main_s(busy_s, launch.floor_s, worked_s) + after_s for busy_s, after_s in launch.mains])
        return self._pass.overhead_s + main + launch.around_s if main else 0.0

    def before_s(self, calls: tuple[KernelCall, ...]) -> float:
        """Time of the kernel before a launch's main one."""
        return estimate_before_s(self.profile, calls, self.shape, self.direction, computes_delta=self._computes_delta)

    def waves(self, calls: tuple[KernelCall, ...]) -> float:
        """Pieces of a launch's main kernel, over those that run at once."""
        grid = self.curve.whole_grid or len(calls) > 1
        return count_piece_waves(self._pass, grid, self.profile.sm_count, calls, self.shape, self.direction)

    def _main_s(self, busy_s: float, floor_s: float, worked_s: float) -> float:
        return max(slowed_s(self._pass, self.profile.power, busy_s, worked_s), floor_s) if busy_s else 0.0

    @property
    def _computes_delta(self) -> bool:
        return not (self._given_delta and self.curve.takes_delta)

    def _find(self, calls: tuple[KernelCall, ...]) -> Launch:
        key: Hashable = calls if self.curve.whole_grid or len(calls) > 1 else _without_place(calls[0])
        if key not in self._kept:
            self._kept[key] = self._look_at(calls)
        return self._kept[key]

    def _look_at(self, calls: tuple[KernelCall, ...]) -> Launch:
        profile, shape, direction = self.profile, self.shape, self.direction
        rows, columns = count_tokens(calls)
        # Kernels for cached rows pack and split any few queries, whoever's they are.
        variant = self.kernel if shape.row_bytes is None or self.kernel == "triton" else "cached"
        few = direction == "forward" and has_few_queries(variant, calls, self._pass.tile_rows)
        of_memory = self._pass.read_share if few and self._pass.read_share else profile.elementwise.efficiency["copy"]
        floor_s = _bytes(rows, columns, shape, direction) / (profile.hbm_bytes_per_s * of_memory)
        mains = self._few_queries(variant, calls) if few else (self._many_queries(calls),)
        around_s = estimate_around_s(profile, calls, shape, direction, computes_delta=self._computes_delta)
        if self._given_delta and not self.curve.takes_delta:
            around_s += _output_with_delta_s(profile, rows, shape)
        return Launch(mains, floor_s, around_s)

    def _few_queries(self, variant: str, calls: tuple[KernelCall, ...]) -> tuple[tuple[float, float], ...]:
        """With query heads packed into tiles, and with keys split besides where there are too few pieces."""
        shape, chosen = self.shape, self._pass
        packed = pack_heads(variant, calls[0], shape, chosen.tile_rows)
        if shape.row_bytes is not None:
            narrow = narrow_tile_rows(calls[0], shape, chosen.tile_rows)
            chosen = chosen.model_copy(update={"tile_rows": narrow})
        after_s = estimate_unpack_s(self.profile, variant, packed, shape)
        whole = (self._busy_s(calls, chosen, packed), after_s)
        tiled = split_tiles(variant, chosen, shape.head_dim)
        splits = choose_splits(tiled, self.curve.whole_grid, self.profile.sm_count, calls, packed, least_tiles(variant))
        if splits == 1:
            return (whole,)
        after_s += FEW_S + estimate_combine_s(self.profile, count_tokens(calls)[0], splits, shape)
        return whole, (self._busy_s(calls, tiled, packed, splits), after_s)

    def _many_queries(self, calls: tuple[KernelCall, ...]) -> tuple[float, float]:
        """How long the main kernel is busy, and what follows it where it splits keys all the same."""
        profile, shape, splits = self.profile, self.shape, 1
        if self.direction == "forward":
            splits = split_launch(self.kernel, calls, shape, profile.sm_count)
        if splits == 1:
            return self._busy_s(calls, self._pass, shape), 0.0
        tiled = split_tiles(self.kernel, self._pass, shape.head_dim)
        combine_s = estimate_combine_s(profile, count_tokens(calls)[0], splits, shape)
        return self._busy_s(calls, tiled, shape, splits), combine_s

    def _busy_s(
        self, calls: tuple[KernelCall, ...], chosen: KernelPass, on_grid: AttentionShape, splits: int = 1
    ) -> float:
        """How long the main kernel is busy at the highest clock."""
        profile, grid = self.profile, self.curve.whole_grid or len(calls) > 1
        work = count_pieces(
            chosen, grid, profile.sm_count, self._peak, calls, on_grid, self.direction, splits, self._share
        )
        return work.busy_s * (1 + chosen.l2_miss_cost * missed_share(profile, work.shared_bytes))


def _without_place(call: KernelCall) -> Hashable:
    """A launch but for where its segments lie."""
    lengths = [(each.q_stop - each.q_start, each.k_stop - each.k_start) for each in call.segments]
    return tuple(lengths), call.left, call.right


def missed_share(profile: HardwareProfile, shared_bytes: float) -> float:
    """Part of the inner loops' loads that comes from memory: each half of the L2 cache holds what is shared."""
    return max(0.0, 1 - profile.l2_bytes / 2 / shared_bytes)


def count_tokens(calls: tuple[KernelCall, ...]) -> tuple[int, int]:
    """Rows and columns that are read: of all segments, or of several calls each once."""
    segments = [segment for call in calls for segment in call.segments]
    if len(calls) > 1:
        return max(s.q_stop for s in segments), max(s.k_stop for s in segments)
    return sum(s.q_stop - s.q_start for s in segments), sum(s.k_stop - s.k_start for s in segments)


def span_tokens(calls: tuple[KernelCall, ...]) -> tuple[int, int]:
    """Rows and columns from the first segment to the last, as our kernels around a variable-length one go over all.

    >>> from cost_models.masks import Segment
    >>> span_tokens((KernelCall((Segment(2, 4, 0, 3), Segment(8, 9, 5, 8)), None, 0),))
    (7, 8)
    """
    if len(calls) > 1 or len(calls[0].segments) == 1:
        return count_tokens(calls)
    segments = calls[0].segments
    first, last = min(s.q_start for s in segments), max(s.q_stop for s in segments)
    return last - first, max(s.k_stop for s in segments) - min(s.k_start for s in segments)


def attention_bytes(calls: Sequence[KernelCall], shape: AttentionShape, direction: str) -> float:
    """Least that the main kernels of some calls move to and from memory."""
    return sum([_bytes(*count_tokens((call,)), shape, direction) for call in calls])


def _bytes(rows: int, columns: int, shape: AttentionShape, direction: str) -> float:
    """Least that the main kernel moves: Q, K, V, O, LSE; backward also dO, delta, the fp32 dQ twice, dK and dV."""
    e, d, dv = shape.element_bytes, shape.head_dim, shape.v_head_dim
    queries, keys = rows * shape.problems, columns * shape.batch * shape.kv_heads
    forward = queries * ((d + dv) * e + 4) + keys * shape.key_bytes
    if direction == "forward":
        return forward
    return forward + queries * (4 + 8 * d) + columns * shape.problems * (d + dv) * e


def estimate_around_s(
    profile: HardwareProfile,
    calls: tuple[KernelCall, ...],
    shape: AttentionShape,
    direction: str,
    *,
    computes_delta: bool = True,
) -> float:
    """Kernels before and after the main one of a launch, in seconds; none in forward.

    In backward: delta and clearing, converting dQ, adding dK and dV of a group.
    """
    if direction == "forward":
        return 0.0
    rows, columns = span_tokens(calls) if profile.host.cold else count_tokens(calls)
    e, d, dv = shape.element_bytes, shape.head_dim, shape.v_head_dim
    queries, keys = rows * shape.problems, columns * shape.problems
    seconds = estimate_before_s(profile, calls, shape, direction, computes_delta=computes_delta)
    seconds += float(estimate_elementwise_s(profile, queries * 4 * d, queries * d * e, "copy"))
    if shape.kv_heads < shape.heads:
        size = keys * (d + dv) * e
        seconds += float(estimate_elementwise_s(profile, size, size * shape.kv_heads // shape.heads, "copy"))
    return seconds


def estimate_before_s(
    profile: HardwareProfile,
    calls: tuple[KernelCall, ...],
    shape: AttentionShape,
    direction: str,
    *,
    computes_delta: bool = True,
) -> float:
    """The kernel before the main one of a launch, in seconds: in backward delta and clearing, none in forward."""
    if direction == "forward":
        return 0.0
    rows = (span_tokens if profile.host.cold else count_tokens)(calls)[0]
    queries = rows * shape.problems
    delta = (2 * shape.v_head_dim * shape.element_bytes, 4) if computes_delta else (0, 0)
    read, written = queries * delta[0], queries * (delta[1] + 4 * shape.head_dim)
    return float(estimate_elementwise_s(profile, read, written, "copy"))


def _output_with_delta_s(profile: HardwareProfile, rows: int, shape: AttentionShape) -> float:
    """An output from dO and delta, whose row sums with dO are that delta: for kernels that compute it themselves."""
    size = rows * shape.problems * shape.v_head_dim * shape.element_bytes
    return float(estimate_elementwise_s(profile, size + 4 * rows * shape.problems, size, "reduce"))
