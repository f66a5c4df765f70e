"""What memory-bound kernels and dense products reach on a GPU."""

from __future__ import annotations

from pydantic import model_validator

from cost_models.hardware.terms import Cost, Count, Fraction, Seconds, Share, Terms

PATTERNS = ("copy", "fill", "merge", "accumulate", "reduce", "gather", "pack", "combine")
"""Access patterns of memory-bound kernels (`simulator.program.operations`, Elementwise)."""
EAGER = {"mixed": 0.64, "strided": 0.45}
"""Share of memory bandwidth that PyTorch's own kernels reach which are not vectorised: on tensors of two dtypes (casts
to fp32, fp32 += bf16), and copies of transposed 16-bit tensors.

Medians of the kernels in a step of ring-flash-attn's and of PyTorch's context parallelism on an H100
(tests/traces/kineto/recorded/h100-pair-*); other GPUs are assumed to be alike.
"""


class ElementwiseCosts(Terms):
    """Memory-bound kernels: time of one that moves nothing, and the share of memory bandwidth by access pattern."""

    overhead_s: Seconds
    efficiency: dict[str, Fraction]

    @model_validator(mode="after")
    def _has_all_patterns(self) -> ElementwiseCosts:
        if set(self.efficiency) - set(EAGER) != set(PATTERNS):
            raise ValueError("efficiency is not given for exactly " + ", ".join(PATTERNS))
        return self

    def share(self, pattern: str) -> float | None:
        """Of memory bandwidth; None for an unknown pattern."""
        return self.efficiency.get(pattern, EAGER.get(pattern))


class GemmCosts(Terms):
    """Dense products: the largest tile of the output, share of peak within it, time of a call besides.

    ``prologue_s`` is of each tile, ``edge_cost`` the part of a tile's time that goes with the operands it loads for
    each result (`cost_models.kernels.gemm`); by default as fitted to an H100: a matter of tiles, not of rates.
    ``boost_s``, ``sustained_loss`` and ``sustained_s`` are of the power limit, as of a `KernelPass`.
    """

    tile_rows: Count
    tile_columns: Count
    efficiency: Fraction
    overhead_s: Seconds
    prologue_s: Seconds = 0.0
    edge_cost: Cost = 0.2
    boost_s: Seconds = 0.0
    sustained_loss: Share = 0.0
    sustained_s: Seconds = 1e-3
