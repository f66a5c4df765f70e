"""Every exact schedule, under every mask, at every number of ranks, computes dense attention: a covering sample.

Each schedule meets each mask and each number of ranks at least once where that is legal, with MHA, GQA and several
batches in turn, so that the whole takes seconds.
"""

from __future__ import annotations

import pytest

from simulator.recording import check_program
from simulator.schedules import SCHEDULES, parse_schedule
from tests.validators.executors.cases import Case, dense_results, scaled_inputs, worst_error
from traces.errors import InputError
from validators.executors.loopback import execute

TOLERANCE = 1e-12
RANKS = (1, 2, 3, 4, 8)
KV_HEADS = (8, 2, 4)
DOCUMENTS = "lengths=10+17+21"
MASKS = (
    "full", "causal", "sliding-window:window=7", "sliding-window:window=20,causal=true", f"document:{DOCUMENTS}",
    f"document:{DOCUMENTS},causal=true", f"share-question:{DOCUMENTS}", f"causal-blockwise:{DOCUMENTS}",
    "global-sliding:window=4,global=3", "prefix-causal:prefix=11", f"prefix-document:{DOCUMENTS},prefix=4",
    f"block-causal-document:{DOCUMENTS},block=4", "block-sparse:block=8,keep=0.4",
    "block-sparse:block=8,keep=0.4,variable=true,seed=1",
)  # fmt: skip
SPECS = (
    "flash",
    "ring:partition=document-zigzag",
    "ring:partition=area-balanced,messages=separate",
    "ring:partition=contiguous,buffers=all,merge=kernel",
    "ring:circulate=q",
    "burst:partition=document-zigzag",
    "burst:partition=area-balanced,ring=double",
    "ulysses",
    "allgather",
    "allgather:head-group=1,partition=document-zigzag",
    "allgather:head-group=2,partition=area-balanced,grad=fp32",
    "usp",
    "usp:ulysses=2,placement=context-first,partition=document-zigzag",
    "usp:ulysses=2,partition=striped",
    "usp:ulysses=2,circulate=q",
    "loongtrain:head=2,grad=bf16",
    "loongtrain:head=1,window=2,placement=context-first,partition=area-balanced",
    "loongtrain:head=2,window=2,placement=interleaved,messages=fused",
    "lightseq",
    "magi",
    "magi:chunk=2,stages=3,grad=fp32",
    "magi:partition=document-zigzag,stages=1",
    "hybrid-cp",
    "hybrid-cp:tokens=12",
    "tp",
    "tp:version=3",
    "rsa",
)

FEWEST_RANKS = {
    "flash": 1, "ulysses": 4, "tp": 4, "tp:version=3": 4, "hybrid-cp": 4, "hybrid-cp:tokens=12": 2,
    "usp:ulysses=2,placement=context-first,partition=document-zigzag": 3, "usp:ulysses=2,partition=striped": 3,
    "usp:ulysses=2,circulate=q": 3,
    "loongtrain:head=2,grad=bf16": 3, "loongtrain:head=1,window=2,placement=context-first,partition=area-balanced": 3,
    "loongtrain:head=2,window=2,placement=interleaved,messages=fused": 2,
}  # fmt: skip
"""Of those that do not take all numbers of ranks: heads, degrees and groups must divide."""


def legal(case: Case) -> bool:
    """Whether the schedule itself takes the case, and its kernels the strides."""
    try:
        check_program(parse_schedule(case.spec), case.setup, "both")
        case.build()
    except InputError:
        return False
    return True


def sample(number: int, spec: str) -> list[Case]:
    """Each mask at the first number of ranks in turn that is legal, and the causal mask at every number of ranks."""
    cases: list[Case] = []
    for i, mask in enumerate(MASKS):
        options = [(RANKS[(number + i + turn) % len(RANKS)], turn) for turn in range(len(RANKS))]
        some = [Case(spec, ranks, mask, kv_heads=KV_HEADS[(i + turn) % 3], batch=1 + (number + i) % 2)
                for ranks, turn in options]  # fmt: skip
        cases += [case for case in some if legal(case)][:1]
    return cases + [case for ranks in RANKS if legal(case := Case(spec, ranks, kv_heads=8)) and case not in cases]


CASES = {spec: sample(number, spec) for number, spec in enumerate(SPECS)}


@pytest.mark.parametrize("case", [case for cases in CASES.values() for case in cases], ids=str)
def test_equals_dense_attention(case: Case) -> None:
    program, inputs = case.build(), scaled_inputs(case.setup)
    done = execute(program, inputs)
    assert set(done.results) == {"o", "lse", "dq", "dk", "dv"}
    assert worst_error(done.results, dense_results(case.setup, inputs)) < TOLERANCE


RELAYED = [
    Case("magi:chunk=2,transport=native", 4, "causal", ranks_per_node=2),
    Case("magi:chunk=2,stages=3,grad=fp32,transport=native", 6, "full", kv_heads=4, batch=2, ranks_per_node=3),
    Case("magi:chunk=2,stages=1,transport=native", 6, MASKS[1], kv_heads=2, ranks_per_node=2),
    Case(
        "magi:partition=document-zigzag,transport=native", 4, "document:lengths=10+17+21,causal=true", ranks_per_node=2
    ),
]


@pytest.mark.parametrize("case", RELAYED, ids=str)
def test_rows_that_cross_to_a_node_once_equal_dense_attention(case: Case) -> None:
    inputs = scaled_inputs(case.setup)
    done = execute(case.build(), inputs)
    assert worst_error(done.results, dense_results(case.setup, inputs)) < TOLERANCE


def test_the_sample_covers_what_it_should() -> None:
    """Refusals do not hollow it out."""
    assert {spec.split(":")[0] for spec in SPECS} == {name for name, kind in SCHEDULES.items() if kind.exact}
    for spec, cases in CASES.items():
        ranks, masks = ({getattr(case, name) for case in cases} for name in ("ranks", "mask"))
        assert len(ranks) >= FEWEST_RANKS.get(spec, 5), spec
        assert len(masks) == (5 if spec == "lightseq" else len(MASKS)), spec
