"""Chunks of a prompt: c tokens at a time, spread over the ranks as a sequence of c tokens would be.

    chunk i   its queries attend to the keys of chunks 0..i, which lie in the ranks' caches as each chunk left them

so a rank holds one piece of every chunk, in the order of the chunks, and a causal chunk costs c (i c + (c + 1) / 2)
pairs: together those of the whole prompt. Only masks that let no query see later keys, and depend on distance alone,
can be cut so. Source: Agrawal et al. 2023 (SARATHI, arXiv 2308.16369) section 4.2; over context parallel ranks: Yang et
al. 2024 (arXiv 2411.01783) section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cost_models.masks import join_ranges
from simulator.program.partition import Layout, Partition
from simulator.program.setup import Setup


@dataclass(eq=False)
class Chunk:
    """Some tokens of a prompt, and what came before them.

    Parameters
    ----------
    start : tokens before it.
    setup : its own tokens as a sequence of their own.
    """

    start: int
    setup: Setup
    _shifted: dict[int, tuple[Partition, Partition]] = field(default_factory=dict)

    @property
    def stop(self) -> int:
        """First token after it."""
        return self.start + self.setup.workload.seq_len

    def shifted(self, partition: Partition) -> Partition:
        """A partition of the chunk's tokens, as tokens of the prompt."""
        if id(partition) not in self._shifted:
            moved = replace(
                partition, start=partition.start + self.start, stop=partition.stop + self.start, extends=None
            )  # fmt: skip
            self._shifted[id(partition)] = partition, moved
        return self._shifted[id(partition)][1]

    def together(self) -> Layout:
        """Every rank holds all its tokens."""
        whole = Layout.whole(self.setup.workload.seq_len, self.setup.n_ranks)
        return Layout(self.shifted(whole.partition), whole.owner)


def cut_prompt(setup: Setup, size: int | None, cached: int = 0) -> list[Chunk]:
    """A prompt's chunks: first what is cached already, if anything, then ``size`` tokens at a time.

    >>> from cost_models.masks import parse_mask
    >>> from cost_models.workload import AttentionWorkload
    >>> setup = Setup(AttentionWorkload(1, 40, 4, 4, 16, 16, "bf16", parse_mask("causal", 40)), 2, 2)
    >>> [(each.start, each.stop) for each in cut_prompt(setup, 16, cached=4)]
    [(0, 4), (4, 20), (20, 36), (36, 40)]
    """
    length = setup.workload.seq_len
    edges = [*([0] if cached else []), *range(cached, length, size or length), length]
    return [
        Chunk(start, replace(setup, workload=replace(setup.workload, seq_len=stop - start)))
        for start, stop in zip(edges, edges[1:], strict=False)
    ]


def one_after_another(layouts: Sequence[Layout]) -> Layout:
    """Every rank holds what it holds in the first layout, then what it holds in the second, and so on."""
    first = layouts[0]
    parts = [
        join_ranges([tokens for layout in layouts for tokens in layout.partition.ranges(part)])
        for part in range(first.partition.parts)
    ]
    return Layout(Partition.of(first.partition.name, parts), first.owner, first.shift, first.first_head)
