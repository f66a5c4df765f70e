"""What comes after the layers: the head and the loss, whole or fused over chunks of the sequence.

    loss = mean over tokens of lse - logits[label],    dlogits = (softmax - onehot) / tokens

    full      logits of all tokens are saved, and their gradient is another tensor: 2 T V e bytes
    fused     chunk by chunk: logits, their gradient in place, dx and the head's dw at once, all in the forward pass;
              T V e / chunks bytes (Liger kernel, Hsu et al. 2024, arXiv 2410.10989, section 3.2)

With the words split over N tensor parallel ranks, each finds its part's log-sum-exp and target logit; both are gathered
(8 T (N-1) bytes) and joined. A full head's input is gathered and its dx reduced by the caller's `enter`.
"""

from __future__ import annotations

from itertools import pairwise

from simulator.layers.core import take_tokens
from simulator.layers.linear import linear, linear_weight_grad, token_rows, use_weight
from simulator.layers.net import Net, Var
from simulator.layers.parameter import Parameter
from simulator.layers.tensor_parallel import TensorParallel
from simulator.program.operations import Collective, Elementwise, Gemm
from simulator.program.tape import Tensor

Rows = tuple[Tensor, Tensor]
"""Log-sum-exp of the words, and logit of the label, of each token (fp32)."""


def full_loss(net: Net, parallel: TensorParallel, x: Var, head: Parameter, labels: Tensor, scale: float) -> Rows:
    """Loss from the logits of all tokens."""
    logits = linear(net, x, head, "logits")
    rows = cross_entropy(net, parallel, logits.tensor, labels)
    if logits.slot and net.saves:
        tensor, slot = logits.tensor, logits.slot

        def backward() -> None:
            net.give(slot, cross_entropy_backward(net, parallel, tensor, labels, rows[0], scale))

        net.push(backward)
    return rows


def fused_loss(
    net: Net, parallel: TensorParallel, x: Var, head: Parameter, labels: Tensor, scale: float, chunks: int
) -> list[Rows]:
    """Loss chunk by chunk; gradients of the input and of the head are ready when it returns."""
    r, b = net.r, x.tensor.buffer
    assert isinstance(b.tokens, int), "ranks hold equally many tokens"
    edges = [b.tokens * chunk // chunks for chunk in range(chunks + 1)]
    dx = r.like(x.tensor, "d x") if x.slot is not None else None
    found = []
    for start, stop in pairwise(edges):
        if start == stop:
            continue
        logits = _chunk_logits(net, x.tensor, head, (start, stop))
        part = take_tokens(net, labels, (start, stop))
        found.append(cross_entropy(net, parallel, logits, part))
        if not net.wants(x, head):
            continue
        cross_entropy_backward(net, parallel, logits, part, found[-1][0], scale, in_place=True)
        if dx is not None:
            matrix = use_weight(net, head)
            work = Gemm(token_rows(logits), ((head.columns, head.rows),), b.dtype)
            r.emit("linear_dx", work, (logits, matrix), (dx,), rows=(start, stop))
        if head.trainable:
            linear_weight_grad(net, head, logits, x.tensor, rows=(start, stop))
    if dx is not None and x.slot is not None:
        slot, grads = x.slot, [dx]
        del dx
        net.push(lambda: net.give(slot, grads.pop()))
    return found


def _chunk_logits(net: Net, x: Tensor, head: Parameter, rows: tuple[int, int]) -> Tensor:
    b = x.buffer
    logits = net.r.tensor("logits", None, 1, head.rows, b.dtype, tokens=rows[1] - rows[0], batch=b.batch)
    work = Gemm(token_rows(logits), ((head.rows, head.columns),), b.dtype)
    net.r.emit("linear", work, (x, use_weight(net, head)), (logits,), rows=rows)
    return logits


def cross_entropy(net: Net, parallel: TensorParallel, logits: Tensor, labels: Tensor) -> Rows:
    """Log-sum-exp and the label's logit of each token, over the words of all tensor parallel ranks."""
    r, b = net.r, labels.buffer
    lse, target = [r.tensor(name, b.layout, 1, 1, "fp32", tokens=b.tokens, batch=b.batch) for name in ("lse", "target")]
    read, written = logits.buffer.bytes + b.bytes, 2 * lse.buffer.bytes
    offset = parallel.grid.coordinate("tp") * logits.buffer.dim
    r.emit("cross_entropy", Elementwise("reduce", read, written), (logits, labels), (lse, target), offset=offset)
    if parallel.size == 1:
        return lse, target
    n = parallel.size
    parts = [
        r.tensor(f"{each.buffer.name}, all", None, 1, 1, "fp32", tokens=b.tokens, batch=n * b.batch)
        for each in (lse, target)
    ]
    work = Collective("all_gather", written, written * (n - 1), parallel.groups)
    r.emit("all_gather", work, (lse, target), parts, lane="comm:tp")
    r.emit("cross_entropy_join", Elementwise("combine", n * written, written), parts, (lse, target))
    return lse, target


def cross_entropy_backward(
    net: Net, parallel: TensorParallel, logits: Tensor, labels: Tensor, lse: Tensor, scale: float,
    factor: Tensor | None = None, *, in_place: bool = False,
) -> Tensor:  # fmt: skip
    """Gradient of the logits: (softmax - onehot) ``scale``, or a ``factor`` for each sequence.

    ``in_place`` as fused kernels do it, else as autograd does.
    """
    size = logits.buffer.bytes
    offset = parallel.grid.coordinate("tp") * logits.buffer.dim
    work = Elementwise("copy", size + labels.buffer.bytes, size)
    reads = (logits, labels, lse) if factor is None else (logits, labels, lse, factor)
    grad = logits if in_place else net.r.like(logits, "d logits")
    net.r.emit("cross_entropy_backward", work, reads, (grad,), scale=scale, offset=offset)
    return grad
