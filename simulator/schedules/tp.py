"""Megatron tensor parallelism around attention: each rank has H/P heads of the whole sequence.

The core itself exchanges nothing; what it costs is the exchange of hidden states around it, which it shares with the
projections. These belong to the layer, so here identities stand in their place: Q is the hidden states X, of which a
rank's projection takes its own heads; K and V, projected from the same X, are there already; O is the sum of all ranks'
output projections, each of its own heads. With A = B S H D elements, e bytes each,

    version 1   X on every rank;         forward: all-reduce of O, backward: of dX         2 (P-1)/P A e each
    version 3   X sharded by tokens      forward: all-gather of X, reduce-scatter of O,    (P-1)/P A e each
                (sequence parallel);     backward: all-gather of dO, reduce-scatter of dX

All of it is exposed. Megatron's backward of version 3 gathers X once more, for the weights' gradients: a cost of the
projection, not counted here. BurstAttention's paper calls the latter TP-V3.
Source: Shoeybi et al. 2019 (arXiv 1909.08053) section 3; Korthikanti et al. 2022 (arXiv 2205.05198) section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from simulator.program.partition import Layout, Partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, Shard, split_sequence
from simulator.schedules.gathering import in_order, scatter_sum, start_gather
from simulator.schedules.heads import with_heads
from traces.errors import InputError


@dataclass(frozen=True)
class TensorParallel(Schedule):
    """Tensor parallel attention.

    Parameters
    ----------
    version : 1 (hidden states on every rank) or 3 (sharded by tokens between the products).
    """

    version: int = 1

    name: ClassVar[str] = "tp"
    source: ClassVar[str] = "Shoeybi et al. 2019, arXiv 1909.08053; Korthikanti et al. 2022, arXiv 2205.05198"
    whole_prompt: ClassVar[str] = "it gathers the tokens of a whole prompt"

    def resolve(self, setup: Setup) -> Self:
        """No option depends on the setup."""
        return self

    def check(self, setup: Setup) -> None:
        """Refuse heads that the ranks do not divide."""
        if self.version not in (1, 3):
            raise InputError("tp: unknown version", got=self.version, expected="1 or 3")
        w, ranks = setup.workload, setup.n_ranks
        for heads, what in ((w.heads, "heads"), (w.kv_heads, "KV heads")):
            if heads % ranks:
                raise InputError(f"{heads} {what} are not divisible by {ranks} ranks")
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """Contiguous: how X is sharded in version 3."""
        return split_sequence("contiguous", setup)

    def _hidden(self, setup: Setup) -> Layout:
        if self.version == 1:
            return Layout.whole(setup.workload.seq_len, setup.n_ranks)
        return Layout.home(self.input_partition(setup))

    def input_shards(self, setup: Setup) -> dict[str, Shard]:
        """Hidden states for Q and dO, own heads of K and V."""
        w, ranks, hidden = setup.workload, setup.n_ranks, self._hidden(setup)
        own = with_heads(Layout.whole(w.seq_len, ranks), setup.all_ranks(), w.kv_heads), w.kv_heads // ranks
        return {"q": (hidden, w.heads), "k": own, "v": own, "do": (hidden, w.heads)}

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Own heads of X, attention, sum of the projections of all ranks' heads."""
        q_own = self._enter(r, q)
        o_own, lse = r.finish(r.merge(None, r.attention(q_own, k, v)))
        return self._leave(r, o_own), lse, o_own, q_own

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same way; dK and dV stay with their heads."""
        _, lse, o_own, q_own = saved
        gradients = r.attention_backward(q_own, k, v, self._enter(r, do), lse, o=o_own)
        dq, dk, dv = [r.accumulate(None, (each,), r.setup.workload.dtype)[0] for each in gradients]
        return self._leave(r, dq), dk, dv

    def _enter(self, r: Recorder, hidden: Tensor) -> Tensor:
        """Own heads of hidden states, gathered first where they are sharded."""
        ranks, b = r.setup.all_ranks(), hidden.buffer
        if self.version == 3:
            hidden = in_order(r, start_gather(r, hidden, hidden.layout), hidden.layout)
        layout, own = (
            with_heads(Layout.whole(r.setup.workload.seq_len, ranks.size), ranks, b.heads),
            b.heads // ranks.size,
        )
        part = r.view(hidden, b.name, heads=(ranks.position * own, own))
        return r.stand_in("cast", part, r.tensor(b.name, layout, own, b.dim, b.dtype))

    def _leave(self, r: Recorder, own: Tensor) -> Tensor:
        """The sum of all ranks' heads, each at its place."""
        b, setup = own.buffer, r.setup
        whole = Layout.whole(setup.workload.seq_len, setup.n_ranks)
        partial = r.tensor(b.name, whole, setup.workload.heads, b.dim, b.dtype)
        r.stand_in("place", own, partial, first_head=setup.all_ranks().position * b.heads)
        if setup.n_ranks == 1:
            return partial
        return r.all_reduce(partial) if self.version == 1 else scatter_sum(r, partial, self._hidden(setup))
