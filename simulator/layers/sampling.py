"""The next token: the most likely word, over all tensor parallel ranks' parts of the vocabulary.

Each rank finds the best of its words, ranks exchange a number and a value, and all know the best; no logits move.
Drawing by temperature instead reads the logits once more, which costs as little.
"""

from __future__ import annotations

from simulator.layers.net import Net
from simulator.layers.tensor_parallel import TensorParallel
from simulator.program.operations import Collective, Elementwise
from simulator.program.tape import Tensor


def best_word(net: Net, parallel: TensorParallel, logits: Tensor) -> Tensor:
    """Number of the word with the largest logit, [B, 1, 1]."""
    r, b = net.r, logits.buffer
    value = r.tensor("best", None, 1, 1, "fp32", tokens=1, batch=b.batch)
    ids = r.tensor("ids", None, 1, 1, "int64", tokens=1, batch=b.batch)
    offset = parallel.grid.coordinate("tp") * b.dim
    work = Elementwise("reduce", b.bytes, value.buffer.bytes + ids.buffer.bytes)
    r.emit("best_word", work, (logits,), (value, ids), offset=offset)
    if parallel.size == 1:
        return ids
    n, size = parallel.size, value.buffer.bytes + ids.buffer.bytes
    parts = [r.tensor(f"{each.buffer.name}, all", None, 1, 1, each.buffer.dtype, tokens=1, batch=n * b.batch)
             for each in (value, ids)]  # fmt: skip
    gather = Collective("all_gather", size, size * (n - 1), parallel.groups)
    r.emit("all_gather", gather, (value, ids), parts, lane="comm:tp")
    return r.copy("choose_word", parts, r.like(ids, "ids"), "reduce")
