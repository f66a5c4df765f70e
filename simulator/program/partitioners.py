"""Ways to split a sequence of S tokens over P parts: any schedule takes any that its maths allows.

| name | part r holds | balances | source |
|---|---|---|---|
| contiguous | [r c, (r+1) c), c = S/P | full masks | RingAttention, arXiv 2310.01889 |
| zigzag | chunks r and 2P-1-r of 2P | causal masks, in every step | ring-flash-attention, Llama 3 |
| striped | r, r+P, r+2P, ... | causal masks, to 1 +- 1/c | Striped Attention, arXiv 2311.09431 |
| document-zigzag | of every document, chunks r and 2P-1-r of 2P | causal documents | TransformerEngine, LongCA-bench |
| area-balanced | S/(P chunk) chunks | any mask, in total | github SandAI-org/MagiAttention |

document-zigzag pads each document to a multiple of 2P; area-balanced gives the chunk left with the largest area (pairs
of its queries) to the part with the least area so far that still takes chunks: a greedy min-heap (the exact problem is
NP-hard), in O(n log n) for n chunks. Every part of either has as many tokens, padding included.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import numpy as np

from cost_models.masks import DocumentMask, Mask, TokenRange, count_tokens, join_ranges
from simulator.program.partition import Partition
from traces.errors import InputError

MAGI_CHUNK = 2048
"""Chunk of MagiAttention's benchmark (cp_benchmark.md)."""


def build_partition(
    name: str, seq_len: int, parts: int, mask: Mask | None = None, *, chunk: int | None = None, multiple: int = 1
) -> Partition:
    """Split ``seq_len`` tokens over ``parts`` ranks.

    Parameters
    ----------
    mask : gives the documents and the areas; document-zigzag takes the sequence as one document without it.
    chunk : of area-balanced; default `default_chunk`.
    multiple : every part has a multiple of so many tokens; where padding is allowed, it is padded to that.

    Raises
    ------
    InputError
        For an unknown name, or where the chunks do not divide the sequence.

    >>> build_partition("striped", 6, 3).ranges(1)
    (TokenRange(start=1, stop=6, stride=3),)
    """
    if name not in PARTITIONERS:
        raise InputError("unknown partition", got=name, expected="one of " + ", ".join(PARTITIONERS))
    if name == "area-balanced":
        return _area_balanced(seq_len, parts, mask, chunk or default_chunk(seq_len, parts), multiple)
    if name == "document-zigzag":
        return _document_zigzag(seq_len, parts, mask if isinstance(mask, DocumentMask) else None, multiple)
    return _uniform(name, seq_len, parts, multiple)


def default_chunk(seq_len: int, parts: int) -> int:
    """Tokens of a chunk: MagiAttention's 2048, or what leaves a part 8 to 64 chunks; a divisor of S/P.

    >>> default_chunk(2**20, 8), default_chunk(96, 4), default_chunk(2**23, 4)
    (2048, 3, 32768)
    """
    own = max(1, seq_len // parts)
    most = max(1, min(max(MAGI_CHUNK, own // 64), own // 8))
    return next(chunk for chunk in range(most, 0, -1) if own % chunk == 0)


@lru_cache(maxsize=64)
def _uniform(name: str, seq_len: int, parts: int, multiple: int) -> Partition:
    builder, chunks_per_part = _UNIFORM[name]
    _require_multiple(seq_len, chunks_per_part, parts, name)
    partition = builder(seq_len, parts)
    if int(partition.tokens[0]) % multiple:
        raise InputError(f"{name} parts of {partition.tokens[0]} tokens are not divisible by {multiple}",
                         remedy=f"use a seq_len that is a multiple of {parts * multiple}")  # fmt: skip
    return partition


def _require_multiple(seq_len: int, chunks_per_part: int, parts: int, name: str) -> None:
    chunks = chunks_per_part * parts
    if chunks and seq_len % chunks:
        factor = "" if chunks_per_part == 1 else f"{chunks_per_part} x "
        raise InputError(
            f"seq_len {seq_len} is not divisible by {factor}{parts} {name} chunks", remedy=f"use a multiple of {chunks}"
        )


def _contiguous(seq_len: int, parts: int) -> Partition:
    edge = np.arange(parts + 1) * (seq_len // parts)
    return Partition("contiguous", edge[:-1, None], edge[1:, None])


def _zigzag(seq_len: int, parts: int) -> Partition:
    chunk, part = seq_len // (2 * parts), np.arange(parts)
    start = np.stack([part, 2 * parts - 1 - part], axis=1) * chunk
    return Partition("zigzag", start, start + chunk)


def _striped(seq_len: int, parts: int) -> Partition:
    start = np.arange(parts)[:, None]
    return Partition("striped", start, np.full_like(start, seq_len), stride=parts)


@lru_cache(maxsize=64)
def _document_zigzag(seq_len: int, parts: int, mask: DocumentMask | None, multiple: int) -> Partition:
    spans = mask.spans if mask is not None else [(0, seq_len)]
    held: list[list[TokenRange]] = [[] for _ in range(parts)]
    padded = 0
    for start, stop in spans:
        chunk = -(-(stop - start) // (2 * parts))
        padded += 2 * chunk
        for part, ranges in enumerate(held):
            for place in (part, 2 * parts - 1 - part):
                first = start + place * chunk
                ranges.append(TokenRange(min(first, stop), min(first + chunk, stop)))
    padded = -(-padded // multiple) * multiple
    return Partition.of("document-zigzag", _pad(seq_len, [join_ranges(ranges) for ranges in held], padded))


def _pad(seq_len: int, held: list[list[TokenRange]], tokens: int) -> list[list[TokenRange]]:
    """Parts of ``tokens`` rows: what is missing comes from beyond the sequence, for each part other tokens."""
    beyond, padded = seq_len, []
    for ranges in held:
        missing = tokens - count_tokens(ranges)
        padded.append([*ranges, TokenRange(beyond, beyond + missing)])
        beyond += missing
    return padded


@lru_cache(maxsize=64)
def _area_balanced(seq_len: int, parts: int, mask: Mask | None, chunk: int, multiple: int) -> Partition:
    if seq_len % (chunk * parts):
        raise InputError(
            f"seq_len {seq_len} is not divisible by {parts} x {chunk}, area-balanced chunks",
            remedy=f"use a multiple of {chunk * parts}, or another chunk",
        )
    if (seq_len // parts) % multiple:
        raise InputError(f"parts of {seq_len // parts} tokens are not divisible by {multiple}")
    edges = range(0, seq_len + 1, chunk)
    whole = [TokenRange(0, seq_len)]
    areas = [
        chunk * seq_len if mask is None else mask.count_pairs([TokenRange(a, b)], whole, seq_len)
        for a, b in pairwise(edges)
    ]
    chosen = dispatch_chunks(areas, parts)
    ranges = [join_ranges(TokenRange(edges[i], edges[i + 1]) for i in sorted(each)) for each in chosen]
    return Partition.of("area-balanced", ranges)


def dispatch_chunks(areas: list[int], parts: int) -> list[list[int]]:
    """Which chunks each part gets, the same number each, so that the areas are nearly alike.

    >>> dispatch_chunks([5, 1, 4, 2], 2)
    [[0, 1], [2, 3]]
    """
    room = len(areas) // parts
    chosen: list[list[int]] = [[] for _ in range(parts)]
    heap = [(0, part) for part in range(parts)]
    for number in sorted(range(len(areas)), key=lambda i: (-areas[i], i)):
        load, part = heapq.heappop(heap)
        chosen[part].append(number)
        if len(chosen[part]) < room:
            heapq.heappush(heap, (load + areas[number], part))
    return chosen


@lru_cache(maxsize=64)
def split_parts(partition: Partition, step: int, pieces: int) -> Partition:
    """Each part cut into equal pieces: parts m ``step`` + j, j < ``step``, to (m ``pieces`` + i) ``step`` + j, piece i.

    So ranks that lie ``step`` apart, ``pieces`` of them, hold together what one part holds, in order.

    >>> halves = build_partition("contiguous", 8, 2)
    >>> [str(split_parts(halves, 2, 2).ranges(part)[0]) for part in range(4)]
    ['[0, 2)', '[4, 6)', '[2, 4)', '[6, 8)']
    """
    held: list[list[TokenRange]] = []
    for group in range(partition.parts // step):
        for piece in range(pieces):
            held += [_piece(partition.ranges(group * step + j), piece, pieces) for j in range(step)]
    return Partition.of(partition.name, held)


def _piece(ranges: tuple[TokenRange, ...], piece: int, pieces: int) -> list[TokenRange]:
    """One of equal pieces of the tokens of some ranges."""
    own = count_tokens(ranges) // pieces
    first, found = piece * own, []
    for tokens in ranges:
        skip, keep = max(0, first), min(len(tokens), first + own)
        if keep > skip:
            stride = tokens.stride
            found.append(TokenRange(tokens.start + skip * stride, tokens.start + (keep - 1) * stride + 1, stride))
        first -= len(tokens)
    return found


_UNIFORM: dict[str, tuple[Callable[[int, int], Partition], int]] = {
    "contiguous": (_contiguous, 1), "zigzag": (_zigzag, 2), "striped": (_striped, 1),
}  # fmt: skip
PARTITIONERS = (*_UNIFORM, "document-zigzag", "area-balanced")
