"""Attention in which queries circulate and keys and values stay: the ring's "pass-Q".

    P - 1 hops of Q,                           A e bytes each        A = B (c/P) H D elements, c queries in all
    P - 1 returns of O and LSE of visitors,    A e + 4 R each        R = B (c/P) H rows

against (P - 1) 2 B (n/P) K D e for keys and values of n tokens: where few queries attend to many cached keys, fewer
bytes go round (from n/c = H/K on, a little later for the LSE). A hop is hidden behind the kernel beside it, and so is a
return, one step later, but for the last; Yang et al. return all results at the end with one all-to-all, which is
exposed. Every rank attends each visitor to the keys that it has, so a chunk's pairs are balanced as its queries are.

Source: Yang et al. 2024 (Context Parallelism for Scalable Million-Token Inference, arXiv 2411.01783) section 3.5.
"""

from __future__ import annotations

from simulator.program.recorder import Partial, Recorder
from simulator.program.rings import Matching, Ring
from simulator.program.tape import Tensor


def circulate_queries(r: Recorder, ring: Ring, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(O, LSE) of each rank's own queries over the keys of all ranks of its ring."""
    total = returning = None
    for step in r.steps(ring.size):
        (near,) = r.shift(ring, q) if step < ring.size - 1 else (q,)
        part = r.attention(q, k, v)
        if step == 0:
            total = r.merge(None, part)
        else:
            total = r.merge(total, returning) if returning is not None else total
            returning = _send_home(r, ring, step, part)
        del part
        q = near
    return r.finish(r.merge(total, returning) if returning is not None else total)


def _send_home(r: Recorder, ring: Ring, step: int, part: Partial) -> Partial:
    """What visitors found, on its way to the ranks that they are from, ``step`` places back."""
    back = Matching("return", ring.neighbour(-step))
    layout = part.o.layout.moved(back)
    o, lse = [r.like(each, each.buffer.name, layout=layout) for each in (part.o, part.lse)]
    r.exchange(back, (part.o, part.lse), (o, lse))
    return Partial(o, lse, part.lowering.moved(back.source))
