"""What is listed to compare, what is refused, and why."""

from __future__ import annotations

import pytest

from simulator.choices import Choice, list_choices, reason_against
from simulator.schedules import SCHEDULES, parse_schedule
from tests.simulator.workloads import small_program, small_setup


def reasons(choices: list[Choice]) -> dict[str, str | None]:
    return {str(choice.schedule): choice.reason for choice in choices}


@pytest.mark.parametrize("every", [False, True])
def test_every_mechanism_is_listed(every: bool) -> None:
    listed = {choice.schedule.name for choice in list_choices(small_setup(4), every=every)}
    assert listed == set(SCHEDULES)


def test_what_is_legal_can_be_recorded_and_what_is_not_cannot() -> None:
    """All combinations: 96 tokens on 4 ranks, 4 heads, 2 KV heads."""
    setup = small_setup(4, seq_len=96, heads=4, kv_heads=2, ranks_per_node=2)
    choices = list_choices(setup, every=True)
    assert len(choices) > 100
    assert len(reasons(choices)) == len(choices), "none is listed twice"
    for choice in choices:
        if choice.legal:
            assert small_program(str(choice.schedule), setup).operations
        else:
            assert reason_against(choice.schedule, setup) == choice.reason
    assert sum(choice.legal for choice in choices) > 60


def test_why_not() -> None:
    found = reasons(list_choices(small_setup(8, heads=12, kv_heads=4, seq_len=248, ranks_per_node=4), every=True))
    assert found["ulysses"] == "12 heads are not divisible by 8 ranks"
    assert found["flash"] == "flash runs on one GPU: got 8 ranks"
    assert found["ring:partition=zigzag,grad=fp32"] == (
        "seq_len 248 is not divisible by 2 x 8 zigzag chunks; use a multiple of 16"
    )
    assert found["ring:partition=contiguous,grad=fp32"] is None
    assert found["allgather:partition=striped,grad=bf16"] is not None
    assert found["usp:ulysses=8,ring=1,placement=head-first,partition=contiguous,grad=fp32"] == (
        "12 heads are not divisible by 8 ranks"
    )
    assert found["tp:version=1"] == "12 heads are not divisible by 8 ranks"


def test_sensible_variants() -> None:
    one_node = reasons(list_choices(small_setup(8, heads=8, kv_heads=8)))
    assert "usp:ulysses=4,ring=2,placement=head-first,partition=zigzag,grad=fp32" in one_node
    assert not any("context-first" in name or "document" in name for name in one_node)
    nodes = reasons(list_choices(small_setup(8, heads=8, kv_heads=8, ranks_per_node=4)))
    assert "usp:ulysses=4,ring=2,placement=context-first,partition=zigzag,grad=fp32" in nodes
    documents = list_choices(small_setup(4, mask="document:lengths=100+140,causal=true"))
    assert "ring:partition=document-zigzag,grad=fp32" in reasons(documents)
    assert "allgather:head-group=1,partition=zigzag,grad=bf16" in one_node


def test_an_explicit_backward_refuses_what_is_for_inference() -> None:
    setup = small_setup(4)
    for name in ("apb", "star", "minference"):
        assert "has no backward pass" in str(reason_against(parse_schedule(name), setup, "both"))
        assert reason_against(parse_schedule(name), setup) is None
