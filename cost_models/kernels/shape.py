"""What an attention kernel's time depends on besides its rows, columns and window."""

from __future__ import annotations

from dataclasses import dataclass

from cost_models.units import dtype_bytes


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Batch, heads, head dims and dtype of one rank's attention call; kv heads divide heads.

    ``row_bytes`` are those that a kernel reads of a key with its value, of one kv head, where they are not (D + Dv)
    elements: packed rows (`cost_models.packing`), or values that are part of the key (latent attention).
    """

    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    dtype: str
    row_bytes: int | None = None

    @property
    def key_bytes(self) -> int:
        """Bytes of a key with its value, of one kv head, as a forward kernel reads them."""
        if self.row_bytes is not None:
            return self.row_bytes
        return (self.head_dim + self.v_head_dim) * self.element_bytes

    @property
    def problems(self) -> int:
        """Independent attention problems: heads times batch."""
        return self.batch * self.heads

    @property
    def element_bytes(self) -> int:
        """Bytes of one element of Q, K and V."""
        return dtype_bytes(self.dtype)

    def flop_per_pair(self, direction: str) -> int:
        """Of one (query, key) pair and head: 2 (D + Dv) forward, 2 (3 D + 2 Dv) backward.

        Backward has S = Q K^T, dQ and dK over D, and dV and dP = dO V^T over Dv (Dao 2023, algorithm 2): 2.5 times the
        forward for D = Dv.

        >>> shape = AttentionShape(1, 32, 8, 128, 128, "bf16")
        >>> shape.flop_per_pair("forward"), shape.flop_per_pair("backward")
        (512, 1280)
        """
        d, dv = self.head_dim, self.v_head_dim
        return 2 * (d + dv) if direction == "forward" else 2 * (3 * d + 2 * dv)
