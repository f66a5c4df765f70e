"""PyTorch's context parallelism (2.11): K and V rotated by an all-gather or by permutes, dK and dV always by permutes.

    allgather   1 all-gather of [K, V] forward and 1 backward, issued before the first kernel, waited for after it
    alltoall    P - 1 hops of [K, V] each
    backward    P hops of [dK, dV] in fp32, whatever the method

Everything is eager: K and V are concatenated before every hop, partial results converted to fp32 and merged by separate
kernels, and where a rank updates half of a tensor, ``torch.cat`` copies the whole. Q, K, V and dO are [B, H, S, D] only
as views of what a projection writes, so that K and V are copied before they are sent first, dO before every kernel, and
the first dK, dV, which have that order too, again. Gradients are added to zeros. With load balancing the parts are
zigzag (``_HeadTailLoadBalancer``), and it demands the causal mask.
Source: PyTorch torch/distributed/tensor/experimental/_context_parallel/_attention.py (`_templated_ring_attention`,
`_templated_ring_attention_backward`, `_SDPAMerger`, `_partial_update`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from simulator.program.operations import Collective
from simulator.program.partition import Layout, Partition
from simulator.program.partitioners import build_partition
from simulator.program.recorder import Gradient, Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, check_choice
from simulator.schedules.peers.unfused import EAGER, add, contiguous_copies, copy_again, everywhere, merge, to_fp32
from traces.errors import InputError


@dataclass(frozen=True)
class TorchCp(Schedule):
    """PyTorch's ring attention.

    Parameters
    ----------
    rotate : allgather or alltoall.
    balance : zigzag parts, for the causal mask only.
    """

    rotate: str = "allgather"
    balance: bool = True

    name: ClassVar[str] = "torch-cp"
    source: ClassVar[str] = "PyTorch 2.11, torch.distributed.tensor.experimental.context_parallel"
    whole_prompt: ClassVar[str] = "its code knows no keys kept from earlier chunks"

    def resolve(self, setup: Setup) -> Self:
        """There are no defaults to fill in."""
        return self

    def check(self, setup: Setup) -> None:
        """Refuse what the code refuses."""
        check_choice(self, "rotate", ("allgather", "alltoall"))
        mask = str(setup.workload.mask)
        if mask not in ("causal", "full"):
            raise InputError(f"{self.name} takes other masks", got=mask, expected="causal or full")
        if self.balance and mask == "full":
            raise InputError("torch-cp balances causal masks only", got=mask, remedy="use balance=false")
        if self.rotate == "allgather" and setup.workload.batch > 1:
            raise InputError("torch-cp:rotate=allgather is described for one sequence", got=setup.workload.batch,
                             remedy="use rotate=alltoall")  # fmt: skip
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """Zigzag if balanced."""
        name = "zigzag" if self.balance else "contiguous"
        return build_partition(name, setup.workload.seq_len, setup.n_ranks)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """P steps."""
        total, rotation = None, _Rotation(r, self.rotate, k, v)
        for step in r.steps(r.setup.n_ranks):
            k, v = rotation.arrive(step)
            rotation.send(step)
            total = merge(r, total, to_fp32(r, r.attention(q, k, v)), EAGER)
            copy_again(r, total.o, self._cuts_queries(r, step), "mixed")
        return r.finish(total)

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """P steps; dK and dV go on a hop after each."""
        (o, lse), ranks, rotation = saved, r.setup.n_ranks, _Rotation(r, self.rotate, k, v)
        total_q = total_k = total_v = None
        for step in r.steps(ranks):
            k, v = rotation.arrive(step)
            rotation.send(step)
            halved = self._cuts_queries(r, step)
            copy_again(r, do, halved, "strided", 0.5)
            copy_again(r, do, ~halved, "strided")
            dq, dk, dv = r.attention_backward(q, k, v, do, lse, o=o)
            new_k, new_v = _add(r, total_k, dk), _add(r, total_v, dv)
            for new in (new_k, new_v):
                copy_again(r, new, self._cuts_keys(r, step), "mixed")
                copy_again(r, new, everywhere(r, step == 0), "mixed")
            total_k, total_v = r.shift(r.setup.flat_ring(), *contiguous_copies(r, new_k, new_v))
            del new_k, new_v, dk, dv
            total_q = _add(r, total_q, dq)
            copy_again(r, total_q, halved, "mixed")
            del dq
        assert total_q is not None and total_k is not None and total_v is not None
        dtype = r.setup.workload.dtype
        return r.cast(total_q, dtype), r.cast(total_k, dtype), r.cast(total_v, dtype)

    def _cuts_queries(self, r: Recorder, step: int) -> NDArray[np.bool_]:
        """Ranks that attend with the second half of their queries, and put the result into a copy."""
        return (np.arange(r.setup.n_ranks) < step) & self.balance

    def _cuts_keys(self, r: Recorder, step: int) -> NDArray[np.bool_]:
        """Ranks that attend to the first half of the keys."""
        return (np.arange(r.setup.n_ranks) >= step) & (step > 0) & self.balance


def _add(r: Recorder, total: Tensor | None, part: Gradient) -> Tensor:
    """Into an fp32 accumulator; the first to zeros, which are written and read."""
    added = add(r, total, part)
    copy_again(r, added, everywhere(r, total is None))
    return added


class _Rotation:
    """K and V of each step."""

    def __init__(self, r: Recorder, rotate: str, k: Tensor, v: Tensor) -> None:
        self._r, self._rotate = r, rotate
        self._now = self._next = k, v
        self._gathered: tuple[Tensor, Tensor] | None = None
        self._home = self._layout = k.layout
        self._ring = r.setup.flat_ring()

    def arrive(self, step: int) -> tuple[Tensor, Tensor]:
        """Those of this step."""
        if step and self._gathered is not None:
            self._layout = self._layout.moved(self._ring)
            self._next = self._chunk(self._gathered[0], step), self._chunk(self._gathered[1], step)
        self._now = self._next
        return self._now

    def send(self, step: int) -> None:
        """Those of the next step are on their way."""
        r, last = self._r, self._ring.size - 1
        if step == last or (self._rotate == "allgather" and step):
            return
        for each in self._now if not step else ():
            copy_again(r, each, everywhere(r), "strided")
        copies = contiguous_copies(r, *self._now)
        if self._rotate == "alltoall":
            k, v = r.shift(self._ring, *copies)
            self._next = k, v
            return
        layout = self._home.gathered(r.setup.all_ranks())
        k, v = [r.tensor(f"{c.buffer.name}, all", layout, c.buffer.heads, c.buffer.dim, c.buffer.dtype) for c in copies]
        size = sum([copy.buffer.bytes for copy in copies])
        r.emit("all_gather", Collective("all_gather", size, size * last), copies, (k, v), lane="comm:group")
        self._gathered = k, v

    def _chunk(self, gathered: Tensor, step: int) -> Tensor:
        """The rows of rank r - step."""
        tokens = self._home.partition.uniform_tokens
        assert tokens is not None
        source = (np.arange(self._ring.size) - step) % self._ring.size
        layout = Layout(self._layout.partition, self._layout.owner)
        return self._r.view(gathered, gathered.buffer.name, rows=(source * tokens, tokens), layout=layout)
