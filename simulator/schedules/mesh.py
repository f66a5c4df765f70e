"""Two ways to split attention at once: heads over Na ranks, the sequence over Np, P = Na Np; who are neighbours.

| placement | contiguous ranks (NVLink) | Na ranks of a head group lie apart by |
|---|---|---|
| head-first | a head group | 1 |
| context-first | the context ring | Np |
| interleaved | an inner ring of the context, then a head group | w, the window |

The context ring is double: m = Np/w windows of w ranks (m = 1: one ring). Source: LoongTrain (arXiv 2406.18485), USP
(arXiv 2405.07719) section 3.2; github InternLM/InternEvo, double_ring_sp placement (head_first, interleaved).
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.program.partition import Layout, Partition
from simulator.program.partitioners import split_parts
from simulator.program.rings import Ring
from simulator.program.setup import Setup

PLACEMENTS = ("head-first", "context-first", "interleaved")


@dataclass(frozen=True)
class Mesh:
    """Groups of ranks: those that share a piece of context, and the two levels of the context ring."""

    heads: Ring
    inner: Ring
    outer: Ring

    @property
    def context(self) -> int:
        """Parts of the sequence, Np."""
        return self.inner.size * self.outer.size

    def input_partition(self, context: Partition) -> Partition:
        """Each of Np parts cut among its head group."""
        return split_parts(context, self.heads.step, self.heads.size)

    def together(self, context: Partition) -> Layout:
        """What each head group holds together: a part of the context."""
        return Layout(context, self.heads.groups)


def build_mesh(setup: Setup, heads: int, window: int, placement: str) -> Mesh:
    """The groups for ``heads`` ranks to a head group and inner rings of ``window`` ranks.

    >>> from cost_models.masks import parse_mask
    >>> from cost_models.workload import AttentionWorkload
    >>> setup = Setup(AttentionWorkload(1, 64, 4, 4, 16, 16, "bf16", parse_mask("causal", 64)), 8, 4)
    >>> mesh = build_mesh(setup, 2, 2, "context-first")
    >>> mesh.heads.members.tolist(), mesh.outer.members.tolist()
    ([[0, 4], [1, 5], [2, 6], [3, 7]], [[0, 2], [1, 3], [4, 6], [5, 7]])
    """
    context = setup.n_ranks // heads
    windows = context // window
    steps = {"head-first": (1, heads, heads * window), "context-first": (context, 1, window),
             "interleaved": (window, 1, window * heads)}[placement]  # fmt: skip
    return Mesh(
        setup.ring("heads", steps[0], heads),
        setup.ring("ring", steps[1], window),
        setup.ring("outer", steps[2], windows),
    )
