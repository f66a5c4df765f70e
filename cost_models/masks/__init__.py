"""Attention masks: which (query, key) pairs are computed, how many they are, and by which kernel calls.

>>> mask = parse_mask("causal")
>>> mask.count_pairs([TokenRange(0, 4)], [TokenRange(0, 8)], seq_len=8), mask.area(8)
(10, 36)
"""

from cost_models.masks.blocks import Block, count_pairs, count_pairs_array
from cost_models.masks.documents import (
    BlockCausalDocument,
    CausalBlockwise,
    Document,
    DocumentMask,
    PrefixDocument,
    ShareQuestion,
)
from cost_models.masks.explicit import BlockMask, apb_mask
from cost_models.masks.launches import KernelCall, Segment
from cost_models.masks.lowering import MAX_LAUNCHES, Lowering, lower, lower_joined
from cost_models.masks.mask import Mask
from cost_models.masks.needed import needed_keys
from cost_models.masks.parse import MASKS, parse_mask
from cost_models.masks.sparse import BlockSparse
from cost_models.masks.static import CausalMask, FullMask, GlobalSliding, PrefixCausal, SlidingWindow
from cost_models.masks.tokens import TokenRange, count_tokens, gather_tokens, join_ranges

__all__ = [
    "MASKS",
    "MAX_LAUNCHES",
    "Block",
    "BlockCausalDocument",
    "BlockMask",
    "BlockSparse",
    "CausalBlockwise",
    "CausalMask",
    "Document",
    "DocumentMask",
    "FullMask",
    "GlobalSliding",
    "KernelCall",
    "Lowering",
    "Mask",
    "PrefixCausal",
    "PrefixDocument",
    "Segment",
    "ShareQuestion",
    "SlidingWindow",
    "TokenRange",
    "apb_mask",
    "count_pairs",
    "count_pairs_array",
    "count_tokens",
    "gather_tokens",
    "join_ranges",
    "lower",
    "lower_joined",
    "needed_keys",
    "parse_mask",
]
