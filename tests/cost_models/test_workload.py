"""Invariants of a workload."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cost_models.masks import parse_mask
from cost_models.workload import AttentionWorkload
from traces.errors import InputError

WORKLOAD = AttentionWorkload(2, 64, 8, 2, 16, 16, "bf16", parse_mask("causal"))


def test_flop_is_four_head_dim_heads_batch_pairs() -> None:
    assert WORKLOAD.flop_forward == 4 * 16 * 8 * 2 * (64 * 65 // 2)


def test_flop_of_unequal_head_dims() -> None:
    assert replace(WORKLOAD, head_dim=24).flop_forward == WORKLOAD.flop_forward * (24 + 16) // 32


@pytest.mark.parametrize("field", ["batch", "seq_len", "heads", "kv_heads", "head_dim", "v_head_dim"])
@pytest.mark.parametrize("value", [0, -1, 1.0, True, "8", None])
def test_numbers_are_positive_and_whole(field: str, value: object) -> None:
    changes: dict[str, Any] = {field: value}
    with pytest.raises(InputError, match=field):
        replace(WORKLOAD, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_heads": 3}, "do not divide"),
        ({"kv_heads": 16}, "do not divide"),
        ({"dtype": "int32"}, "dtype"),
        ({"batch": 2**40}, "attention is too large"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"mask": parse_mask("document:lengths=32+16")}, "lengths do not sum"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(WORKLOAD, **changes)
