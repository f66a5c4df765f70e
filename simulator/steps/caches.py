"""Caches of all layers: empty ones that a prompt fills, and ones that hold a context already.

A paged cache gives out blocks of b tokens, b rows of every layer: each sequence wastes what its last block has left,
(-n) mod b rows on a rank that holds n of its tokens, and has a table of the numbers of its blocks, 4 ceil(n / b) bytes.
Nothing is lost between sequences (Kwon et al. 2023, vLLM, arXiv 2309.06180, section 4).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cost_models.packing import packed_form
from simulator.layers.cache import KvCache, Prompt
from simulator.program.operations import Column, Slices
from simulator.program.partition import Layout
from simulator.program.partitioners import build_partition
from simulator.program.tape import Tensor
from simulator.steps.plan import Plan
from simulator.steps.ranks import Ranks
from simulator.steps.serving import packed_dtype


class Caches:
    """Makes the caches of a plan.

    Attributes
    ----------
    unused : what pages take besides: the rest of last blocks, and tables.
    """

    def __init__(self, plan: Plan, ranks: Ranks) -> None:
        self._plan, self._ranks, self._dtype = plan, ranks, packed_dtype(plan.options)
        self.unused: list[Tensor] = []

    def empty(self, microbatch: int, stages: list[range], prompt: Prompt | None) -> list[KvCache]:
        """To be filled by a prompt; with those rows of a cached prefix that are there."""
        if prompt is None or not prompt.cached:
            return [KvCache(self._dtype, prompt=prompt) for layers in stages for _ in layers]
        layout = prompt.layout(len(prompt.chunks), self._rows[0][1])
        return [KvCache(self._dtype, rows, prompt) for _, rows in self._held(microbatch, stages, layout)]

    def holding(self, microbatch: int, stages: list[range]) -> list[KvCache]:
        """Of a whole context, whose tokens lie on the ranks in order."""
        layout = Layout.home(build_partition("contiguous", self._plan.seq_len, self._plan.grid.cp))
        caches, firsts = [], [layers[0] for layers in stages]
        for index, rows in self._held(microbatch, stages, layout):
            caches.append(KvCache(self._dtype, rows))
            self.unused += self._rest_of_blocks(rows)
            if index in firsts and self._plan.options.kv_block:
                self.unused.append(self._block_table(rows[0], self._plan.options.kv_block))
        return caches

    @property
    def _rows(self) -> list[tuple[str, int, int]]:
        """Name, heads and dim of what a layer keeps of a token."""
        shape, tp = self._plan.shape, self._plan.grid.tp
        if shape.mla:
            return [("latents", 1, shape.mla.kv_lora + shape.mla.rope)]
        heads = shape.kv_heads // tp
        return [("keys", heads, shape.head_dim), ("values", heads, shape.v_head_dim)]

    def _held(self, microbatch: int, stages: list[range], layout: Layout) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """Rows of each layer that are inputs of the Program."""
        form = packed_form(self._dtype or "")
        groups = 1 if layout.first_head is None else len(np.unique(layout.first_head))
        for stage, layers in enumerate(stages):
            self._ranks.on(stage)
            for index in layers:
                yield index, tuple([
                    self._ranks.r.tensor(
                        f"{name} {index}", layout, heads // groups, form.row_bytes(dim) if form else dim,
                        self._dtype or self._plan.dtype, is_input=True, slices=self._slices(microbatch, heads),
                    )
                    for name, heads, dim in self._rows
                ])  # fmt: skip

    def _slices(self, microbatch: int, heads: int) -> tuple[Slices, ...]:
        sequences = self._ranks.sequences(microbatch)
        return (sequences,) if self._plan.shape.mla else (sequences, self._ranks.heads(heads))

    def _rest_of_blocks(self, rows: tuple[Tensor, ...]) -> list[Tensor]:
        """What is allocated and holds no row: the end of every sequence's last block."""
        block, found = self._plan.options.kv_block or 1, []
        for each in rows:
            b = each.buffer
            rest: Column = -b.tokens % block
            if np.any(rest):
                found.append(self._ranks.r.tensor(f"{b.name}, unused", None, b.heads, b.dim, b.dtype, tokens=rest,
                                                  batch=b.batch))  # fmt: skip
        return found

    def _block_table(self, rows: Tensor, block: int) -> Tensor:
        """Numbers of every sequence's blocks, the same for all layers of a stage."""
        b = rows.buffer
        blocks: Column = -(-b.tokens // block)
        return self._ranks.r.tensor("block table", None, 1, 1, "int32", tokens=blocks, batch=b.batch)
