"""Names, defaults and refusals of schedules."""

from __future__ import annotations

from itertools import product

import pytest

from simulator.recording import check_program
from simulator.schedules import SCHEDULES, parse_schedule
from simulator.schedules.apb import Apb
from tests.simulator.workloads import small_program, small_setup
from traces.errors import InputError


@pytest.mark.parametrize("name", SCHEDULES)
def test_names_its_source(name: str) -> None:
    assert "arXiv" in SCHEDULES[name].source


@pytest.mark.parametrize(
    ("spec", "ranks_per_node", "mask", "resolved"),
    [
        ("ring", 4, "causal", "ring:partition=zigzag,grad=fp32"),
        ("ring", 4, "full", "ring:partition=contiguous,grad=fp32"),
        ("ring:partition=striped,grad=bf16", 4, "causal", "ring:partition=striped,grad=bf16"),
        ("burst", 4, "causal", "burst:ring=flat,partition=zigzag,grad=bf16"),
        ("burst", 2, "causal", "burst:ring=double,partition=zigzag,grad=bf16"),
        ("ulysses", 4, "causal", "ulysses"),
        ("apb:anchor=8,passing=4", 4, "causal", "apb:anchor=8,passing=4"),
        ("apb", 4, "causal", "apb:anchor=30,passing=30"),
    ],
)
def test_defaults_are_filled_in(spec: str, ranks_per_node: int, mask: str, resolved: str) -> None:
    setup = small_setup(4, ranks_per_node=ranks_per_node, mask=mask)
    schedule = parse_schedule(spec).resolve(setup)
    assert str(schedule) == resolved
    assert parse_schedule(resolved) == schedule


@pytest.mark.parametrize(
    ("seq_len", "lengths"),
    [("32k", (1024, 512)), ("64k", (2048, 1024)), ("128k", (4096, 2048)), ("256k", (8192, 4096)), ("1M", (8192, 8192)),
     ("100k", (4096, 2048))],
)  # fmt: skip
def test_apb_takes_the_papers_row_of_the_nearest_length(seq_len: str, lengths: tuple[int, int]) -> None:
    from cost_models.units import parse_count

    apb = Apb().resolve(small_setup(8, seq_len=parse_count(seq_len)))
    assert (apb.anchor, apb.passing) == lengths


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rinf", "unknown schedule: got 'rinf', expected one of flash, ring, ulysses"),
        ("ring:grid=2", "ring has no option 'grid': expected one of partition, grad"),
        ("ulysses:grid=2", "ulysses has no option 'grid'"),
        ("apb:anchor=x", "apb: anchor"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_schedule(spec)
    assert refused.value.message.startswith(message)


@pytest.mark.parametrize(
    ("spec", "options", "pass_", "message"),
    [
        ("ring", {"seq_len": 100}, "both", "seq_len 100 is not divisible by 2 x 4 zigzag chunks; use a multiple of 8"),
        ("ring:partition=contiguous", {"seq_len": 90}, "both", "seq_len 90 is not divisible by 4 contiguous chunks"),
        ("ring:partition=spiral", {}, "both", "ring: unknown partition: got 'spiral', expected one of contiguous"),
        ("ring:grad=fp8", {}, "both", "ring: unknown grad: got 'fp8', expected one of fp32, bf16"),
        ("burst:ring=triple", {}, "both", "burst: unknown ring: got 'triple', expected one of flat, double"),
        ("ulysses", {"heads": 6, "kv_heads": 6}, "both", "6 heads are not divisible by 4 ranks"),
        (
            "ulysses",
            {"heads": 12, "kv_heads": 3},
            "both",
            "3 KV heads neither divide 4 ranks nor are divisible by them",
        ),
        ("apb", {"mask": "full"}, "forward", "apb is defined for the causal mask, not full"),
        ("apb", {}, "both", "apb is for inference only: it has no backward pass: got pass both; ask for the forward"),
        ("apb:anchor=61", {}, "forward", "apb: anchor does not fit a host's block: got 61, expected 1 to 60 tokens"),
        (
            "apb:anchor=8,passing=53",
            {},
            "forward",
            "apb: passing does not fit a host's block without the anchor: got 53",
        ),
        ("ring", {}, "sideways", "unknown pass: got sideways, expected one of forward, backward, both"),
    ],
)
def test_refusals_say_why(spec: str, options: dict[str, object], pass_: str, message: str) -> None:
    setup = small_setup(4, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError) as refused:
        check_program(parse_schedule(spec), setup, pass_)
    assert refused.value.message.startswith(message)


@pytest.mark.parametrize("spec", ["ring", "burst", "burst:ring=double", "ulysses"])
def test_backward_alone_is_the_second_half_of_both(spec: str) -> None:
    setup = small_setup(4, ranks_per_node=2)
    alone = small_program(spec, setup, "backward").operations
    both = [operation for operation in small_program(spec, setup).operations if operation.phase == "backward"]
    assert [operation.kind for operation in alone] == [operation.kind for operation in both]
    assert alone[0].phase == "backward"


@pytest.mark.parametrize(
    ("spec", "pass_"),
    [*product(("ring", "burst", "ulysses"), ("both", "forward", "backward")), ("apb:anchor=8,passing=4", "forward")],
)
def test_every_buffer_but_outputs_and_inputs_is_released_once(spec: str, pass_: str) -> None:
    program = small_program(spec, small_setup(4), pass_)
    live: set[int] = set()
    touched: set[int] = set()
    for verb, subject in program.events:
        if verb == "allocate":
            assert subject.id not in live
            live.add(subject.id)
        elif verb == "release":
            live.remove(subject.id)
        else:
            touched = {buffer.id for buffer in (*subject.reads, *subject.writes)}
            assert touched <= live, f"{subject.kind} touches a buffer that is not in memory"
    assert {buffer.id for buffer in program.outputs.values()} <= live
