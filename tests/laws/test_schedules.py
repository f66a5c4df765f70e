"""Laws that hold for every schedule, whatever it is asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.masks import TokenRange
from simulator.engines.maxplus import MaxPlus
from simulator.engines.traffic import Traffic
from simulator.program.operations import COMPUTE, Column, Exchange, Operation
from simulator.program.program import Program
from tests.simulator.engines.random_programs import RandomCosts
from tests.simulator.workloads import small_program, small_setup

EXACT = ("ring:partition=contiguous", "ring:partition=zigzag", "ring:partition=striped", "burst", "ulysses",
         "burst:partition=striped,ring=double")  # fmt: skip
MASKS = ("full", "causal", "sliding-window:window=37,causal=true", "sliding-window:window=20",
         "document:lengths=100+40+60+40", "document:lengths=100+40+60+40,causal=true")  # fmt: skip
PLACES = ((1, 1), (2, 2), (4, 4), (4, 2), (8, 4))


@dataclass
class Changed:
    """Costs of another model, changed by a function of the operation and its time."""

    costs: RandomCosts
    order: np.ndarray | None = None
    faster: float = 0.0

    def host_ns(self, operation: Operation) -> Column:
        return self._changed(self.costs.host_ns(operation))

    def device_ns(self, operation: Operation) -> Column:
        return self._changed(self.costs.device_ns(operation))

    def _changed(self, column: Column) -> Column:
        if self.order is not None and not isinstance(column, int):
            column = column[self.order]
        if isinstance(column, int):
            return column - int(column * self.faster)
        return column - np.floor(column * self.faster).astype(np.int64)


def finish_ns(program: Program, costs: object) -> np.ndarray:
    engine = MaxPlus(program.setup.n_ranks, costs)  # type: ignore[arg-type]
    program.replay(engine)
    return engine.finish_ns


@given(st.sampled_from(EXACT), st.sampled_from(MASKS), st.sampled_from(PLACES), st.sampled_from([8, 4, 2]))
@settings(max_examples=60)
def test_pairs_of_all_operations_are_the_masks(spec: str, mask: str, place: tuple[int, int], kv_heads: int) -> None:
    ranks, per_node = place
    setup = small_setup(ranks, ranks_per_node=per_node, mask=mask, kv_heads=kv_heads)
    traffic = Traffic(setup)
    small_program(spec, setup).replay(traffic)
    seq_len = setup.workload.seq_len
    tokens = [TokenRange(0, seq_len)]
    whole = setup.workload.mask.count_pairs(tokens, tokens, seq_len)
    assert traffic.pairs == whole
    forward = 4 * setup.workload.head_dim * setup.workload.heads * whole
    assert traffic.flop == forward + forward * 5 // 2


@pytest.mark.parametrize("spec", [*EXACT, "apb:anchor=8,passing=4"])
def test_one_rank_communicates_nothing(spec: str) -> None:
    program = small_program(spec, small_setup(1))
    assert {operation.category for operation in program.operations} == {"compute"}
    traffic = Traffic(program.setup)
    program.replay(traffic)
    assert traffic.sent_bytes.tolist() == [0]


@given(st.sampled_from(EXACT), st.sampled_from(PLACES))
@settings(max_examples=30)
def test_bytes_sent_are_bytes_received(spec: str, place: tuple[int, int]) -> None:
    """What arrives on a rank is the shards that it writes, and every rank is sent to once."""
    ranks, per_node = place
    for operation in small_program(spec, small_setup(ranks, ranks_per_node=per_node, kv_heads=8)).operations:
        if isinstance(operation.work, Exchange):
            ring = operation.work.ring
            sent = np.broadcast_to(np.asarray(operation.bytes_sent), ranks)
            received = np.broadcast_to(np.asarray(sum(buffer.bytes for buffer in operation.writes)), ranks)
            assert np.array_equal(sent[ring.source], received)
            assert sorted(ring.to.tolist()) == list(range(ranks))


@given(st.sampled_from(EXACT), st.sampled_from(PLACES), st.integers(0, 2**32), st.floats(0.0, 1.0))
@settings(max_examples=40)
def test_faster_parts_never_make_it_slower(spec: str, place: tuple[int, int], seed: int, faster: float) -> None:
    ranks, per_node = place
    program = small_program(spec, small_setup(ranks, ranks_per_node=per_node, kv_heads=8))
    costs = RandomCosts(program, seed)
    assert np.all(finish_ns(program, Changed(costs, faster=faster)) <= finish_ns(program, costs))


@given(st.sampled_from(EXACT), st.sampled_from(PLACES), st.integers(0, 2**32))
@settings(max_examples=40)
def test_makespan_is_at_least_the_busiest_lane_and_any_chain_of_kernels(
    spec: str, place: tuple[int, int], seed: int
) -> None:
    ranks, per_node = place
    program = small_program(spec, small_setup(ranks, ranks_per_node=per_node, kv_heads=8))
    costs = RandomCosts(program, seed)
    busy: dict[str, np.ndarray] = {}
    for operation in program.operations:
        taken = np.broadcast_to(np.asarray(costs.device_ns(operation)), ranks)
        if operation.ranks is not None:
            taken = np.where(operation.ranks, taken, 0)
        busy[operation.lane] = busy.get(operation.lane, 0) + taken
    assert all(np.all(finish_ns(program, costs).max() >= lane) for lane in busy.values())
    assert np.all(finish_ns(program, costs) >= busy[COMPUTE])


@given(st.sampled_from(("ring:partition=contiguous", "burst:partition=contiguous", "ulysses")), st.sampled_from((2, 4)),
       st.integers(0, 2**32), st.integers(1, 3))  # fmt: skip
@settings(max_examples=30)
def test_relabelled_ranks_finish_at_relabelled_times(spec: str, ranks: int, seed: int, turn: int) -> None:
    """Under a full mask all ranks do alike; only their costs differ, and those are turned round the ring."""
    program = small_program(spec, small_setup(ranks, kv_heads=8, mask="full"))
    order = np.roll(np.arange(ranks), turn)
    costs = RandomCosts(program, seed)
    assert np.array_equal(finish_ns(program, Changed(costs, order)), finish_ns(program, costs)[order])
