"""Attention of few queries: a kv head's query heads share a piece of work, and several pieces share its keys.

A call whose queries, times the query heads of a kv head, fit into one tile has as many pieces as kv heads and batch
rows, which leaves most multiprocessors idle (decoding has 8). Kernels then pack the query heads of a group into the
rows of one tile, split the keys into s parts, and combine the parts' fp32 outputs by their LSE in a second kernel:

    pieces = batch x kv heads x s,     keys of one = ceil(tiles / s) tiles
    combine = overhead + s rows H B (4 Dv + 4) / rate + its output,   at the rate of the L2 cache, where that holds them

s is the least number of parts that fills the multiprocessors at least 85 % as evenly as any does,

    fill(s) = w / ceil(w),   w = s pieces / slots,      1 where pieces fill 80 % of the slots or a piece has few tiles

Together they read K and V once, at the rate at which memory is read (``KernelPass.read_share``).

flash-attention 3 and 4 do so for any few queries. flash-attention 2 packs the heads of one query only, and splits the
keys of any forward call of one segment that has few pieces, of many queries too (`split_launch`); cuDNN as PyTorch
calls it does either for one query only (measured on an H100: 16 queries of 8,192 keys take 7 times as long as one). So
do the parts of a launch with several queries read K and V once per query head, from the L2 cache where they lie.

Kernels that read rows of fewer bits, or latent rows, have tiles of 16 rows, for which matrix units take at most half of
their rate (mma.m16n8k16 beside wgmma): priced as 2 x 16 ceil(rows / 16) rows. What they convert hides behind memory:
two instructions a value are a fifth of the time that its byte takes on an H100 (3.4 TB/s, 30 T lanes/s).
Source: Dao et al. 2023, "Flash-Decoding for long-context inference"; Dao-AILab/flash-attention, csrc/flash_attn/
flash_api.cpp and hopper/heuristics.h (num_splits_heuristic, should_pack_gqa). FlashInfer, cuDNN and FlexDecoding do
likewise; our Triton kernel does neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from cost_models.kernels.elementwise import estimate_elementwise_s
from cost_models.kernels.shape import AttentionShape
from cost_models.masks import KernelCall

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile, KernelPass

FEW_S = 3e-6
"""What splitting few queries takes besides, where nothing hides that the second kernel waits for the last part:
decoding steps of 2,048 to 131,072 keys on an H100 take 3 to 6 us more than their parts, calls of 512 queries do not."""
CACHED_RATE = 2.0
"""Rate of the L2 cache, in those of memory: kernels in a row over 8 to 25 MB reach 3.4 to 8.6 TB/s on an H100."""
MAX_SPLITS = 128
FULL, EVEN = 0.8, 0.85
"""Share of the slots that is taken for all of them; of the best fill that is good enough."""
SPLIT_ROWS = 64
"""Queries of a tile of flash-attention 2 where it splits keys."""
FEW_TILES = 4
"""Tiles of keys up to which they are not split."""

_MOST_SPLIT = {"triton": 0, "cudnn": 1}
"""Queries up to which a kernel splits keys, where that is not a tile of them."""
_MOST_PACKED = {"triton": 0, "cudnn": 1, "flash2": 1}
"""Queries up to which it packs the query heads of a kv head."""


def split_launch(kernel: str, calls: Sequence[KernelCall], shape: AttentionShape, sm_count: int) -> int:
    """Parts into which flash-attention 2 splits the keys of a forward launch; 1 for other kernels.

    It counts pieces of 64 rows and two places on each multiprocessor, whatever the mask leaves out
    (csrc/flash_attn/flash_api.cpp, set_params_splitkv, which variable-length launches do not call).

    >>> from cost_models.masks import Segment
    >>> shape = AttentionShape(1, 8, 8, 128, 128, "bf16")
    >>> calls = [[KernelCall((Segment(0, rows, 0, rows),), None, 0)] for rows in (512, 1024, 2048)]
    >>> [split_launch("flash2", call, shape, 132) for call in calls]
    [4, 2, 1]
    """
    if kernel != "flash2" or len(calls) > 1 or len(calls[0].segments) > 1:
        return 1
    (segment,) = calls[0].segments
    pieces = -(-(segment.q_stop - segment.q_start) // SPLIT_ROWS) * shape.problems
    tiles = -(-(segment.k_stop - segment.k_start) // split_columns(shape.head_dim))
    return count_splits(pieces, 2 * sm_count, tiles, least_tiles(kernel))


def split_columns(head_dim: int) -> int:
    """Keys of a tile of flash-attention 2 where it splits them (flash_fwd_launch_template.h)."""
    return 256 if head_dim <= 64 else 128 if head_dim <= 128 else 64


@lru_cache
def split_tiles(kernel: str, curve: KernelPass, head_dim: int) -> KernelPass:
    """The pass with the tiles of the kernel's variant that splits keys.

    flash-attention 2 has 64 rows and 256 columns up to head dim 64, 128 up to 128, else 64
    (csrc/flash_attn/src/flash_fwd_launch_template.h, run_mha_fwd_splitkv_dispatch); the others keep theirs.
    """
    if kernel != "flash2":
        return curve
    return curve.model_copy(update={"tile_rows": SPLIT_ROWS, "tile_columns": split_columns(head_dim)})


def has_few_queries(kernel: str, calls: Sequence[KernelCall], tile_rows: int) -> bool:
    """Whether a forward launch's queries fit into one tile, and the kernel has a variant for that."""
    return len(calls) == 1 and _queries(calls[0]) <= min(tile_rows, _MOST_SPLIT.get(kernel, tile_rows))


def pack_heads(kernel: str, call: KernelCall, shape: AttentionShape, tile_rows: int) -> AttentionShape:
    """The grid of a launch of few queries: a problem per kv head, where its query heads fit into one tile together.

    >>> from cost_models.masks import Segment
    >>> token = KernelCall((Segment(0, 1, 0, 8192),), None, None)
    >>> pack_heads("flash2", token, AttentionShape(1, 32, 8, 128, 128, "bf16"), 128).problems
    8
    """
    queries = _queries(call)
    if queries * (shape.heads // shape.kv_heads) > tile_rows or queries > _MOST_PACKED.get(kernel, tile_rows):
        return shape
    return replace(shape, heads=shape.kv_heads)


def narrow_tile_rows(call: KernelCall, shape: AttentionShape, tile_rows: int) -> int:
    """Rows as which a tile of a kernel for cached rows is priced.

    >>> from cost_models.masks import Segment
    >>> token = KernelCall((Segment(0, 1, 0, 8192),), None, None)
    >>> [narrow_tile_rows(token, AttentionShape(1, h, k, 128, 128, "bf16"), 128) for h, k in ((32, 8), (128, 1))]
    [32, 128]
    """
    rows = _queries(call) * (shape.heads // shape.kv_heads)
    return min(tile_rows, 2 * 16 * -(-rows // 16))


def _queries(call: KernelCall) -> int:
    """Of the longest segment."""
    return max(segment.q_stop - segment.q_start for segment in call.segments)


def least_tiles(kernel: str) -> int:
    """Tiles of keys up to which they are not split: flash-attention 3's rule, which 2 and cuDNN do not have."""
    return 1 if kernel in ("flash2", "cudnn") else FEW_TILES


def count_splits(pieces: int, slots: int, tiles: int, few_tiles: int = FEW_TILES) -> int:
    """Parts into which each piece's keys are split.

    Parameters
    ----------
    pieces, tiles : of the launch without splitting, and tiles of keys that the longest visits.
    slots : pieces that run at once.
    few_tiles : tiles up to which they are not split.

    >>> count_splits(8, 132, 64), count_splits(48, 108, 64), count_splits(120, 132, 64), count_splits(8, 132, 4)
    (16, 2, 1, 1)
    """
    if pieces >= FULL * slots or tiles <= few_tiles:
        return 1
    numbers = range(1, min(MAX_SPLITS, slots, tiles) + 1)
    # 11 parts of 64 tiles have 6 each, and so have 12: only the lesser is a way to split.
    distinct = [s for s in numbers if s == 1 or -(-tiles // s) != -(-tiles // (s - 1))]
    fill = {s: s * pieces / slots / -(-s * pieces // slots) for s in distinct}
    enough = EVEN * max(fill.values())
    return next(s for s in distinct if fill[s] >= enough)


def estimate_combine_s(profile: HardwareProfile, rows: int, splits: int, shape: AttentionShape) -> float:
    """Time to write the parts' outputs and LSE, and of the kernel that combines them, in seconds."""
    if splits == 1:
        return 0.0
    outputs, dv = rows * shape.problems, shape.v_head_dim
    parts = splits * outputs * (4 * dv + 4)
    if 2 * parts <= profile.l2_bytes:
        parts = int(parts / CACHED_RATE)
    return float(estimate_elementwise_s(profile, 2 * parts, outputs * dv * shape.element_bytes, "reduce"))


def estimate_unpack_s(profile: HardwareProfile, kernel: str, packed: AttentionShape, shape: AttentionShape) -> float:
    """Time in which the output and the LSE of packed heads get the shape that was asked for, in seconds.

    flash-attention 2 as PyTorch calls it copies them (aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp,
    seqlenq_ngroups_swapped): two kernels that move next to nothing.
    """
    return 2 * profile.elementwise.overhead_s if kernel == "flash2" and packed != shape else 0.0
