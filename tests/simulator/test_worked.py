"""Work before an operation counts against the power limit, however it is cut into calls."""

from __future__ import annotations

from typing import Any

import attnsim
from cost_models.hardware import load_hardware
from cost_models.topology import load_topology
from simulator.costing import CostModel
from simulator.worked import STEPS_S, Worked
from tests.simulator.workloads import small_program, small_setup


def simulate(schedule: str, **options: Any) -> attnsim.SimulationResult:
    shape = {"heads": 32, "kv_heads": 8, "head_dim": 128, "topology": "dgx-h100", "gpus": 2, "engine": "maxplus"}
    return attnsim.simulate(schedule=schedule, **{**shape, **options})


def test_work_is_counted_once_in_steps() -> None:
    operations = small_program("ring", small_setup(2)).operations
    compute = [operation for operation in operations if operation.lane == "compute"]
    worked = Worked()
    assert worked.before_s(compute[0]) == 0
    worked.add(compute[0], 25_000_000)
    worked.add(compute[0], 25_000_000)
    assert worked.before_s(compute[0]) == 0
    assert worked.before_s(compute[1]) == 0.02
    worked.add(compute[1], 10**10)
    assert worked.before_s(compute[2]) == STEPS_S[-1]
    exchange = next(operation for operation in operations if operation.lane != "compute")
    fresh = Worked()
    fresh.add(exchange, 10**10)
    assert fresh.before_s(operations[-1]) == 0


def test_prices_are_the_same_whenever_they_are_asked() -> None:
    program = small_program("ring", small_setup(2, seq_len=2**18, heads=32, kv_heads=8))
    costs = CostModel(load_topology("dgx-h100", 2), load_hardware("h100-sxm"), "cudnn")
    first = [costs.device_ns(operation) for operation in program.operations]
    again = [costs.device_ns(operation) for operation in program.operations]
    assert all((a == b) if isinstance(a, int) else (a == b).all() for a, b in zip(first, again, strict=True))


def test_many_short_calls_do_not_escape_the_power_limit() -> None:
    """Head groups one by one attend as long as all heads at once, but for the ends of their kernels."""
    at_once, one_by_one = (simulate(f"allgather{option}", seq_len="512k") for option in ("", ":head-group=1"))
    assert one_by_one.compute_s > 0.98 * at_once.compute_s
