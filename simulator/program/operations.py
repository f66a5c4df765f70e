"""What a Program consists of: buffers, and operations that read and write them on lanes.

An operation stands for all ranks at once; what differs by rank is a column (an array over ranks). It names *what* is
computed or sent, never how long it takes: costing prices its ``work``, executors perform its ``kind``.

| kind | work | meaning (per rank) |
|---|---|---|
| attention_forward | Attention | o, lse <- kernels of the lowering on (q, k, v); rows without a key stay untouched. With option `into`, o and lse hold a result already, and the kernels merge theirs into it |
| clear | Elementwise | o = 0 and lse = -inf on the rows that the kernels of `covered` left untouched |
| attention_backward | Attention | dq, dk, dv <- the same kernels backward, given dO, LSE and O (or delta) |
| merge | Elementwise | running (o, lse) <- LSE-weighted sum with a partial one, on the rows the partial one covers |
| accumulate | Elementwise | a += b, on the rows the kernels wrote; with option `by_token`, row by row of the same token, of which b may have several |
| row_dot | Elementwise | delta <- rowsum(dO * O) |
| pack_rows, unpack_rows | Elementwise | values to rows of codes and scales, and back (`cost_models.packing`) |
| attention_cached | Attention | o, lse <- (q, k, v) or (q, k), v the first features of k; rows may be packed |
| cast | Elementwise | b <- a in another dtype, or contiguous; with `covered`, zero outside what its kernels wrote |
| reorder | Elementwise | b <- the rows of a of the same tokens (layouts `have`, `want`), zero where a lacks one |
| place | Elementwise | b <- a at the heads from `first_head` on, zero elsewhere |
| scores, softmax, softmax_backward, weigh, weigh_transposed | Gemm, Elementwise | attention with stored scores (`simulator.schedules.rsa`) |
| vertical_slash_scores, vertical_slash_select | Gemm, Elementwise | MInference: weights of key columns and of diagonals; those with the highest |
| attention_sparse | Attention | o, lse <- (q, k, v) on the chosen columns and diagonals, priced as a window of as many keys |
| pack, unpack | Elementwise | reorder before or after an all-to-all, `axis` heads or tokens; pack may replicate heads |
| reduce_replicas | Elementwise | sum the gradients of replicated KV heads |
| concat, select | Elementwise | APB: passed keys before own ones; the keys with the highest scores |
| combine | Elementwise | LSE-weighted sum of all ranks' partial results |
| score | Gemm | APB's retaining head: one score per token and KV head |
| exchange | Exchange | grouped send and receive of one hop; a tensor goes only where the receiving buffer has rows |
| all_to_all, all_gather | Collective | as in NCCL: equal slices of memory, in order of the group's ranks |
| all_to_all_v | Collective | rows for each rank one after the other, as many as `splits` says |
| all_reduce, reduce_scatter | Collective | as in NCCL, sums; several buffers in one launch are flat, or along `axis` |
| send | Transfer | one rank of each group of two sends to the other (pipeline stages) |
| propagation | Elementwise | nothing, on a communication lane: what is sent is under way for `seconds` |
| offload, fetch | HostCopy | tensors copied to, or from, memory of the host, one for one |
| synchronize | Elementwise | on the host lane: the host waits for the compute lane and for what has written what it reads |
| wait | Elementwise | nothing; the compute lane waits until communication has written what is read |

The kinds of layers and steps (linear, rms_norm, ...) are in `simulator.layers.kinds`.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.program.rings import Matching, Ring

if TYPE_CHECKING:
    from simulator.program.lowered import LoweringColumn
    from simulator.program.partition import Layout

IntArray = NDArray[np.int64]
Column = int | IntArray

HOST, COMPUTE = "host", "compute"
SYNCHRONIZE, PROPAGATION = "synchronize", "propagation"
CATEGORY = {
    "exchange": "communication",
    "all_to_all": "communication",
    "all_to_all_v": "communication",
    "all_gather": "communication",
    "all_reduce": "communication",
    "reduce_scatter": "communication",
    "send": "communication",
    "broadcast": "communication",
    "reduce": "communication",
    "gather": "communication",
    "scatter": "communication",
    "barrier": "communication",
    PROPAGATION: "communication",
    "communication": "communication",
    "offload": "copy",
    "fetch": "copy",
    "memcpy": "copy",
    "memset": "copy",
    "launch": "host",
    SYNCHRONIZE: "host",
}


@dataclass(frozen=True, eq=False)
class Slices:
    """The part of a whole tensor that each rank has: start and stop, per rank, along an axis; None: of it flattened."""

    axis: int | None
    start: IntArray
    stop: IntArray


@dataclass(slots=True, eq=False)
class Buffer:
    """One tensor per rank, [batch, tokens, heads, dim], contiguous.

    Attributes
    ----------
    tokens : rows of each rank's shard.
    layout : which tokens of the sequence the rows are, where they are tokens of the sequence.
    bytes : of each rank's shard.
    is_input : whether it holds data before the Program starts.
    on_host : whether it is in memory of the host, where only copies reach it.
    slices : of a weight, or of the batch: what of the whole tensor each rank has, one axis after the other.
    base, first_head, first_row : of a view, the buffer that it is a part of, whose ``id`` it has, and where in it the
        view begins. A view takes no memory and is never allocated.
    """

    id: int
    name: str
    batch: int
    tokens: Column
    heads: int
    dim: int
    dtype: str
    bytes: Column
    layout: Layout | None = None
    is_input: bool = False
    slices: tuple[Slices, ...] = ()
    on_host: bool = False
    base: Buffer | None = None
    first_head: Column = 0
    first_row: Column = 0


class Sparse(NamedTuple):
    """How a kernel computes scattered pairs, whose lowering only says how many they are.

    Attributes
    ----------
    kernel : that does it, where the GPU's profile has it; else the one asked for.
    within : calls that would compute all pairs among which they lie.
    share : of the tiles of those calls, that each piece of work visits.
    """

    kernel: str
    within: LoweringColumn
    share: float


@dataclass(slots=True, eq=False)
class Attention:
    """Attention kernels of one step: which calls, from the two layouts and the mask.

    ``row_bytes`` are those of a key with its value where they are not (D + Dv) elements, as in `AttentionShape`.
    """

    lowering: LoweringColumn
    direction: str
    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    dtype: str
    precomputed_delta: bool = False
    row_bytes: int | None = None
    sparse: Sparse | None = None


@dataclass(slots=True, eq=False)
class Elementwise:
    """A memory-bound kernel: bytes read and written by each rank, and the access pattern that sets its rate.

    ``lowering`` restricts it to the rows (side "q") or columns (side "k") that the attention kernels of a step cover:
    the bytes are then those of one token, to be multiplied by that number.
    """

    pattern: str
    bytes_read: Column
    bytes_written: Column
    lowering: LoweringColumn | None = None
    side: str = "q"


@dataclass(slots=True, eq=False)
class Gemm:
    """Dense products, (m, n, k) of each in order; ``head_pairs`` are the attended pairs, of all heads, among them.

    ``weight_bits`` of an element of the [k, n] matrices, None for those of the dtype. With ``over_rows`` the sum is
    over the m rows instead: [n, m] x [m, k], the gradient of a weight.
        ``planes`` are the matrices of a grouped product (experts), each with its share of the m rows.
    """

    m: Column
    shapes: tuple[tuple[int, int], ...]
    dtype: str
    head_pairs: int = 0
    weight_bits: float | None = None
    planes: Column = 1
    over_rows: bool = False


@dataclass(slots=True, eq=False)
class Stencil:
    """A kernel outside the tensor cores that reads neighbours: bytes moved, and FLOP, of each rank."""

    bytes_read: Column
    bytes_written: Column
    flop: Column


@dataclass(slots=True, eq=False)
class Exchange:
    """Grouped send and receive: every rank sends ``bytes`` to its successor in the ring, or in another matching.

    ``largest`` is the share of the largest of the tensors, each of which is a message of its own.
    """

    ring: Ring | Matching
    bytes: Column
    largest: float = 1.0


@dataclass(slots=True, eq=False)
class Collective:
    """An NCCL collective. ``bytes`` is each rank's input, ``bytes_sent`` what it puts on the wire.

    ``groups`` numbers the group of each rank, from 0; None is one group of all. Of an all_to_all_v, ``splits[r, s]``
    is the rows that rank r sends to rank s, and ``row_bytes`` the bytes of a row.
    """

    collective: str
    bytes: Column
    bytes_sent: Column
    groups: IntArray | None = None
    splits: IntArray | None = None
    row_bytes: int = 0

    def flows(self) -> tuple[IntArray, IntArray]:
        """Source and target of everything that an all_to_all_v sends to other ranks."""
        assert self.splits is not None
        source, target = np.nonzero(self.splits)
        return source[source != target], target[source != target]


@dataclass(slots=True, eq=False)
class Transfer(Collective):
    """A send inside groups of two ranks: ``to`` is where each rank sends, itself where it does not.

    ``arrived`` says that the data have come over a link of their own, outside the cluster's: they are there at once.
    """

    to: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    arrived: bool = False


@dataclass(slots=True, eq=False)
class HostCopy:
    """A copy between the memories of a GPU and its host, by a copy engine."""

    bytes: Column


Work = HostCopy | Stencil | Attention | Elementwise | Gemm | Exchange | Collective


@dataclass(slots=True, eq=False)
class Operation:
    """One operation of all ranks (of those in ``ranks``, where not all take part).

    Attributes
    ----------
    id : position among the operations of the Program.
    reads, writes : buffers; a buffer in both is updated in place.
    ranks : boolean column of the ranks that take part, None for all.
    """

    id: int
    kind: str
    lane: str
    phase: str
    step: int
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    work: Work
    ranks: NDArray[np.bool_] | None = None
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def category(self) -> str:
        """``compute``, ``communication``, ``copy`` or ``host``."""
        return CATEGORY.get(self.kind, "compute")

    @property
    def communicates(self) -> bool:
        """Whether ranks have a part in it together; of communication all but the time that data are under way."""
        return isinstance(self.work, Exchange | Collective)

    @property
    def bytes_sent(self) -> Column:
        """Bytes each rank puts on the wire to other ranks."""
        if isinstance(self.work, Exchange):
            return self.work.bytes if self.work.ring.size > 1 else 0
        return self.work.bytes_sent if isinstance(self.work, Collective) else 0

    def option(self, name: str) -> object:
        """A static parameter of the operation, by name."""
        return dict(self.options)[name]
