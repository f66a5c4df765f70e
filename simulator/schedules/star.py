"""Star Attention, phase 1: each host attends its own block, with the first block (the anchor) in front, alone.

Host r > 0 holds the rows [anchor | local], l_a and S/P tokens, host 0 its local ones; plain causal attention over them,
no communication: FLOP 2 (l_a + S/P)^2 H D B per host. Phase 2, for the query and every generated token: `decode`, local
attention on every host, then an all-gather of results and LSEs, merged, (P-1) B t (H D e + 4 H) bytes sent.

It is approximate (exact under its own mask) and for inference only. The paper's default is an anchor as long as the
block. Several blocks per host are several calls.
Source: Acharya et al. 2024 (arXiv 2411.17116) section 2; github NVIDIA/Star-Attention model.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from simulator.program.partition import Partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.apb import anchored_partition, decode
from simulator.schedules.base import Saved, Schedule
from traces.errors import InputError

__all__ = ["Star", "decode"]


@dataclass(frozen=True)
class Star(Schedule):
    """Star Attention's phase 1.

    Parameters
    ----------
    anchor : tokens l_a at the start of the sequence that every host but the first holds; default a whole block.
    """

    anchor: int | None = None

    name: ClassVar[str] = "star"
    exact: ClassVar[bool] = False
    source: ClassVar[str] = "Acharya et al. 2024, arXiv 2411.17116, section 2; github NVIDIA/Star-Attention"
    asks_again: ClassVar[bool] = True
    whole_prompt: ClassVar[str] = "its hosts hold a block of the whole prompt each"

    def resolve(self, setup: Setup) -> Self:
        """Fill in the anchor."""
        return replace(self, anchor=self.anchor or max(1, setup.workload.seq_len // setup.n_ranks))

    def check(self, setup: Setup) -> None:
        """Refuse what the algorithm is not defined for."""
        workload, ranks = setup.workload, setup.n_ranks
        if str(workload.mask) != "causal":
            raise InputError(f"star is defined for the causal mask, not {workload.mask.brief}")
        if workload.seq_len % ranks:
            raise InputError(f"seq_len {workload.seq_len} is not divisible by {ranks} hosts")
        block = workload.seq_len // ranks
        if self.anchor is not None and not 0 < self.anchor <= block:
            raise InputError("star: anchor does not fit a block", got=self.anchor, expected=f"1 to {block} tokens")

    def input_partition(self, setup: Setup) -> Partition:
        """[anchor | local] on every host but the first."""
        anchor = self.resolve(setup).anchor
        assert anchor is not None
        return anchored_partition(setup, anchor)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Causal attention over what each host holds."""
        return r.finish(r.merge(None, r.attention(q, k, v)))
