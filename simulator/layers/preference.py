"""Losses that compare two answers: DPO and ORPO, from log-probabilities of whole sequences.

    p = sum over tokens of target logit - lse,   one number per sequence; sequences 2 i and 2 i + 1 are a pair

    DPO     -log sigmoid(beta ((p_c - p_r) - (q_c - q_r)))           q: of the reference
    ORPO    -p_c / n - weight log sigmoid(odds(p_c / n) - odds(p_r / n)),   odds(l) = l - log(1 - e^l)

Minus their gradient by p is one factor per sequence; that of the logits is then factor (softmax - onehot). Sequences
lie on several context parallel ranks: their sums are reduced, 8 bytes per sequence. Whole logits are needed: the factor
is known only after all of them. Every token counts as the answer's, as with an empty prompt.
Source: Rafailov et al. 2023 (arXiv 2305.18290) equation 7; Hong et al. 2024 (arXiv 2403.07691) equations 6 and 7.
"""

from __future__ import annotations

from typing import Any

from cost_models.finetuning import Method
from simulator.layers.ends import Rows, cross_entropy, cross_entropy_backward
from simulator.layers.linear import linear
from simulator.layers.net import Net, Var
from simulator.layers.parameter import Parameter
from simulator.layers.tensor_parallel import TensorParallel
from simulator.program.operations import Collective, Elementwise
from simulator.program.tape import Tensor

SETTINGS = {"dpo": {"beta": 0.1}, "orpo": {"weight": 0.1}}
"""What executors compute with: the papers' usual values."""


def sequence_log_probability(
    net: Net, parallel: TensorParallel, x: Var, head: Parameter, labels: Tensor
) -> tuple[Tensor, Rows, Var]:
    """Sum over tokens [B, 1, 1], on every rank of a context parallel group; and what it is made of."""
    logits = linear(net, x, head, "logits")
    rows = cross_entropy(net, parallel, logits.tensor, labels)
    r, b = net.r, rows[0].buffer
    total = r.tensor("log probability", None, 1, 1, "fp32", tokens=1, batch=b.batch)
    r.emit("sequence_sum", Elementwise("reduce", 2 * b.bytes, total.buffer.bytes), rows, (total,))
    if parallel.grid.cp > 1:
        n, size = parallel.grid.cp, total.buffer.bytes
        work = Collective("all_reduce", size, 2 * size * (n - 1) // n, parallel.grid.groups("cp"))
        r.emit("all_reduce", work, (total,), (total,), lane="comm:cp")
    return total, rows, logits


def preference_loss(
    net: Net, parallel: TensorParallel, x: Var, head: Parameter, labels: Tensor, method: Method,
    reference: Tensor | None, pairs: int, tokens: int,
) -> Rows:  # fmt: skip
    """Loss over ``pairs`` pairs of sequences of some tokens, of all ranks and microbatches."""
    total, rows, logits = sequence_log_probability(net, parallel, x, head, labels)
    if logits.slot is None or not net.saves:
        return rows
    factor = net.r.like(total, "factor")
    reads = (total,) if reference is None else (total, reference)
    size = total.buffer.bytes
    options: dict[str, Any] = {
        "method": method.name,
        "settings": SETTINGS[method.name],
        "pairs": pairs,
        "tokens": tokens,
    }
    net.r.emit("preference", Elementwise("copy", len(reads) * size, size), reads, (factor,), **options)
    tensor, slot = logits.tensor, logits.slot

    def backward() -> None:
        net.give(slot, cross_entropy_backward(net, parallel, tensor, labels, rows[0], 1.0, factor))

    net.push(backward)
    return rows
