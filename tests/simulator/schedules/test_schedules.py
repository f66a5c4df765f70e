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
        (
            "ring:messages=separate,buffers=all",
            4,
            "full",
            "ring:partition=contiguous,grad=fp32,messages=separate,buffers=all",
        ),
        ("flash", 4, "causal", "flash"),
        ("allgather", 4, "causal", "allgather:partition=zigzag,grad=bf16"),
        ("allgather:head-group=2", 4, "full", "allgather:head-group=2,partition=contiguous,grad=bf16"),
        ("usp", 4, "causal", "usp:ulysses=4,ring=1,placement=head-first,partition=zigzag,grad=fp32"),
        ("usp", 2, "causal", "usp:ulysses=2,ring=2,placement=head-first,partition=zigzag,grad=fp32"),
        ("usp:ring=4", 2, "causal", "usp:ulysses=1,ring=4,placement=head-first,partition=zigzag,grad=fp32"),
        (
            "loongtrain:context=4",
            2,
            "causal",
            "loongtrain:head=1,context=4,window=2,placement=head-first,partition=zigzag,grad=mixed",
        ),
        ("lightseq", 4, "causal", "lightseq"),
        ("magi", 4, "causal", "magi:chunk=6,stages=2"),
        ("hybrid-cp", 4, "causal", "hybrid-cp:tokens=60"),
        ("tp", 4, "causal", "tp:version=1"),
        ("rsa", 4, "causal", "rsa"),
        ("star", 4, "causal", "star:anchor=60"),
        ("minference", 4, "causal", "minference:vertical=240,slash=240"),
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
        ("flash", {}, "both", "flash runs on one GPU: got 4 ranks"),
        ("allgather:partition=striped", {}, "both", "allgather: unknown partition: got 'striped'"),
        ("allgather:head-group=3", {}, "both", "allgather: head-group 3 does not divide 4 KV heads"),
        ("allgather:head-group=0", {}, "both", "allgather: head-group is too small: got 0"),
        ("usp:ulysses=2,ring=4", {}, "both", "ulysses 2 x ring 4 is not 4 ranks; give one of the two"),
        ("usp:ulysses=3", {}, "both", "ulysses 3 x ring 1 is not 4 ranks"),
        ("usp:ulysses=4", {"heads": 6, "kv_heads": 6}, "both", "6 heads are not divisible by 4 ranks"),
        ("usp:ulysses=2", {"seq_len": 90}, "both", "seq_len 90 is not divisible by 2 x 2 zigzag chunks"),
        ("usp:placement=upside-down", {}, "both", "usp: unknown placement: got 'upside-down'"),
        ("loongtrain:context=4,window=3", {}, "both", "loongtrain: window 3 does not divide context 4"),
        ("lightseq", {"mask": "full"}, "both", "lightseq is defined for causal masks: got full"),
        ("magi:chunk=7", {}, "both", "seq_len 240 is not divisible by 4 x 7, area-balanced chunks"),
        ("magi:stages=0", {}, "both", "magi: stages is too small: got 0, expected at least 1"),
        (
            "hybrid-cp:tokens=50",
            {},
            "both",
            "hybrid-cp: a document of 240 tokens does not fit 4 ranks of 50; use tokens=60",
        ),
        ("tp", {"kv_heads": 2}, "both", "2 KV heads are not divisible by 4 ranks"),
        ("tp:version=2", {}, "both", "tp: unknown version: got 2, expected 1 or 3"),
        ("star", {}, "both", "star is for inference only: it has no backward pass"),
        ("star", {"mask": "full"}, "forward", "star is defined for the causal mask, not full"),
        ("star:anchor=61", {}, "forward", "star: anchor does not fit a block: got 61, expected 1 to 60 tokens"),
        (
            "minference:slash=241",
            {},
            "forward",
            "minference: slash is not a number of keys: got 241, expected 1 to 240",
        ),
        ("minference", {"mask": "full"}, "forward", "minference is defined for the causal mask, not full"),
        ("ring", {}, "sideways", "unknown pass: got sideways, expected one of forward, backward, both"),
    ],
)
def test_refusals_say_why(spec: str, options: dict[str, object], pass_: str, message: str) -> None:
    setup = small_setup(4, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError) as refused:
        check_program(parse_schedule(spec), setup, pass_)
    assert refused.value.message.startswith(message)


EXACT = ["ring", "burst", "burst:ring=double", "ulysses", "allgather:head-group=1", "usp", "loongtrain", "lightseq",
         "magi", "hybrid-cp", "tp:version=3", "rsa"]  # fmt: skip


@pytest.mark.parametrize("spec", EXACT)
def test_backward_alone_is_the_second_half_of_both(spec: str) -> None:
    setup = small_setup(4, ranks_per_node=2)
    alone = small_program(spec, setup, "backward").operations
    both = [operation for operation in small_program(spec, setup).operations if operation.phase == "backward"]
    assert [operation.kind for operation in alone] == [operation.kind for operation in both]
    assert alone[0].phase == "backward"


@pytest.mark.parametrize(
    ("spec", "pass_"),
    [
        *product(EXACT, ("both", "forward", "backward")),
        ("apb:anchor=8,passing=4", "forward"),
        ("star", "forward"),
        ("minference:vertical=9,slash=9", "forward"),
    ],
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
