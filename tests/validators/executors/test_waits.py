"""What an operation waits for, against the rules written out as they stand in `simulator.program.tape`."""

from __future__ import annotations

import pytest

from simulator.program.operations import COMPUTE, Operation
from tests.validators.executors.cases import Case
from validators.executors.waits import Waits

CASES = [
    Case("ring", 4),
    Case("ring:partition=contiguous", 4),
    Case("burst", 3),
    Case("burst:ring=double", 8, ranks_per_node=4),
    Case("ulysses", 4, batch=2),
    Case("apb:anchor=4,passing=3", 4),
]


def rules(operation: Operation, before: list[Operation]) -> dict[str, int]:
    """Rules 3 to 5: the last operation to wait for on each other lane."""
    touched = {buffer.id for buffer in (*operation.reads, *operation.writes)}
    written = {buffer.id for buffer in operation.writes}
    waits: dict[str, int] = {}
    for buffer in touched:
        writers = [each for each in before if each.lane != COMPUTE and buffer in {b.id for b in each.writes}]
        if writers and writers[-1].lane != operation.lane:
            waits[writers[-1].lane] = max(waits.get(writers[-1].lane, -1), writers[-1].id)
    for each in before:
        if each.lane not in (COMPUTE, operation.lane) and written & {b.id for b in each.reads}:
            waits[each.lane] = max(waits.get(each.lane, -1), each.id)
    computed = [each.id for each in before if each.lane == COMPUTE]
    if operation.lane != COMPUTE and computed:
        waits[COMPUTE] = computed[-1]
    return waits


@pytest.mark.parametrize("case", CASES, ids=str)
def test_waits_are_the_rules(case: Case) -> None:
    program, waited = case.build(), 0
    for rank in range(case.ranks):
        mine = [each for each in program.operations if each.ranks is None or each.ranks[rank]]
        waits = Waits()
        for position, operation in enumerate(mine):
            found = dict(waits.issue(operation))
            assert found == rules(operation, mine[:position])
            waited += len(found)
    assert waited


def test_a_released_buffer_names_the_lanes_that_used_it() -> None:
    waits = Waits()
    for operation in Case("ring", 2).build().operations:
        waits.issue(operation)
        if operation.kind == "exchange":
            assert waits.release(operation.reads[0]) == [(operation.lane, operation.id)]
            assert waits.release(operation.writes[0]) == [(operation.lane, operation.id)]
            assert waits.release(operation.writes[0]) == []
            return
