"""Communication that schedules call on tensors of all ranks: hops, other matchings, and NCCL's collectives in groups.

Bytes sent, of a tensor of n bytes in a group of P ranks (self excluded, as put on the wire):
hop n, all-gather (P-1) n, reduce-scatter and all-to-all (P-1)/P n, all-reduce 2 (P-1)/P n.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cost_models.units import dtype_bytes
from simulator.program.operations import Collective, Column, Elementwise, Exchange, HostCopy, IntArray
from simulator.program.rings import Matching, Ring
from simulator.program.tape import Tape, Tensor

COPY_LANES = {"offload": "copy:out", "fetch": "copy:in"}
"""A copy engine for each direction."""


class Communicator(Tape):
    """A tape with communication. Every process group has a lane of its own."""

    def shift(self, ring: Ring, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Pass tensors to the next rank of the ring, as one grouped exchange; what arrives is returned at once."""
        if ring.size == 1:
            return tensors
        layout = tensors[0].layout
        moved, arriving = layout.moved(ring), []
        sent: Column = 0
        for tensor in tensors:
            target = moved if tensor.layout is layout else tensor.layout.moved(ring)
            arriving.append(self.like(tensor, tensor.buffer.name, layout=target))
            sent = sent + tensor.buffer.bytes
        largest = _largest([tensor.buffer.bytes for tensor in tensors], sent)
        self.emit("exchange", Exchange(ring, sent, largest), tensors, arriving, lane=ring.lane)
        return tuple(arriving)

    def exchange(self, matching: Matching, tensors: Sequence[Tensor], arriving: Sequence[Tensor]) -> None:
        """One grouped exchange in which each tensor goes where the receiving one has rows."""
        sent = np.zeros(self.setup.n_ranks, dtype=np.int64)
        for target in arriving:
            received = np.broadcast_to(np.asarray(target.buffer.bytes), len(sent))
            sends = matching.to != np.arange(len(sent))
            sent[sends] += received[matching.to[sends]]
        largest = _largest([tensor.buffer.bytes for tensor in arriving], sent)
        self.emit(
            "exchange", Exchange(matching, sent, largest), tensors, arriving, lane=matching.lane, ranks=matching.active
        )

    def all_gather(self, tensor: Tensor, gathered: Tensor, group: Ring | None = None) -> Tensor:
        """Every rank receives every rank's tensor, in rank order, within each group."""
        size = tensor.buffer.bytes
        self._collective("all_gather", size, size * (self._members(group) - 1), tensor, gathered, group)
        return gathered

    def all_to_all(self, tensor: Tensor, exchanged: Tensor, group: Ring | None = None) -> Tensor:
        """Every rank cuts its tensor into equal slices, in memory order, and sends the i-th to rank i of its group."""
        ranks, size = self._members(group), tensor.buffer.bytes
        self._collective("all_to_all", size, size * (ranks - 1) // ranks, tensor, exchanged, group)
        return exchanged

    def reduce_scatter(self, tensor: Tensor, scattered: Tensor, group: Ring | None = None) -> Tensor:
        """The i-th rank of a group receives the sum of all ranks' i-th slices."""
        ranks, size = self._members(group), tensor.buffer.bytes
        self._collective("reduce_scatter", size, size * (ranks - 1) // ranks, tensor, scattered, group)
        return scattered

    def all_reduce(self, tensor: Tensor, group: Ring | None = None) -> Tensor:
        """Every rank receives the sum, in place; a ring sends each byte 2 (P-1) / P times."""
        ranks, size = self._members(group), tensor.buffer.bytes
        self._collective("all_reduce", size, 2 * size * (ranks - 1) // ranks, tensor, tensor, group)
        return tensor

    def offload(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Copies in memory of the host. They are there once the compute lane touches them (`wait_for`)."""
        return self._host_copy("offload", tensors, on_host=True)

    def fetch(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Copies of what is in memory of the host, on the GPU."""
        return self._host_copy("fetch", tensors, on_host=False)

    def _host_copy(self, kind: str, tensors: Sequence[Tensor], *, on_host: bool) -> tuple[Tensor, ...]:
        copies = [
            self.tensor(b.name, b.layout, b.heads, b.dim, b.dtype, tokens=b.tokens, batch=b.batch, slices=b.slices,
                        size=b.bytes, on_host=on_host)
            for b in [tensor.buffer for tensor in tensors]
        ]  # fmt: skip
        self.copy_between(kind, tensors, copies)
        return tuple(copies)

    def copy_between(self, kind: str, tensors: Sequence[Tensor], copies: Sequence[Tensor]) -> None:
        """Copy tensors of one memory into such of the other."""
        moved = sum([tensor.buffer.bytes for tensor in tensors])
        self.emit(kind, HostCopy(moved), tensors, copies, lane=COPY_LANES[kind])

    def wait_for(self, tensors: Sequence[Tensor]) -> None:
        """Let the compute lane wait until these are written, so that what they are copies of may be given back."""
        self.emit("wait", Elementwise("copy", 0, 0), tensors, ())

    def _members(self, group: Ring | None) -> int:
        return group.size if group is not None else self.setup.n_ranks

    def _collective(
        self, kind: str, size: Column, sent: Column, tensor: Tensor, result: Tensor, group: Ring | None
    ) -> None:  # fmt: skip
        apart = group is not None and group.size < self.setup.n_ranks
        groups, lane = (group.groups, group.lane) if group is not None and apart else (None, "comm:group")
        self.emit(kind, Collective(kind, size, sent, groups), (tensor,), (result,), lane=lane)

    def all_to_all_v(self, tensors: Sequence[Tensor], received: Sequence[Tensor], splits: IntArray) -> None:
        """Rank r sends ``splits[r, s]`` of its rows to rank s, in order of s, and receives in order of the senders."""
        row = sum([each.buffer.batch * each.buffer.heads * each.buffer.dim * dtype_bytes(each.buffer.dtype)
                   for each in tensors])  # fmt: skip
        sent = (splits.sum(axis=1) - splits.diagonal()) * row
        work = Collective("all_to_all_v", splits.sum(axis=1) * row, sent, None, splits, row)
        self.emit("all_to_all_v", work, tensors, received, lane="comm:group")


def _largest(parts: Sequence[Column], sent: Column) -> float:
    """Share of the largest tensor of what any rank sends at most; of nothing all."""
    if len(parts) == 1:
        return 1.0
    plain = [part for part in parts if isinstance(part, int)]
    if len(plain) == len(parts) and isinstance(sent, int):
        return max(plain) / sent if sent else 1.0
    total = float(np.max(sent))
    return min(max(float(np.max(part)) for part in parts) / total, 1.0) if total else 1.0
