"""Which of all-gather, Ulysses and ring is fastest, in closed form, from shapes and link rates.

Forward pass, W ranks of t = S/W tokens, balanced; K V of a rank are n = 2 B t K D e bytes, C = 4 B H D pairs / (W F) is
a rank's compute at F FLOP/s, c = C / W its part in a step of the ring, d = pairs / S^2 the mask's density:

    ring          max(c + m, h) (W - 1) + c,                  h = a_ring + n / b_ring,  m a merge of partial results
    all-gather    C + a_ag + (W - 1) n / b_ag
    Ulysses       C + 4 a_a2a + (W - 1)/W (H/K + g) n / b_a2a,    g = max(1, W/K): repeated KV heads

with rates b of what one rank sends, and times a that do not depend on size. Without those and merges (a = m = 0):

    the ring's hops are hidden           from S* = W F K e / (2 d H b_ring): t* does not depend on W
    ring beats all-gather                from S* (1 - b_ring / b_ag)
    ring beats Ulysses                   from S* (1 - b_ring (H/K + g) / (W b_a2a))
    all-gather beats Ulysses             for W < (H/K + g) b_ag / b_a2a; with equal rates, for W - 1 < H/K (W <= K)

Source: the bytes are LongCA-bench's (arXiv 2510.17896, section 3); hiding a hop as in RingAttention (arXiv 2310.01889)
section 3, with the mask's density; asked for in vllm-omni #5092. Hops are taken to begin with the kernel beside them;
where they wait for it (`simulator.engines.interference`) a ring is slower, up to h a step.
"""

from __future__ import annotations

from dataclasses import dataclass

from cost_models.units import dtype_bytes
from cost_models.workload import AttentionWorkload


@dataclass(frozen=True)
class LinkFigures:
    """What the links give: bytes per second that one rank sends in each pattern, and seconds besides.

    ``merge_s`` is what a step of the ring takes besides its kernel.
    """

    ring_bytes_per_s: float
    all_gather_bytes_per_s: float
    all_to_all_bytes_per_s: float
    ring_s: float = 0.0
    all_gather_s: float = 0.0
    all_to_all_s: float = 0.0
    merge_s: float = 0.0


@dataclass(frozen=True)
class Crossovers:
    """Where the fastest mechanism changes.

    Attributes
    ----------
    hidden_seq_len : tokens from which the ring hides its hops.
    ring_over_all_gather_seq_len, ring_over_ulysses_seq_len : tokens from which the ring is faster; 0 for any.
    all_gather_over_ulysses_ranks : ranks below which all-gather is faster than Ulysses.
    """

    hidden_seq_len: float
    ring_over_all_gather_seq_len: float
    ring_over_ulysses_seq_len: float
    all_gather_over_ulysses_ranks: float


def find_crossovers(workload: AttentionWorkload, ranks: int, flop_per_s: float, links: LinkFigures) -> Crossovers:
    """The closed forms without times that do not depend on size.

    >>> from cost_models.masks import parse_mask
    >>> llama = AttentionWorkload(1, 2**17, 32, 8, 128, 128, "bf16", parse_mask("causal"))
    >>> found = find_crossovers(llama, 8, 6e14, LinkFigures(25e9, 50e9, 50e9))
    >>> round(found.hidden_seq_len), round(found.ring_over_all_gather_seq_len), found.all_gather_over_ulysses_ranks
    (95999, 48000, 5.0)
    """
    w, density = workload, workload.pairs / workload.seq_len**2
    hidden = ranks * flop_per_s * w.kv_heads * dtype_bytes(w.dtype) / (2 * density * w.heads * links.ring_bytes_per_s)
    wide = w.heads / w.kv_heads + max(1.0, ranks / w.kv_heads)
    to_all_gather = links.ring_bytes_per_s / links.all_gather_bytes_per_s
    to_ulysses = links.ring_bytes_per_s * wide / (ranks * links.all_to_all_bytes_per_s)
    faster = links.all_gather_bytes_per_s / links.all_to_all_bytes_per_s
    return Crossovers(
        hidden, max(0.0, hidden * (1 - to_all_gather)), max(0.0, hidden * (1 - to_ulysses)),
        _most_ranks(w.heads / w.kv_heads, w.kv_heads, faster),
    )  # fmt: skip


def _most_ranks(group: float, kv_heads: int, faster: float) -> float:
    """The W at which W = faster (H/K + max(1, W/K))."""
    below = faster * (group + 1)
    if below <= kv_heads:
        return below
    return faster * group / (1 - faster / kv_heads) if faster < kv_heads else float("inf")


def estimate_forward_s(
    workload: AttentionWorkload, ranks: int, flop_per_s: float, links: LinkFigures
) -> dict[str, float]:  # fmt: skip
    """Seconds of the forward pass of ``ring``, ``allgather`` and ``ulysses``."""
    w = workload
    moved = 2 * w.batch * w.seq_len / ranks * w.kv_heads * w.head_dim * dtype_bytes(w.dtype)
    compute = w.flop_forward / ranks / flop_per_s
    hop, step = links.ring_s + moved / links.ring_bytes_per_s, compute / ranks
    gathered = links.all_gather_s + (ranks - 1) * moved / links.all_gather_bytes_per_s
    wide = w.heads / w.kv_heads + max(1.0, ranks / w.kv_heads)
    scattered = 4 * links.all_to_all_s + (ranks - 1) / ranks * wide * moved / links.all_to_all_bytes_per_s
    return {
        "ring": step + (ranks - 1) * max(step + links.merge_s, hop),
        "allgather": compute + gathered,
        "ulysses": compute + scattered,
    }
