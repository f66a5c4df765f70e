"""Ranks that are alike: no fewer classes than their times need, and no more than prices and partners give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engines.alike import Alike, find_alike
from simulator.engines.des import DiscreteEvents
from simulator.engines.rows import Rows
from simulator.program.operations import Buffer, Collective, Column, Elementwise, Exchange, Operation
from simulator.program.program import Program
from simulator.program.rings import Matching
from tests.simulator.engines.random_programs import random_program
from tests.simulator.workloads import small_setup


class FewPrices:
    """Random prices of few sizes, alike on many ranks; some communication takes SMs, and kernels memory."""

    memory_bytes_per_s = 1e9

    def __init__(self, program: Program, seed: int, communication_first: bool) -> None:
        self._rng = np.random.default_rng(seed)
        self.communication_first = communication_first
        n = program.setup.n_ranks
        self._price = {operation.id: self._column(n, 100) + 1 for operation in program.operations}
        self._host = {operation.id: self._column(n, 30) for operation in program.operations}

    def leaves(self, operation: Operation) -> float:
        """Beside every third kernel communication is slower."""
        return 0.6 if operation.id % 3 == 0 else 1.0

    def _column(self, n: int, most: int) -> Column:
        if self._rng.random() < 0.7:
            return int(self._rng.integers(0, most))
        return np.where(np.arange(n) % 2 == int(self._rng.integers(0, 2)), *self._rng.integers(0, most, 2))

    def host_ns(self, operation: Operation) -> Column:
        return self._host[operation.id]

    def device_ns(self, operation: Operation) -> Column:
        return self._price[operation.id]

    def sms(self, operation: Operation) -> Column:
        return operation.id % 3 if operation.category == "communication" else 0

    def traffic_bytes(self, operation: Operation) -> Column:
        return 60

    def slower_ns(self, operation: Operation, taken: int) -> Column:
        return self._price[operation.id] * (2 + taken) // 2

    def handing(self, operation: Operation, rank: int) -> tuple[tuple[float, float], ...]:
        return [(), ((0.0, 1.0),), ((0.0, 0.7),), ((0.0, 0.2), (0.25, 0.6))][operation.id % 4]


@given(st.integers(0, 2**32), st.integers(0, 2**32), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_one_of_each_class_has_the_times_of_all(
    program_seed: int, cost_seed: int, communication_first: bool, host_waits: bool
) -> None:
    program = random_program(program_seed, host_waits=host_waits)
    costs = FewPrices(program, cost_seed, communication_first)
    every, once = Rows(program.setup.n_ranks), Rows(program.setup.n_ranks)
    DiscreteEvents(program, costs, every, None, costs).run()
    DiscreteEvents(program, costs, once, None, costs, alike=find_alike(program, costs)).run()
    same = every.timeline().same_as(once.timeline())
    assert same, str(same)


class Alone:
    """Every operation takes 10 ns; the first differs by rank where asked."""

    memory_bytes_per_s, communication_first = 1e9, True

    def __init__(self, first: Column = 10) -> None:
        self._first = first

    def host_ns(self, operation: Operation) -> Column:
        return 0

    def device_ns(self, operation: Operation) -> Column:
        return self._first if operation.id == 0 else 10

    def sms(self, operation: Operation) -> Column:
        return 0

    traffic_bytes = sms

    def handing(self, operation: Operation, rank: int) -> tuple[tuple[float, float], ...]:
        return ()

    def slower_ns(self, operation: Operation, taken: int) -> Column:
        return self.device_ns(operation)


def program_of(*works: Exchange | Collective | Elementwise, ranks: int = 8) -> Program:
    program = Program(small_setup(ranks))
    for number, work in enumerate(works):
        kind = "exchange" if isinstance(work, Exchange) else getattr(work, "collective", "copy")
        lane = "compute" if isinstance(work, Elementwise) else "comm:a"
        buffer = Buffer(number, "b", 1, 1, 1, 1, "fp32", 4)
        program.operation(Operation(number, kind, lane, "forward", 0, (buffer,), (), work))
    return program


def classes(program: Program, costs: Alone) -> list[int]:
    found = find_alike(program, costs)
    assert found is not None
    return found.of.tolist()


COPY, PAIRS = Elementwise("copy", 1, 1), np.arange(8) // 2


@pytest.mark.parametrize(
    ("program", "first", "expected"),
    [
        (program_of(COPY), 10, [0] * 8),
        (program_of(COPY), np.array([10] * 7 + [9]), [0] * 7 + [1]),
        (program_of(COPY, Exchange(small_setup(8).flat_ring(), 4)), 10, [0] * 8),
        # in a ring whoever is so far from the odd one is a class
        (program_of(COPY, Exchange(small_setup(8).flat_ring(), 4)), np.array([10] * 7 + [9]), list(range(8))),
        (program_of(COPY, Collective("all_gather", 4, 4, PAIRS)), np.array([10] * 7 + [9]), [0] * 6 + [1, 2]),
        (program_of(COPY, Collective("all_gather", 4, 4)), np.array([10] * 7 + [9]), [0] * 7 + [1]),
        (program_of(COPY, Exchange(Matching("m", np.array([1, 0, 3, 2, 4, 5, 6, 7])), 4)), np.array([9] + [10] * 7),
         [0, 1, 2, 2, 2, 2, 2, 2]),
    ],
)  # fmt: skip
def test_classes(program: Program, first: Column, expected: list[int]) -> None:
    assert classes(program, Alone(first)) == expected


def test_groups_of_classes_are_named_by_their_lowest() -> None:
    """Representatives of two classes may lie in different groups; what counts is whom they join."""
    program = program_of(COPY, Collective("all_gather", 4, 4, np.array([0, 1, 0, 1, 2, 3, 2, 3])))
    alike = find_alike(program, Alone(np.array([5, 5, 7, 7, 5, 5, 7, 7])))
    assert alike is not None and alike.of.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert alike.groups(program.operations[1]) == [0, 0]


def test_too_many_classes_are_given_up() -> None:
    program = program_of(COPY)
    assert find_alike(program, Alone(np.arange(8)), most=7) is None
    assert find_alike(program, Alone(np.arange(8)), most=8) is not None


def test_each_is_itself() -> None:
    assert Alike.each(3).spread([4, 5, 6]).tolist() == [4, 5, 6] and Alike.each(2).pick(7) == [7, 7]
