"""Memory of backward calls besides their tensors."""

from __future__ import annotations

from cost_models.kernels import AttentionShape, attention_workspace_bytes
from cost_models.masks import KernelCall, Segment

CALL = KernelCall((Segment(0, 256, 0, 512),), None, None)


def needed(kernel: str, *, kv_heads: int = 8, head_dim: int = 128, delta: bool = False) -> int:
    shape = AttentionShape(2, 8, kv_heads, head_dim, head_dim, "bf16")
    return attention_workspace_bytes(kernel, CALL, shape, precomputed_delta=delta)


def test_accumulator_and_delta_by_kernel() -> None:
    rows = 2 * 8 * 256
    assert needed("flash2") == rows * 4 + rows * 128 * 4
    assert needed("flash2", delta=True) == needed("flash2") + rows * 128 * 2  # an output that has the delta
    assert needed("triton") == rows * 4
    assert needed("triton", delta=True) == 0
    assert needed("mine") == needed("flash2")


def test_grouped_heads_need_copies_of_key_gradients() -> None:
    assert needed("flash2", kv_heads=2) - needed("flash2") == 2 * 512 * 8 * 256 * 2
    assert needed("cudnn", kv_heads=2) - needed("cudnn") == 2 * 512 * 8 * 256 * 2
    assert needed("flex", kv_heads=2) == needed("flex")


def test_rows_and_head_dim_are_rounded_up() -> None:
    one_row = KernelCall((Segment(0, 1, 0, 1),), None, None)
    shape = AttentionShape(1, 1, 1, 100, 100, "bf16")
    assert attention_workspace_bytes("flash2", one_row, shape) == 128 * 4 + 128 * 128 * 4
