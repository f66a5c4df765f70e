"""Attention of few queries: a kv head's query heads share a piece of work, and several pieces share its keys.

A call whose queries, times the query heads of a kv head, fit into one tile has as many pieces as kv heads and batch
rows, which leaves most multiprocessors idle (decoding has 8). Kernels then pack the query heads of a group into the
rows of one tile, split the keys into s parts, and combine the parts' fp32 outputs by their LSE in a second kernel:

    pieces = batch x kv heads x s,     keys of one = ceil(tiles / s) tiles
    combine = overhead + s rows H B (4 Dv + 4) / rate + its output

s is the least number of parts that fills the multiprocessors at least 85 % as evenly as any does,

    fill(s) = w / ceil(w),   w = s pieces / slots,      1 where pieces fill 80 % of the slots or a piece has few tiles

Together they read K and V once, at the rate at which memory is read (``KernelPass.read_share``).

flash-attention 3 and 4 do so for any few queries. flash-attention 2 packs the heads of one query only, and splits the
keys of any few; cuDNN as PyTorch calls it does either for one query only (measured on an H100: 16 queries of 8,192 keys
take 7 times as long as one). So do the parts of a launch with several queries read K and V once per query head, from
the L2 cache where they lie.

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

MAX_SPLITS = 128
FULL, EVEN = 0.8, 0.85
"""Share of the slots that is taken for all of them; of the best fill that is good enough."""
FEW_TILES = 4
"""Tiles of keys up to which they are not split."""

_MOST_SPLIT = {"triton": 0, "cudnn": 1}
"""Queries up to which a kernel splits keys, where that is not a tile of them."""
_MOST_PACKED = {"triton": 0, "cudnn": 1, "flash2": 1}
"""Queries up to which it packs the query heads of a kv head."""


@lru_cache
def split_tiles(kernel: str, curve: KernelPass, head_dim: int) -> KernelPass:
    """The pass with the tiles of the kernel's variant that splits keys.

    flash-attention 2 has 64 rows and 256 columns up to head dim 64, 128 up to 128, else 64
    (csrc/flash_attn/src/flash_fwd_launch_template.h, run_mha_fwd_splitkv_dispatch); the others keep theirs.
    """
    if kernel != "flash2":
        return curve
    columns = 256 if head_dim <= 64 else 128 if head_dim <= 128 else 64
    return curve.model_copy(update={"tile_rows": 64, "tile_columns": columns})


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
    """Tiles of keys up to which they are not split: flash-attention 3's rule, which 2 does not have."""
    return 1 if kernel == "flash2" else FEW_TILES


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
    return float(estimate_elementwise_s(profile, 2 * parts, outputs * dv * shape.element_bytes, "reduce"))
