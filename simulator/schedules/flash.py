"""FlashAttention on one GPU: no communication, any mask, any length; what every parallel schedule is measured against.

Source: Dao 2023 (arXiv 2307.08691); Shah et al. 2024 (arXiv 2407.08608).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from simulator.program.partition import Partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, split_sequence
from traces.errors import InputError


@dataclass(frozen=True)
class Flash(Schedule):
    """FlashAttention on one GPU."""

    name: ClassVar[str] = "flash"
    source: ClassVar[str] = "Dao 2023, arXiv 2307.08691; Shah et al. 2024, arXiv 2407.08608"

    def resolve(self, setup: Setup) -> Self:
        """There are no options."""
        return self

    def check(self, setup: Setup) -> None:
        """Refuse several GPUs."""
        if setup.n_ranks > 1:
            raise InputError("flash runs on one GPU", got=f"{setup.n_ranks} ranks")

    def input_partition(self, setup: Setup) -> Partition:
        """The whole sequence."""
        return split_sequence("contiguous", setup)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """One kernel (for some masks a few)."""
        return r.finish(r.merge(None, r.attention(q, k, v)))

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One kernel."""
        o, lse = saved
        dq, dk, dv = [
            r.accumulate(None, (each,), r.setup.workload.dtype)[0]
            for each in r.attention_backward(q, k, v, do, lse, o=o)
        ]
        return dq, dk, dv
