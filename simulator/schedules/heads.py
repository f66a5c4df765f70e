"""All-to-alls between shards of tokens and shards of heads, within groups of G ranks.

    tokens to heads   c = S/P tokens of all heads        ->  G c tokens of heads/G heads, (G-1)/G of the tensor sent
    heads to tokens   the way back; heads that were repeated are summed

With fewer KV heads than ranks each is sent to G/K. An all-to-all sends equal slices of memory: `pack` puts heads
outermost before, `unpack` puts them back after; for one sequence (batch 1) the slices of tokens are in order anyway.
Source: Jacobs et al. 2023 (arXiv 2309.14509) section 3; KV replication: USP (arXiv 2405.07719) section 3.
"""

from __future__ import annotations

from simulator.program.partition import Layout
from simulator.program.recorder import Recorder
from simulator.program.rings import Ring
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from traces.errors import InputError


def check_heads(setup: Setup, ranks: int) -> None:
    """Refuse heads that cannot be divided among the ranks of a group."""
    heads, kv_heads = setup.workload.heads, setup.workload.kv_heads
    if heads % ranks:
        raise InputError(f"{heads} heads are not divisible by {ranks} ranks")
    if kv_heads % ranks and ranks % kv_heads:
        raise InputError(f"{kv_heads} KV heads neither divide {ranks} ranks nor are divisible by them")


def with_heads(layout: Layout, group: Ring, heads: int) -> Layout:
    """The layout with each rank's share of ``heads``."""
    return Layout(layout.partition, layout.owner, None, group.position * heads // group.size)


def scatter_heads(r: Recorder, tensor: Tensor, together: Layout, group: Ring, pattern: str = "pack") -> Tensor:
    """From all heads of own tokens to own heads of the tokens that the group holds ``together``."""
    b, ranks, batch = tensor.buffer, group.size, r.setup.workload.batch
    if ranks == 1:
        return tensor
    own, target = max(b.heads // ranks, 1), with_heads(together, group, b.heads)
    packed = r.tensor(f"{b.name} by head", None, own, b.dim, b.dtype, tokens=b.tokens, batch=ranks * batch)
    r.copy("pack", (tensor,), packed, pattern, axis="heads")
    if batch == 1:
        return r.all_to_all(packed, r.tensor(b.name, target, own, b.dim, b.dtype), group)
    received = r.all_to_all(packed, r.like(packed, b.name), group)
    return r.copy("unpack", (received,), r.tensor(b.name, target, own, b.dim, b.dtype), pattern, axis="tokens")


def gather_heads(
    r: Recorder, tensor: Tensor, name: str, home: Layout, heads: int, group: Ring, pattern: str = "pack"
) -> Tensor:  # fmt: skip
    """From own heads of the group's tokens to all heads of own tokens; repeated heads are summed."""
    b, ranks, batch = tensor.buffer, group.size, r.setup.workload.batch
    if ranks == 1:
        return tensor
    result, packed = r.tensor(name, home, heads, b.dim, b.dtype), tensor
    if batch > 1:
        packed = r.tensor(name, None, b.heads, b.dim, b.dtype, tokens=home.tokens, batch=ranks * batch)
        r.copy("pack", (tensor,), packed, pattern, axis="tokens")
    received = r.tensor(f"{name} by head", None, b.heads, b.dim, b.dtype, tokens=home.tokens, batch=ranks * batch)
    r.all_to_all(packed, received, group)
    kind = "unpack" if heads == b.heads * ranks else "reduce_replicas"
    return r.copy(kind, (received,), result, pattern, axis="heads")
