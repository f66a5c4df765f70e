"""The attention that is computed: one layer's core, Q, K, V in and O out, over one whole sequence.

    Q [B, S, H, D]   K [B, S, K, D]   V [B, S, K, Dv]   ->   O [B, S, H, Dv],  LSE [B, S, H]

B sequences of S tokens, H query heads in groups of H / K that share a key-value head (GQA, Ainslie et al. 2023), head
dims D of queries and keys and Dv of values, which differ for multi-head latent attention only.

    FLOP forward = (2 D + 2 Dv) H B pairs = 4 D H B pairs for D = Dv,  pairs = what the mask allows per head and row
    backward     = 2.5 times that: five matrix products instead of two (Dao 2023, section 3.1)
"""

from __future__ import annotations

from dataclasses import dataclass

from cost_models.masks import Mask
from cost_models.units import DTYPE_BYTES
from traces.errors import InputError

MAX_TENSOR_BYTES = 2**53
"""Largest Q over all ranks: sums over a model's tensors stay within int64."""

FLOAT_DTYPES = tuple(name for name in DTYPE_BYTES if not name.startswith(("int", "packed")))


@dataclass(frozen=True)
class AttentionWorkload:
    """One layer's attention core.

    Parameters
    ----------
    batch : sequences B.
    seq_len : tokens S of the whole sequence, over all ranks.
    heads, kv_heads : query heads H and key-value heads K; K divides H.
    head_dim, v_head_dim : dims D of queries and keys, Dv of values and outputs.
    dtype : of Q, K, V and O.
    mask : which pairs are attended; it fits ``seq_len``.

    Raises
    ------
    InputError
        Where a number is not positive, heads do not divide, the dtype is unknown or the mask does not fit.

    >>> from cost_models.masks import parse_mask
    >>> workload = AttentionWorkload(1, 1024, 32, 8, 128, 128, "bf16", parse_mask("causal"))
    >>> workload.heads_per_kv_head, workload.pairs
    (4, 524800)
    """

    batch: int
    seq_len: int
    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    dtype: str
    mask: Mask

    def __post_init__(self) -> None:
        for name in ("batch", "seq_len", "heads", "kv_heads", "head_dim", "v_head_dim"):
            _require_positive(name, getattr(self, name))
        if self.heads % self.kv_heads:
            raise InputError(
                "kv heads do not divide heads", got=f"{self.heads} heads, {self.kv_heads} kv heads",
                expected="heads a multiple of kv heads",
            )  # fmt: skip
        if self.dtype not in FLOAT_DTYPES:
            raise InputError("dtype is not one that attention computes in", got=repr(self.dtype),
                             expected="one of " + ", ".join(FLOAT_DTYPES))  # fmt: skip
        self._check_size()
        self.mask.validate(self.seq_len)

    def _check_size(self) -> None:
        elements = self.batch * self.seq_len * self.heads * max(self.head_dim, self.v_head_dim)
        if elements * DTYPE_BYTES[self.dtype] > MAX_TENSOR_BYTES:
            raise InputError(
                "attention is too large", expected=f"Q of at most {MAX_TENSOR_BYTES} bytes over all ranks",
                got=f"batch {self.batch}, {self.seq_len} tokens, {self.heads} heads of dim {self.head_dim}",
            )  # fmt: skip

    @property
    def heads_per_kv_head(self) -> int:
        """Query heads H / K that share one key-value head."""
        return self.heads // self.kv_heads

    @property
    def pairs(self) -> int:
        """Attended (query, key) pairs per head and sequence."""
        return self.mask.area(self.seq_len)

    @property
    def flop_forward(self) -> int:
        """Operations of both matrix products, (2 D + 2 Dv) H B pairs."""
        return 2 * (self.head_dim + self.v_head_dim) * self.heads * self.batch * self.pairs


def _require_positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is not a positive whole number", got=repr(value))
