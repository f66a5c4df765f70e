"""Megatron's hybrid context parallelism: each packed sample gets as many ranks as its length needs, and no more.

A document of L tokens goes to the smallest power of two g >= L / t of neighbouring ranks, t tokens a rank at most, to
the aligned group of g ranks that has the least work (L^2 / g a rank) so far, longest documents first. Within its g
ranks it is a zigzag ring: padded to a multiple of 2 g, g - 1 hops of its K and V. Samples of a group size run one
after the other, of all sizes from the largest down; short documents move nothing. Masks that join documents (full,
causal, ...) are one sample: a plain ring.

    forward, rank      sum over g > 1 of (g - 1) 2 A_kv(g) e,   A_kv(g) of the rank's rows of samples on g ranks
Source: Megatron-LM's hybrid_context_parallel (BalancedCPScheduler, max_seqlen_per_dp_cp_rank), as described in
MagiAttention's cp_benchmark.md, whose benchmark has t = 8192.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, NamedTuple, Self

import numpy as np

from cost_models.masks import BlockCausalDocument, Document, Mask, PrefixDocument, TokenRange
from simulator.program.operations import IntArray
from simulator.program.partition import Layout, Partition
from simulator.program.recorder import Recorder
from simulator.program.rings import Ring as RingGroup
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, check_choice, detail
from simulator.schedules.ring import Ring, circulate, circulate_back
from traces.errors import InputError

SEPARATE = (Document, PrefixDocument, BlockCausalDocument)
"""Masks under which no query sees another document."""


class SizeClass(NamedTuple):
    """The samples that run on groups of ``size`` ranks: which rows of each rank they are."""

    size: int
    layout: Layout
    first_row: IntArray


@dataclass(frozen=True)
class HybridCp(Schedule):
    """Hybrid context parallelism.

    Parameters
    ----------
    tokens : most tokens t of a document on a rank; default S / P.
    grad : dtype in which dK and dV circulate, bf16 or fp32.
    """

    tokens: int | None = None
    grad: str = detail("bf16")

    name: ClassVar[str] = "hybrid-cp"
    source: ClassVar[str] = "Megatron-LM, hybrid context parallel; LongCA-bench, arXiv 2510.17896; cp_benchmark.md"
    whole_prompt: ClassVar[str] = "it assigns whole sequences to ranks"

    def resolve(self, setup: Setup) -> Self:
        """Fill in the tokens."""
        return replace(self, tokens=self.tokens or -(-setup.workload.seq_len // setup.n_ranks))

    def check(self, setup: Setup) -> None:
        """Refuse ranks that are no power of two, and documents longer than all ranks hold."""
        check_choice(self, "grad", ("bf16", "fp32"))
        ranks = setup.n_ranks
        if ranks & (ranks - 1):
            raise InputError("hybrid-cp needs a power of two of ranks", got=ranks)
        longest, tokens = max(stop - start for start, stop in _samples(setup)), self.resolve(setup).tokens or 1
        if longest > tokens * ranks:
            raise InputError(
                f"hybrid-cp: a document of {longest} tokens does not fit {ranks} ranks of {tokens}",
                remedy=f"use tokens={-(-longest // ranks)} or more",
            )

    def _classes(self, setup: Setup) -> tuple[Partition, tuple[SizeClass, ...]]:
        tokens = self.resolve(setup).tokens or 1
        return assign_samples(tuple(_samples(setup)), setup.workload.seq_len, setup.n_ranks, tokens)

    def input_partition(self, setup: Setup) -> Partition:
        """Samples of every size, the largest groups first."""
        return self._classes(setup)[0]

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """For each size of group, a ring in every group."""
        w, classes = r.setup.workload, self._classes(r.setup)[1]
        o = r.tensor("o", q.layout, w.heads, w.v_head_dim, w.dtype)
        lse = r.tensor("lse", q.layout, w.heads, 1, "fp32")
        for each in classes:
            q_i, k_i, v_i, o_i, lse_i = [_rows(r, tensor, each) for tensor in (q, k, v, o, lse)]
            if each.size == 1:
                for _ in r.steps(1):
                    r.merge(None, r.attention(q_i, k_i, v_i, out=(o_i, lse_i)))
                continue
            parts = circulate(r, _rings(r.setup, each.size), q_i, k_i, v_i, Ring(grad=self.grad))
            for part, whole in zip(parts, (o_i, lse_i), strict=True):
                r.copy("cast", (part,), whole, "copy")
        return o, lse

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same rings with gradients."""
        gradients = [r.like(tensor, f"d{tensor.buffer.name}") for tensor in (q, k, v)]
        for each in self._classes(r.setup)[1]:
            q_i, k_i, v_i, o_i, lse_i, do_i = [_rows(r, tensor, each) for tensor in (q, k, v, *saved, do)]
            how = Ring(grad=self.grad)
            parts = circulate_back(r, _rings(r.setup, each.size), (q_i, k_i, v_i), (o_i, lse_i), do_i, how)
            for part, whole in zip(parts, gradients, strict=True):
                r.copy("cast", (part,), _rows(r, whole, each), "copy")
        return gradients[0], gradients[1], gradients[2]


def _samples(setup: Setup) -> list[tuple[int, int]]:
    mask: Mask = setup.workload.mask
    return mask.spans if isinstance(mask, SEPARATE) else [(0, setup.workload.seq_len)]


def _rings(setup: Setup, size: int) -> tuple[RingGroup, RingGroup]:
    return setup.ring(f"cp{size}", 1, size), setup.ring("outer", setup.n_ranks, 1)


def _rows(r: Recorder, tensor: Tensor, each: SizeClass) -> Tensor:
    return r.view(tensor, tensor.buffer.name, rows=(each.first_row, each.layout.tokens), layout=each.layout)


@lru_cache(maxsize=32)
def assign_samples(
    samples: tuple[tuple[int, int], ...], seq_len: int, ranks: int, tokens: int
) -> tuple[Partition, tuple[SizeClass, ...]]:
    """Each rank's samples, and which of its rows run on groups of which size."""
    load, beyond = np.zeros(ranks), seq_len
    held: dict[int, list[list[TokenRange]]] = {}
    for start, stop in sorted(samples, key=lambda span: (span[0] - span[1], span[0])):
        length = stop - start
        size = 1 << (max(1, -(-length // tokens)) - 1).bit_length()
        group = int(load.reshape(-1, size).max(axis=1).argmin())
        load[group * size : (group + 1) * size] += length**2 / size
        parts = held.setdefault(size, [[] for _ in range(ranks)])
        chunk = -(-length // (2 * size)) if size > 1 else length
        for place in range(size):
            own, padding = _zigzag(start, stop, chunk, place, size)
            parts[group * size + place] += [*own, TokenRange(beyond, beyond + padding)]
            beyond += padding
    whole: list[list[TokenRange]] = [[] for _ in range(ranks)]
    classes, first_row = [], np.zeros(ranks, dtype=np.int64)
    for size in sorted(held, reverse=True):
        layout = Layout.home(Partition.of(f"samples on {size}", held[size]))
        classes.append(SizeClass(size, layout, first_row))
        first_row = first_row + layout.partition.tokens
        whole = [have + more for have, more in zip(whole, held[size], strict=True)]
    return Partition.of("samples", whole), tuple(classes)


def _zigzag(start: int, stop: int, chunk: int, place: int, size: int) -> tuple[list[TokenRange], int]:
    """A rank's two chunks of a sample, and the rows of padding it takes for what is missing of them."""
    if size == 1:
        return [TokenRange(start, stop)], 0
    edges = [start + chunk * number for number in (place, 2 * size - 1 - place)]
    own = [TokenRange(min(edge, stop), min(edge + chunk, stop)) for edge in edges]
    return own, 2 * chunk - sum(map(len, own))
