"""Operations priced where ranks are processes: by what terms, and which ranks are slow together."""

from __future__ import annotations

import numpy as np
import pytest

from cost_models.masks import parse_mask
from cost_models.processes import ProcessProfile
from cost_models.workload import AttentionWorkload
from simulator.process_costs import ProcessCosts, features_by_rank, term_of
from simulator.program.operations import Collective, Exchange, Operation
from simulator.program.program import Program
from simulator.program.setup import Setup
from simulator.recording import build_program
from simulator.schedules import parse_schedule


def program(schedule: str, ranks: int = 4) -> Program:
    setup = Setup(AttentionWorkload(1, 256, 8, 4, 64, 64, "fp32", parse_mask("causal", 256)), ranks, ranks)
    return build_program(parse_schedule(schedule).resolve(setup), setup, "both")


@pytest.mark.parametrize(
    ("schedule", "terms"),
    [
        ("burst", {"exchange", "elementwise:accumulate", "elementwise:accumulate:mixed", "elementwise:cast:mixed"}),
        ("usp:ulysses=2", {"all_to_all:2", "exchange"}),
        ("ulysses", {"all_to_all:4", "elementwise:pack"}),
        ("magi", {"all_to_all_v:4", "elementwise:accumulate:by_token"}),
        ("tp", {"all_reduce:4", "elementwise:cast:copy", "elementwise:place:copy"}),
    ],
)
def test_terms_say_what_makes_an_operation_slower(schedule: str, terms: set[str]) -> None:
    found = {term_of(operation, 4) for operation in program(schedule).operations}
    assert terms <= found
    assert {"attention_forward", "attention_backward"} <= found


def test_burst_backward_makes_outputs_from_delta() -> None:
    given = {}
    for schedule in ("burst", "ring"):
        backward = [each for each in program(schedule).operations if each.kind == "attention_backward"]
        given[schedule] = [features[-1] for _, features in features_by_rank(backward[0], 4)]
    assert all(bytes_ > 0 for bytes_ in given["burst"])
    assert given["ring"] == [0.0] * 4


def test_an_uneven_exchange_counts_what_arrives() -> None:
    for operation in program("magi").operations:
        if operation.kind == "all_to_all_v":
            assert isinstance(operation.work, Collective)
            sent, received = np.array([features[1:] for _, features in features_by_rank(operation, 4)]).T
            assert sent.sum() == received.sum() > 0
            return
    pytest.fail("no uneven exchange")


def test_ranks_of_a_collective_are_slow_together_and_others_apart() -> None:
    operations = program("usp:ulysses=2").operations
    terms = dict.fromkeys(("exchange", "all_to_all:2", "attention_forward", "issue"), (0.001,) + (0.0,) * 10)
    jitter = {4: {term: tuple(np.linspace(1, 9, 41)) for term in terms if term != "issue"}}
    profile = ProcessProfile("host", {4: terms}, {}, "test", jitter, {4: 1.0})
    costs = ProcessCosts(_Constant(profile), 4, seed=0)
    collective = np.asarray(costs.device_ns(_first(operations, Collective)))
    first, second = _first(operations, Collective).work.groups[[0, -1]]  # type: ignore[union-attr]
    assert first != second and len(set(collective.tolist())) == 2
    assert len(set(np.asarray(costs.device_ns(_first(operations, Exchange))).tolist())) == 4


class _Constant(ProcessProfile):
    """A millisecond for everything, slower as drawn."""

    def __init__(self, of: ProcessProfile) -> None:
        super().__init__(of.name, of.tables, of.relative_error, of.source, of.jitter, of.independence)

    def seconds(self, processes: int, term: str, features: object) -> float:
        return 1e-3


def _first(operations: object, work: type) -> Operation:
    return next(each for each in operations if isinstance(each.work, work))  # type: ignore[attr-defined]
