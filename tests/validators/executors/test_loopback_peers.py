"""Peers' Programs compute dense attention; their hops and bytes are those counted when their code ran."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.engines.rows import sent_bytes
from simulator.program.operations import Exchange
from simulator.schedules import parse_schedule
from tests.validators.executors.cases import Case, dense_results, scaled_inputs, worst_error
from traces.errors import InputError
from validators.executors.loopback import execute

CASES = [
    Case(spec, ranks, mask, kv_heads=kv_heads)
    for ranks, kv_heads in ((1, 8), (2, 4), (4, 8))
    for spec, mask in (
        ("torch-cp", "causal"), ("torch-cp:rotate=alltoall", "causal"), ("torch-cp:balance=false", "causal"),
        ("torch-cp:rotate=alltoall,balance=false", "full"), ("ring-flash-attn", "causal"), ("ring-flash-attn", "full"),
        ("ring-flash-attn:variant=zigzag", "causal"), ("ring-flash-attn:variant=stripe", "causal"),
        ("yunchang", "causal"), ("yunchang:ulysses=1", "full"),
    )
] + [Case("yunchang:ulysses=2", 4, batch=2), Case("torch-cp:rotate=alltoall", 3, batch=2)]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_dense_attention(case: Case) -> None:
    program, inputs = case.build(), scaled_inputs(case.setup)
    assert worst_error(execute(program, inputs).results, dense_results(case.setup, inputs)) < 1e-12


@pytest.mark.parametrize(
    ("spec", "ranks", "forward", "backward"),
    [("torch-cp", 2, 1, 1 + 4), ("torch-cp", 4, 3, 3 + 8), ("torch-cp:rotate=alltoall", 2, 1, 5),
     ("torch-cp:rotate=alltoall", 4, 3, 11), ("ring-flash-attn:variant=zigzag", 4, 3, 3 + 8)],
)  # fmt: skip
def test_volume_is_what_was_counted(spec: str, ranks: int, forward: int, backward: int) -> None:
    """In units of a rank's K and V in bf16, as a dispatch counter saw PyTorch's code do (facts/ecosystem.md 1.1)."""
    case = Case(spec, ranks)
    unit = case.seq_len // ranks * case.kv_heads * (8 + 6) * 2
    sent = {"forward": 0.0, "backward": 0.0}
    for operation in case.build().operations:
        sent[operation.phase] += float(np.max(sent_bytes(operation))) / unit
    assert sent == {"forward": forward, "backward": backward}


def test_gradients_travel_in_fp32_for_as_many_hops_as_ranks() -> None:
    for spec in ("torch-cp", "ring-flash-attn", "yunchang:ulysses=1"):
        hops = [
            op for op in Case(spec, 4).build().operations if isinstance(op.work, Exchange) and op.phase == "backward"
        ]
        assert sum(op.reads[0].dtype == "fp32" for op in hops) == 4


def test_masks_that_their_code_does_not_take_are_refused() -> None:
    for spec, mask in (("torch-cp", "full"), ("ring-flash-attn:variant=zigzag", "full"),
                       ("yunchang", "sliding-window:window=7")):  # fmt: skip
        with pytest.raises(InputError):
            parse_schedule(spec).check(Case(spec, 4, mask).setup)


def test_compare_lists_peers_when_asked() -> None:
    import attnsim

    asked = {"heads": 8, "kv_heads": 8, "head_dim": 64, "seq_len": 4096, "gpus": 4, "topology": "dgx-h100"}
    names = [{each.schedule.split(":")[0] for each in attnsim.compare(**asked, peers=peers)} for peers in (False, True)]  # type: ignore[arg-type]
    assert names[1] - names[0] == {"torch-cp", "ring-flash-attn", "yunchang"}
