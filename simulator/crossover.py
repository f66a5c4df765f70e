"""The figures that the closed forms of `cost_models.crossover` need, as the simulator prices them on a cluster.

A rate is that of the transfer in question, at its size: bytes sent by a rank over seconds, all ranks at once; the times
that do not depend on size are in it. The compute rate is that of one kernel over a rank's share of the pairs, halfway
through the rank's work: the power limit slows what is long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cost_models.crossover import Crossovers, LinkFigures, estimate_forward_s, find_crossovers
from cost_models.hardware import HardwareProfile
from cost_models.kernels import AttentionShape, estimate_attention_s, estimate_elementwise_s
from cost_models.masks import CausalMask, TokenRange, lower
from cost_models.network import estimate_collective_s, estimate_exchange_s
from cost_models.topology import ClusterTopology
from cost_models.units import dtype_bytes
from cost_models.workload import AttentionWorkload


@dataclass(frozen=True)
class Advice:
    """Figures, where the fastest mechanism changes, and the seconds of each at the workload asked for."""

    links: LinkFigures
    flop_per_s: float
    crossovers: Crossovers
    forward_s: dict[str, float]


def advise(
    workload: AttentionWorkload, topology: ClusterTopology, profile: HardwareProfile, kernel: str,
    links: LinkFigures | None = None,
) -> Advice:  # fmt: skip
    """Closed forms for a workload on a cluster; ``links`` are the user's own figures, instead of the simulator's."""
    links = links or measure_links(workload, topology, profile)
    rate = measure_flop_per_s(workload, topology.n_ranks, profile, kernel)
    ranks = topology.n_ranks
    return Advice(
        links, rate, find_crossovers(workload, ranks, rate, links), estimate_forward_s(workload, ranks, rate, links)
    )  # fmt: skip


def measure_links(workload: AttentionWorkload, topology: ClusterTopology, profile: HardwareProfile) -> LinkFigures:
    """Rates of a hop of K and V round all ranks, of their all-gather, and of the all-to-all of Q."""
    w, ranks = workload, np.arange(topology.n_ranks)
    if len(ranks) == 1:
        return LinkFigures(np.inf, np.inf, np.inf)
    row = w.batch * w.seq_len // len(ranks) * w.head_dim * dtype_bytes(w.dtype)
    one, query, hop = row * w.kv_heads, row * w.heads, 2 * row * w.kv_heads
    hop_s = float(np.max(estimate_exchange_s(topology, profile, ranks, np.roll(ranks, -1), hop)))
    gather_s = estimate_collective_s(topology, profile, "all_gather", ranks, one)
    scatter_s = estimate_collective_s(topology, profile, "all_to_all", ranks, query)
    others = len(ranks) - 1
    merge_s = _merge_s(w, len(ranks), profile)
    return LinkFigures(hop / hop_s, others * one / gather_s, others * query / len(ranks) / scatter_s, merge_s=merge_s)


def _merge_s(w: AttentionWorkload, ranks: int, profile: HardwareProfile) -> float:
    """Of fp32 with partial results in the dtype; on 3/4 of the rows in zigzag steps on average."""
    rows = w.batch * w.seq_len // ranks * w.heads * (3 if w.mask.is_causal else 4) // 4
    read = rows * (w.v_head_dim * (4 + dtype_bytes(w.dtype)) + 8)
    return float(estimate_elementwise_s(profile, read, rows * (4 * w.v_head_dim + 4), "merge"))


def measure_flop_per_s(workload: AttentionWorkload, ranks: int, profile: HardwareProfile, kernel: str) -> float:
    """Of a kernel on a rank's queries and as many keys, half of them where causal: a block of a (zigzag) ring."""
    w = workload
    tokens = max(1, w.seq_len // ranks)
    keys = max(1, tokens // 2) if w.mask.is_causal else tokens
    block = [TokenRange(tokens, 2 * tokens)], [TokenRange(0, keys)]
    (call,) = lower(CausalMask(), *block, 2 * tokens).calls
    shape = AttentionShape(w.batch, w.heads, w.kv_heads, w.head_dim, w.v_head_dim, w.dtype)
    rested_s = estimate_attention_s(profile, kernel, call, shape, "forward")
    blocks = w.seq_len / keys / (2 if w.mask.is_causal else 1)
    seconds = estimate_attention_s(profile, kernel, call, shape, "forward", worked_s=blocks * rested_s / 2)
    return 2 * (w.head_dim + w.v_head_dim) * w.heads * w.batch * tokens * keys / seconds
