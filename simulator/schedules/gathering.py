"""Keys of all ranks on every rank, in the order of the sequence, and the way back of their gradients.

    all-gather        (P-1) n bytes sent of n a rank; then, unless the parts are contiguous, a copy into natural order
    reduce-scatter    the inverse copy, then (P-1) n bytes sent

In natural order the keys that a causal query sees are a prefix, so that one kernel takes them.
"""

from __future__ import annotations

from simulator.program.partition import Layout, same_order
from simulator.program.recorder import Recorder
from simulator.program.tape import Tensor


def start_gather(r: Recorder, tensor: Tensor, home: Layout) -> Tensor:
    """All ranks' tensors, one after the other, on their way; of one sequence in natural order if the parts are."""
    b, ranks = tensor.buffer, r.setup.n_ranks
    if ranks == 1:
        return tensor
    if b.batch == 1:
        gathered = home.gathered(r.setup.all_ranks())
        return r.all_gather(tensor, r.tensor(f"{b.name}, all", gathered, b.heads, b.dim, b.dtype))
    target = r.tensor(f"{b.name}, all", None, b.heads, b.dim, b.dtype, tokens=b.tokens, batch=ranks * b.batch)
    return r.all_gather(tensor, target)


def in_order(r: Recorder, gathered: Tensor, home: Layout) -> Tensor:
    """What `start_gather` brought, in the order of the sequence."""
    b, setup = gathered.buffer, r.setup
    tokens = min(setup.workload.seq_len, int(home.partition.stop.max()))  # fewer where chunks are yet to come
    together, whole = home.gathered(setup.all_ranks()), Layout.whole(tokens, setup.n_ranks)
    if setup.n_ranks == 1:
        return gathered
    if b.batch == setup.workload.batch and same_order(together, whole):
        return gathered
    return r.reorder(gathered, together, r.tensor(b.name, whole, b.heads, b.dim, b.dtype))


def scatter_sum(r: Recorder, tensor: Tensor, home: Layout) -> Tensor:
    """Each rank's rows of the sum over all ranks, from all rows in the order of the sequence."""
    b, setup = tensor.buffer, r.setup
    if setup.n_ranks == 1:
        return tensor
    batch, together = setup.workload.batch, home.gathered(setup.all_ranks())
    ordered = tensor
    if batch > 1 or not same_order(together, tensor.layout):
        tokens = home.tokens
        ordered = r.tensor(b.name, together, b.heads, b.dim, b.dtype, tokens=tokens, batch=setup.n_ranks * batch)
        r.reorder(tensor, tensor.layout, ordered)
    return r.reduce_scatter(ordered, r.tensor(b.name, home, b.heads, b.dim, b.dtype))
