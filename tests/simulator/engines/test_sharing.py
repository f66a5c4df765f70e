"""The SimPy engine with shared links: exact where nobody meets, slower only where links are full, and it says which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cost_models.hardware import load_hardware
from cost_models.masks import parse_mask
from cost_models.network import Demand
from cost_models.topology import ClusterTopology, load_topology
from cost_models.workload import AttentionWorkload
from simulator.costing import CostModel
from simulator.engines.des import DiscreteEvents
from simulator.engines.maxplus import MaxPlus
from simulator.engines.rows import Rows
from simulator.engines.sharing import Sharing, narrowest_links
from simulator.program.operations import Buffer, Collective, Exchange, Operation
from simulator.program.program import Program
from simulator.program.rings import Matching, Ring
from simulator.program.setup import Setup
from simulator.recording import build_program
from simulator.replay.source import DATA
from simulator.schedules import parse_schedule
from traces.timeline import Timeline


def setup_on(topology: ClusterTopology, seq_len: int = 2**14) -> Setup:
    workload = AttentionWorkload(1, seq_len, 32, 8, 128, 128, "bf16", parse_mask("causal", seq_len))
    return Setup(workload, topology.n_ranks, topology.ranks_per_node)


def costs_on(topology: ClusterTopology) -> CostModel:
    return CostModel(topology, load_hardware("h100-sxm"), "flash2")


def capacities(topology: ClusterTopology) -> list[float]:
    return topology.link_capacities_bytes_per_s.tolist()


def run_des(program: Program, costs: CostModel, sharing: Sharing | None) -> tuple[Timeline, DiscreteEvents]:
    rows = Rows(program.setup.n_ranks)
    engine = DiscreteEvents(program, costs, rows, sharing)
    engine.run()
    return rows.timeline(), engine


def run_maxplus(program: Program, costs: CostModel) -> Timeline:
    rows = Rows(program.setup.n_ranks)
    program.replay(MaxPlus(program.setup.n_ranks, costs, rows))
    return rows.timeline()


@pytest.mark.parametrize("spec", ["ring", "burst:ring=double", "burst:ring=flat", "ulysses"])
def test_without_tight_links_it_is_maxplus_even_through_the_network(spec: str) -> None:
    topology = load_topology("dgx-h100", 16)
    program, costs = build_program(parse_schedule(spec), setup_on(topology)), costs_on(topology)
    expected = run_maxplus(program, costs)
    found = Sharing.find(program, costs, capacities(topology))
    assert not found.tight
    assert expected.same_as(run_des(program, costs, found)[0])
    all_in_the_network = Sharing.find(program, costs, [1.0] * len(topology.links))
    wide = replace(all_in_the_network, capacities=[1e15] * len(topology.links))
    assert any(wide.asks(operation) for operation in program.operations)
    assert expected.same_as(run_des(program, costs, wide)[0])


class Asked:
    """Demands as given, by operation."""

    def __init__(self, *by_operation: list[Demand | None]) -> None:
        self._by_operation = by_operation

    def demands(self, operation: Operation) -> list[Demand | None]:
        return self._by_operation[operation.id]


def crossing(rate: float, *links: int) -> Demand:
    return Demand(0.0, 1.0, rate, links, (1.0,) * len(links))


@pytest.mark.parametrize(("rate", "is_tight"), [(4.9e9, False), (5.1e9, True)])
def test_a_link_is_tight_as_soon_as_its_users_ask_for_more_than_it_has(rate: float, is_tight: bool) -> None:
    topology = load_topology("dgx-h100", 2)
    program = one_step(topology, Exchange(Matching("pair", np.array([1, 0])), 2**20))
    found = Sharing.find(program, Asked([crossing(rate, 0), crossing(rate, 0)]), [10e9])
    assert found.tight == (frozenset({0}) if is_tight else frozenset())
    assert all(bool(ask) == is_tight for ask in found.asks(program.operations[0]))


def test_what_a_rank_sends_at_once_asks_together_and_later_operations_may_ask_for_more() -> None:
    topology = load_topology("dgx-h100", 3)
    several = one_step(topology, uneven(topology, [(0, 1, 1), (0, 2, 1)], 2**20))
    assert Sharing.find(several, Asked([crossing(6e9, 0), crossing(6e9, 0)]), [10e9]).tight == {0}
    program, nothing = Program(setup_on(topology)), [None]
    for number, size in enumerate((2**20, 2**30)):
        program.operation(
            Operation(
                number, "exchange", "comm:a", "forward", 0, (), (), Exchange(Matching("a", np.array([1, 0, 2])), size)
            )
        )
    slow, quick = ([crossing(each, 0), crossing(each, 0), *nothing] for each in (4e9, 6e9))
    assert Sharing.find(program, Asked(slow, quick), [10e9]).tight == {0}
    assert not Sharing.find(program, Asked(slow, slow), [10e9]).tight


def test_of_links_that_the_same_transfers_cross_each_stays_that_is_the_narrower_for_one() -> None:
    one, other = Demand(0.0, 1.0, 1e9, (0, 1), (1.0, 2.0)), Demand(0.0, 1.0, 1e9, (0, 1), (2.0, 1.0))
    assert narrowest_links([one, other], [5e9, 5e9]) == [0, 1]
    assert narrowest_links([one, one], [5e9, 5e9]) == [1]


def test_a_double_ring_of_pcie_nodes_names_the_links_it_fills() -> None:
    """GPUs of a node reach the network two to a switch and four to a port."""
    topology = load_topology("pcie-8x", 16)
    program, costs = build_program(parse_schedule("burst:ring=double"), setup_on(topology)), costs_on(topology)
    sharing = Sharing.find(program, costs, capacities(topology))
    timeline, engine = run_des(program, costs, sharing)
    alone, _ = run_des(program, costs, replace(sharing, capacities=[1e15] * len(topology.links)))
    assert timeline.makespan_ns > alone.makespan_ns
    names = {topology.links[link].name for link in engine.saturation.full_ns}
    assert {name for name in names if "nic" in name or "pci" in name}
    hops = {f"inter {r}->{(r + 8) % 16}": (r, (r + 8) % 16) for r in range(16)}
    hops |= {f"intra {r}->{r // 8 * 8 + (r + 1) % 8}": (r, r // 8 * 8 + (r + 1) % 8) for r in range(16)}
    routes = {who: topology.route(*hop).links for who, hop in hops.items()}
    for link, full_ns in engine.saturation.full_ns.items():
        users = {who for who, links in routes.items() if link in links}
        assert 0 < full_ns <= timeline.makespan_ns
        assert len(users) > 1 and set(engine.saturation.slowed_ns.get(link, ())) <= users


def one_step(topology: ClusterTopology, work: Exchange | Collective, lane: str = "comm:a") -> Program:
    program = Program(setup_on(topology))
    buffer = Buffer(0, "b", 1, 1, 1, 1, "fp32", 4)
    program.allocate(buffer)
    kind = "exchange" if isinstance(work, Exchange) else work.collective
    program.operation(Operation(0, kind, lane, "forward", 0, (buffer,), (), work))
    return program


def test_an_oversubscribed_fat_tree_is_congested_where_it_is() -> None:
    size, times = 2**26, {}
    for ratio in (1, 2, 4):
        topology = load_topology(f"dgx-h100:fabric=fat-tree,oversubscription={ratio},nodes-per-leaf=1", 32)
        program = one_step(topology, Exchange(Ring("inter", 8, 4, 32), size))
        costs = costs_on(topology)
        sharing = Sharing.find(program, costs, capacities(topology))
        timeline, engine = run_des(program, costs, sharing)
        times[ratio] = timeline.makespan_ns
        full = {topology.links[link].name for link in engine.saturation.full_ns}
        leaves = {f"leaf:{i}->spine" for i in range(4)} | {f"spine->leaf:{i}" for i in range(4)}
        assert full <= leaves and bool(full) == (ratio > 1)
    data_ns = size / (load_topology("dgx-h100", 16).route(0, 8).bytes_per_s) * 1e9
    assert times[4] - times[2] == pytest.approx(2 * (times[2] - times[1]), rel=0.1)
    assert times[2] - times[1] > 0.5 * data_ns


def seconds_of_pairs(
    topology: ClusterTopology, hardware: str, pairs: list[tuple[int, int]], size: int
) -> tuple[list[float], set[str]]:
    """Time of an all-reduce of each pair, all at once, and the links that were full."""
    groups = np.full(topology.n_ranks, -1)
    for number, pair in enumerate(pairs):
        groups[list(pair)] = number
    groups[groups < 0] = np.arange(len(pairs), len(pairs) + (groups < 0).sum())
    program = one_step(topology, Collective("all_reduce", size, size, groups))
    costs = CostModel(topology, load_hardware(hardware), "flash2")
    timeline, engine = run_des(program, costs, Sharing.find(program, costs, capacities(topology)))
    ends = [float(timeline.end_ns[timeline.rank == pair[0]][0]) / 1e9 for pair in pairs]
    return ends, {topology.links[link].name for link in engine.saturation.full_ns}


@pytest.mark.parametrize("size", [2**27, 2**30])
def test_two_jobs_on_4090s_meet_in_host_memory(size: int) -> None:
    """Measured on 4 RTX 4090 (simulator/replay/data/nccl.csv, 128 MiB to 1 GiB, each job by ``mpirun -np 2``).

    A pair alone reaches 10.12 GB/s, two pairs at once 4.83 and 4.75 each. Nothing here is fitted to these rows.
    """
    bound = load_topology(DATA / "epyc_4x4090.xml", host_numa="0")
    (alone,), none = seconds_of_pairs(bound, "rtx4090", [(0, 1)], size)
    both, full = seconds_of_pairs(bound, "rtx4090", [(0, 1), (2, 3)], size)
    assert size / alone / 1e9 == pytest.approx(10.12, rel=0.15)
    assert [size / each / 1e9 for each in both] == pytest.approx([4.83, 4.75], rel=0.15)
    assert not none
    assert full == {"cpu:0.0->mem:0.0"}


def test_two_jobs_near_their_gpus_do_not_meet() -> None:
    free = load_topology(DATA / "epyc_4x4090.xml")
    alone = [seconds_of_pairs(free, "rtx4090", [pair], 2**28)[0][0] for pair in ((0, 1), (2, 3))]
    both, full = seconds_of_pairs(free, "rtx4090", [(0, 1), (2, 3)], 2**28)
    assert both == alone
    assert not full


def test_two_jobs_halve_each_other_where_they_share_and_only_there() -> None:
    """All-reduces of two pairs on 8 PCIe GPUs: across the sockets they share the link between them."""
    topology = load_topology("pcie-8x", 8)
    (alone,), none = seconds_of_pairs(topology, "h100-sxm", [(0, 4)], 2**28)
    (one, other), full = seconds_of_pairs(topology, "h100-sxm", [(0, 4), (1, 5)], 2**28)
    (near, far), _ = seconds_of_pairs(topology, "h100-sxm", [(0, 1), (4, 5)], 2**28)
    assert not none and full
    assert {name.split("->")[0].split(":")[0] for name in full} <= {"cpu", "pci"}
    assert one == other == pytest.approx(2 * alone, rel=0.06)  # what does not move data is not twice as long
    assert near == far == seconds_of_pairs(topology, "h100-sxm", [(0, 1)], 2**28)[0][0]


def uneven(topology: ClusterTopology, splits: list[tuple[int, int, int]], row_bytes: int) -> Collective:
    """An all-to-all of (source, target, rows)."""
    matrix = np.zeros((topology.n_ranks,) * 2, np.int64)
    for source, target, rows in splits:
        matrix[source, target] = rows
    sent = matrix.sum(axis=1) * row_bytes
    return Collective("all_to_all_v", sent, sent, None, matrix, row_bytes)


def side_by_side(topology: ClusterTopology, works: list[Exchange | Collective]) -> tuple[Program, CostModel, Sharing]:
    """Transfers that start together, each on a lane of its own."""
    program = Program(setup_on(topology))
    for number, work in enumerate(works):
        buffer = Buffer(number, f"b{number}", 1, 1, 1, 1, "fp32", 4)
        program.allocate(buffer)
        kind = "exchange" if isinstance(work, Exchange) else work.collective
        program.operation(Operation(number, kind, f"comm:{number}", "forward", 0, (buffer,), (), work))
    costs = costs_on(topology)
    return program, costs, Sharing.find(program, costs, capacities(topology))


def ends(timeline: Timeline, operation: int) -> list[int]:
    here = timeline.operation == operation
    return [int(each) for each in timeline.end_ns[here][np.argsort(timeline.rank[here])]]


@pytest.mark.parametrize("rows", [1, 7])
def test_an_uneven_all_to_all_alone_takes_its_price_even_through_the_network(rows: int) -> None:
    topology = load_topology("pcie-8x", 8)
    draw = np.random.default_rng(rows)
    splits = [(r, s, int(draw.integers(0, 100 * rows))) for r in range(8) for s in range(8)]
    program, costs, sharing = side_by_side(topology, [uneven(topology, splits, 2**14)])
    expected = run_maxplus(program, costs)
    assert not sharing.tight and expected.same_as(run_des(program, costs, sharing)[0])
    in_the_network = Sharing.find(program, costs, [1.0] * len(topology.links))
    assert any(in_the_network.asks(program.operations[0]))
    through = replace(in_the_network, capacities=capacities(topology))  # what its flows leave each other is their rate
    assert expected.same_as(run_des(program, costs, through)[0])


def test_an_uneven_all_to_all_shares_a_link_over_time_and_is_alone_when_the_other_has_left() -> None:
    """Ranks 0 and 1, on one PCIe switch, send to 4 and 5; the shorter exchange of 1 halves it while it lasts."""
    topology = load_topology("pcie-8x", 8)
    to = np.arange(8)
    to[[1, 5]] = 5, 1
    mib = 2**20
    sizes = 512 * mib, 128 * mib
    program, costs, sharing = side_by_side(
        topology, [uneven(topology, [(0, 4, 512)], mib), Exchange(Matching("pair", to), sizes[1])]
    )
    timeline, engine = run_des(program, costs, sharing)
    alone = [ends(run_maxplus(program, costs), number) for number in (0, 1)]
    found = [ends(timeline, number) for number in (0, 1)]
    assert found[0][0] > alone[0][0] and found[1][1] > alone[1][1]
    assert found[0][0] == found[0][4] and found[0][1] == found[0][7] == alone[0][1], "ranks without a flow do not wait"
    ask, asked = sharing.asks(program.operations[0])[0], sharing.asks(program.operations[1])[1]
    assert ask is not None and asked is not None and len(sharing.tight) == 1, "the way up of their switch"
    (link, weight), *_ = ask.crosses
    both_ns = 2 * sizes[1] * weight / capacities(topology)[link] * 1e9  # each has half of the link
    starts = [int(timeline.start_ns[timeline.operation == number].max()) for number in (0, 1)]
    rest_ns = (sizes[0] - sizes[1]) / ask.ceiling * 1e9  # before the other came, and after it has left
    assert found[1][1] == pytest.approx(starts[1] + both_ns + asked.overhead_ns, abs=2)
    assert found[0][0] == pytest.approx(starts[0] + both_ns + rest_ns + ask.overhead_ns, abs=2)
    assert {who for by in engine.saturation.slowed_ns.values() for who in by} >= {"all_to_all_v 0->4"}
