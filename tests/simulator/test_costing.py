"""Every distinct shape is priced once, and what is kept is what pricing anew gives."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from cost_models.hardware import load_hardware
from cost_models.masks import Lowering, TokenRange, lower, parse_mask
from cost_models.topology import load_topology
from cost_models.variation import parse_variation
from simulator import network_costs
from simulator.costing import CostModel
from simulator.prices import NetworkPrices, Prices, shared_prices
from simulator.program.lowered import LoweringColumn, column_of
from simulator.program.operations import Collective, Exchange, Gemm
from simulator.recording import build_program
from simulator.schedules import parse_schedule
from tests.simulator.workloads import small_setup


@pytest.mark.parametrize("spec", ["ring", "lightseq"])  # even exchanges, and uneven ones between helpers
def test_an_exchange_is_priced_once(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = build_program(parse_schedule(spec), small_setup(4))
    asked = []

    def count(topology: Any, profile: Any, source: Any, target: Any, size: Any, *, largest: float) -> Any:
        asked.append((target.tobytes(), np.asarray(size).tobytes(), largest))
        return estimate(topology, profile, source, target, size, largest=largest)

    estimate = network_costs.estimate_exchange_s
    monkeypatch.setattr(network_costs, "estimate_exchange_s", count)
    costs = CostModel(load_topology("dgx-h100", 4), load_hardware("h100-sxm"), "cudnn")
    exchanges = [each for each in program.operations if isinstance(each.work, Exchange)]
    first = [np.asarray(costs.device_ns(each)).tolist() for each in exchanges]
    assert len(asked) == len(set(asked)) >= 1 and len(exchanges) > len(asked)
    monkeypatch.setattr(network_costs, "MOST_KEYED", 0)
    assert [np.asarray(costs.device_ns(each)).tolist() for each in exchanges] == first


def test_a_product_with_rows_by_rank_is_that_of_each_rank() -> None:
    costs = CostModel(load_topology("dgx-h100", 4), load_hardware("h100-sxm"), "cudnn")

    def price(m: Any) -> Any:
        return costs._gemm(Gemm(m, ((4096, 4096), (4096, 1024)), "bf16"))

    rows = np.array([128, 4096, 128, 1000])
    assert price(rows).tolist() == [price(int(m)) for m in rows] and price(4096) > price(128) > 0


def test_a_weights_gradient_is_a_product_summed_over_tokens() -> None:
    costs = CostModel(load_topology("dgx-h100", 4), load_hardware("h100-sxm"), "cudnn")
    tokens, shape = 3000, ((4096, 1024),)
    gradient = costs._gemm(Gemm(tokens, shape, "bf16", over_rows=True))
    assert gradient == costs._gemm(Gemm(4096, ((1024, tokens),), "bf16"))
    assert gradient != costs._gemm(Gemm(tokens, shape, "bf16"))


def test_of_a_shared_table_only_what_ranks_have_is_priced_and_that_once() -> None:
    lowerings = [lower(parse_mask("causal", 64), [TokenRange(0, n)], [TokenRange(0, n)], 64) for n in (8, 16, 64)]
    column, prices, asked = column_of([lowerings[0], lowerings[2]]), Prices(), list[int]()
    table = column.table
    unused = table.add(lowerings[1])

    def price(lowering: Lowering, number: int) -> int:
        asked.append(number)
        return lowering.pairs

    for _ in range(2):
        assert np.asarray(prices.per_lowering("pairs", column, price)).tolist() == [36, 2080]
    assert unused not in asked and len(asked) == 2
    both = LoweringColumn(table, np.array([unused, 0]))
    assert np.asarray(prices.per_lowering("pairs", both, price)).tolist() == [136, 36]
    assert asked[2:] == [unused]


def test_what_is_kept_of_the_network_holds_for_gpus_that_differ_in_kernels_only() -> None:
    topology, profile = load_topology("dgx-h100", 16), load_hardware("h100-sxm")
    late = {kind: curve.model_copy(update={"latency_s": 2 * curve.latency_s}) for kind, curve in profile.links.items()}
    elsewhere = profile.model_copy(update={"links": late})
    faster = parse_variation("flop=3,hbm=0.4,host=2").profile(profile).with_fewer_sms(20)
    assert shared_prices(topology, faster, "cudnn").network is shared_prices(topology, profile, "cudnn").network
    assert shared_prices(topology, elsewhere, "cudnn").network is not shared_prices(topology, profile, "cudnn").network
    program = build_program(parse_schedule("usp:ulysses=8,ring=2"), small_setup(16))
    asked = [each for each in program.operations if isinstance(each.work, Exchange | Collective)]
    anew = CostModel(topology, faster, "cudnn")
    for prices in (shared_prices(topology, profile, "cudnn"), shared_prices(topology, faster, "cudnn")):
        kept = CostModel(topology, profile, "cudnn", prices=prices)
        for operation in asked:
            assert np.array_equal(kept.device_ns(operation), anew.device_ns(operation))
            assert kept.demands(operation) == anew.demands(operation) == kept.demands(operation)
    assert len({type(each.work) for each in asked}) == 2 and any(kept.demands(asked[0]))


def test_demands_are_kept_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.prices.MOST_DEMANDS", 3)
    prices, asked = NetworkPrices(), list[str]()

    def find(name: str, count: int) -> list[Any]:
        asked.append(name)
        return [None] * count

    for _ in range(2):
        assert [len(prices.demands(name, partial(find, name, size))) for name, size in (("a", 2), ("b", 2))] == [2, 2]
    assert asked == ["a", "b", "b"]
