"""Costs of layers whose memory-bound parts are PyTorch operators one after the other, as in Hugging Face's models.

A Program has one operation for each part and prices one fused kernel. transformers 4.45 (`modeling_llama.py`:
LlamaRMSNorm, apply_rotary_pos_emb, rotate_half, LlamaMLP) runs, in units of the bf16 tensor (read, written):

    rms_norm   to fp32 (1, 2), square (2, 2), mean (2, 0), times rsqrt (2, 2), to bf16 (2, 1), times gain (1, 1)
    rope       times cos (1, 1), half negated (.5, .5), halves joined (1, 1), times sin (1, 1), sum (2, 1)
    swiglu     silu (1, 1), product (2, 1)

that is 18, 10 and 5 passes over a tensor where a fused kernel makes 2, 2 and 3. Nothing is fitted.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.costing import CostModel
from simulator.program.operations import Column, Elementwise, Operation

KERNELS: dict[str, tuple[tuple[float, float], ...]] = {
    "rms_norm": ((1, 2), (2, 2), (2, 0), (2, 2), (2, 1), (1, 1)),
    "rope": ((1, 1), (0.5, 0.5), (1, 1), (1, 1), (2, 1)),
    "swiglu": ((1, 1), (2, 1)),
}
"""(Read, written) of each kernel of a part, in units of its tensor."""


class EagerCosts(CostModel):
    """Prices every kernel of an eager part, on the GPU and on the host."""

    def host_ns(self, operation: Operation) -> Column:
        """A launch for each kernel."""
        return super().host_ns(operation) * len(KERNELS.get(operation.kind, (None,)))

    def device_ns(self, operation: Operation) -> Column:
        """The kernels one after the other."""
        work = operation.work
        if operation.kind not in KERNELS or not isinstance(work, Elementwise):
            return super().device_ns(operation)
        unit = operation.writes[0].bytes
        parts = [
            replace(operation, work=replace(work, pattern="copy", bytes_read=_of(unit, read),
                                            bytes_written=_of(unit, written)))
            for read, written in KERNELS[operation.kind]
        ]  # fmt: skip
        return sum([super(EagerCosts, self).device_ns(part) for part in parts])


def _of(unit: Column, share: float) -> Column:
    return int(unit * share) if isinstance(unit, int) else (unit * share).astype(int)
