"""Programs as Chakra traces: the schema to the bit, what ASTRA-sim makes of a ring, and the way back."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.chakra.export import export_chakra
from simulator.chakra.load import load_chakra
from simulator.program.operations import HOST, Exchange
from simulator.program.program import Program
from simulator.traced.what_if import Changes, simulate_traced
from tests.simulator.chakra.astra import Astra
from tests.simulator.costs import RoundCosts, run_traced
from tests.simulator.engines.random_programs import RandomCosts, random_program
from tests.simulator.workloads import small_program, small_setup
from traces.chakra.files import attributes, encode_nodes, find_rank_files, read_nodes
from traces.chakra.schema import COLL, COMP, RECV, SEND, load_schema
from traces.errors import InputError

SCHEDULES = {
    "ring": ("ring", small_setup(4)),
    "double burst": ("burst:ring=double", small_setup(4, ranks_per_node=2)),
    "ulysses": ("ulysses", small_setup(4)),
    "usp": ("usp:ulysses=2,ring=2", small_setup(4)),
    "one rank": ("flash", small_setup(1)),
}
COSTS = {"host_us": 0, "communication_us": 200}


def exported(folder: Path, spec: str, setup: Any) -> tuple[Any, RoundCosts]:
    program, costs = small_program(spec, setup), RoundCosts(setup.n_ranks, **COSTS)
    export_chakra(program, costs, folder)
    return program, costs


def read(folder: Path) -> list[list[Any]]:
    return [list(read_nodes(path)) for path in find_rank_files(folder)]


# -- the schema --------------------------------------------------------------------------------------------------------


def wire(data: bytes) -> list[tuple[int, Any]]:
    """Fields of a protobuf message by their numbers, decoded without any schema."""
    fields, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            fields.append((number, varint()))
        else:
            size = {1: 8, 5: 4}.get(kind) or varint()
            fields.append((number, data[at : at + size]))
            at += size
    return fields


def test_numbers_of_fields_are_those_of_et_def_proto():
    """Numbers as in MLCommons' et_def.proto, transcribed."""
    schema = load_schema()
    node = schema.Node(id=5, name="n", type=COMP, start_time_micros=6, duration_micros=7)
    node.ctrl_deps.extend([1, 2])
    node.data_deps.append(3)
    node.inputs.values, node.outputs.types = "v", "t"
    node.attr.add(name="a", int32_val=9)
    found = dict(wire(node.SerializeToString()))
    assert {1: 5, 2: b"n", 3: 4, 6: 6, 7: 7}.items() <= found.items()
    assert (found[4], found[5]) == (b"\x01\x02", b"\x03"), "packed lists"
    assert wire(found[8]) == [(1, b"v")] and wire(found[9]) == [(3, b"t")]
    assert wire(found[10]) == [(1, b"a"), (7, 9)]
    scalars = ("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64",
               "sfixed32", "sfixed64", "bool", "string", "bytes")  # fmt: skip
    numbers = dict(zip(scalars, range(3, 33, 2), strict=True))
    fields = schema.AttributeProto.DESCRIPTOR.fields_by_name
    assert {name: fields[f"{name}_val"].number for name in numbers} == numbers
    assert all(fields[f"{name}_list"].number == number + 1 for name, number in numbers.items())
    assert schema.Node.DESCRIPTOR.full_name == "ChakraProtoMsg.Node"
    types = {value.name: value.number for value in schema.Node.DESCRIPTOR.fields_by_name["type"].enum_type.values}
    assert {"COMP_NODE": 4, "COMM_SEND_NODE": 5, "COMM_RECV_NODE": 6, "COMM_COLL_NODE": 7}.items() <= types.items()


def test_protobufs_own_reader_reads_the_files(tmp_path):
    proto = pytest.importorskip("google.protobuf.proto")
    exported(tmp_path / "t", *SCHEDULES["ring"])
    schema = load_schema()
    with (tmp_path / "t" / "attnsim.1.et").open("rb") as file:
        metadata = proto.parse_length_prefixed(schema.GlobalMetadata, file)
        nodes = []
        while (node := proto.parse_length_prefixed(schema.Node, file)) is not None:
            nodes.append(node)
    assert metadata.version == "0.0.4"
    assert nodes == read(tmp_path / "t")[1]


# -- what is exported --------------------------------------------------------------------------------------------------


def test_a_ring_sends_to_the_next_and_receives_from_the_one_before(tmp_path):
    program, _ = exported(tmp_path / "t", *SCHEDULES["ring"])
    per_rank = read(tmp_path / "t")
    hops = [op for op in program.operations if isinstance(op.work, Exchange)]
    for rank, nodes in enumerate(per_rank):
        sends = [attributes(node) for node in nodes if node.type == SEND]
        receives = [attributes(node) for node in nodes if node.type == RECV]
        assert [each["comm_dst"] for each in sends] == [(rank + 1) % 4] * len(hops)
        assert [each["comm_src"] for each in receives] == [(rank - 1) % 4] * len(hops)
        assert [each["comm_size"] for each in sends] == [int(np.broadcast_to(op.work.bytes, 4)[rank]) for op in hops]
        assert len({each["comm_tag"] for each in sends}) == len(hops), "a tag of its own for every hop"
        assert {each["comm_src"] for each in sends} == {each["comm_dst"] for each in receives} == {rank}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_ids_are_unique_and_dependencies_point_back(tmp_path, schedule):
    exported(tmp_path / "t", *schedule)
    for nodes in read(tmp_path / "t"):
        assert [node.id for node in nodes] == list(range(1, len(nodes) + 1))
        assert all(each < node.id for node in nodes for each in (*node.ctrl_deps, *node.data_deps))
        assert all(not attributes(node)["is_cpu_op"] for node in nodes)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_astra_sim_runs_every_node_and_takes_no_less_than_the_program(tmp_path, schedule):
    """With one unit for all communication, it cannot be faster than lanes that run at once; it is near where there is
    one communication lane."""
    program, costs = exported(tmp_path / "t", *schedule)
    per_rank = read(tmp_path / "t")
    astra = Astra(per_rank, json.loads((tmp_path / "t" / "comm_groups.json").read_text()))
    astra.run()
    assert len(astra.ended_ns) == sum(map(len, per_rank))
    ours = run_traced(program, costs).timeline.makespan_ns
    computed = [end for (rank, number), end in astra.ended_ns.items() if astra.nodes[rank][number].type == COMP]
    assert max(computed) >= 0.98 * ours or len({op.lane for op in program.operations}) > 2


def test_a_ring_takes_as_long_in_astra_sim(tmp_path):
    program, costs = exported(tmp_path / "t", *SCHEDULES["ring"])
    makespan_ns = Astra(read(tmp_path / "t"), {}).run()
    assert makespan_ns == pytest.approx(run_traced(program, costs).timeline.makespan_ns, rel=0.02)


def test_groups_of_collectives(tmp_path):
    exported(tmp_path / "t", *SCHEDULES["usp"])
    groups = json.loads((tmp_path / "t" / "comm_groups.json").read_text())
    assert sorted(groups.values()) == [[0, 1], [2, 3]]
    for rank, nodes in enumerate(read(tmp_path / "t")):
        for node in nodes:
            if node.type == COLL:
                assert rank in groups[attributes(node)["pg_name"]]
                assert attributes(node)["comm_type"] == 6


def test_flop_of_attention_are_there(tmp_path):
    """Causal attention of 240 tokens, 8 heads of 16: 2 (D + Dv) per pair forward, 2.5 times that backward."""
    exported(tmp_path / "t", *SCHEDULES["one rank"])
    flop = Counter()
    for node in read(tmp_path / "t")[0]:
        flop[attributes(node)["kind"]] += attributes(node)["num_ops"]
        assert attributes(node)["tensor_size"] > 0
    pairs = 240 * 241 // 2
    assert flop["attention_forward"] == 64 * 8 * pairs
    assert flop["attention_backward"] == 64 * 8 * pairs * 5 // 2


# -- and back ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_what_is_read_back_takes_the_same_time_and_sends_the_same_bytes(tmp_path, schedule):
    program, costs = exported(tmp_path / "t", *schedule)
    loaded = load_chakra(tmp_path / "t")
    expected = run_traced(program, costs).timeline
    found = simulate_traced(loaded, Changes())
    assert found.makespan_ns == expected.makespan_ns
    for rank in range(expected.n_ranks):
        assert found.select(rank=rank).makespan_ns == expected.select(rank=rank).makespan_ns
    assert np.array_equal(sent_in_exchanges(program), sent_in_exchanges(loaded.program))


def sent_in_exchanges(program: Program) -> Any:
    n = program.setup.n_ranks
    return sum(np.broadcast_to(op.bytes_sent, n) for op in program.operations if op.kind == "exchange") + np.zeros(n)


def test_a_faster_link_changes_what_was_read(tmp_path):
    program, _ = exported(tmp_path / "t", *SCHEDULES["ring"])
    loaded = load_chakra(tmp_path / "t")
    expected = run_traced(program, RoundCosts(4, **COSTS, link=4)).timeline.makespan_ns
    assert simulate_traced(loaded, Changes(link=4)).makespan_ns == pytest.approx(expected, rel=0.01)


def test_gzip_is_read(tmp_path):
    exported(tmp_path / "t", *SCHEDULES["ring"])
    for path in (tmp_path / "t").glob("*.et"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert load_chakra(tmp_path / "t").program.setup.n_ranks == 4


def foreign(tmp_path: Path, *per_rank: Callable[[Any], list[Any]]) -> Path:
    schema = load_schema()
    tmp_path.mkdir(exist_ok=True)
    for rank, make in enumerate(per_rank):
        (tmp_path / f"x.{rank}.et").write_bytes(
            b"".join(encode_nodes(each.SerializeToString() for each in make(schema)))
        )
    return tmp_path


def node(schema: Any, number: int, kind: int, deps: tuple[int, ...] = (), micros: int = 5, **values: Any) -> Any:
    made = schema.Node(id=number, type=kind, duration_micros=micros, data_deps=deps)
    for name, value in values.items():
        made.attr.add(name=name, **({"string_val": value} if isinstance(value, str) else {"int64_val": value}))
    return made


def test_a_pipeline_of_another_tool(tmp_path):
    """Rank 0 computes 10 µs and sends, rank 1 receives and computes 20 µs: 5 µs for the message."""
    folder = foreign(
        tmp_path / "t",
        lambda s: [node(s, 1, COMP, micros=10), node(s, 7, SEND, (1,), comm_dst=1, comm_tag=3, comm_size=64)],
        lambda s: [node(s, 4, RECV, comm_src=0, comm_tag=3, comm_size=64), node(s, 9, COMP, (4,), micros=20)],
    )
    assert simulate_traced(load_chakra(folder), Changes()).makespan_ns == 35_000


def test_collectives_wait_for_the_last_rank(tmp_path):
    folder = foreign(
        tmp_path / "t",
        *(
            lambda s, micros=micros: [node(s, 1, COMP, micros=micros), node(s, 2, COLL, (1,), comm_type=0, comm_size=8)]
            for micros in (10, 30)
        ),
    )
    loaded = load_chakra(folder)
    assert simulate_traced(loaded, Changes()).makespan_ns == 35_000
    assert loaded.program.operations[-1].kind == "all_reduce"


def send(**values: int | str) -> Callable[[Any], list[Any]]:
    return lambda s: [node(s, 1, SEND, **values)]


def computations(*waits: tuple[int, ...], first: int = 1) -> Callable[[Any], list[Any]]:
    return lambda s: [node(s, first + (first == 1) * i, COMP, each) for i, each in enumerate(waits)]


BAD = {
    "a message that nobody receives": (
        (send(comm_dst=1, comm_tag=0, comm_size=8), computations(())),
        "message 0 of tag 0 from rank 0 to rank 1 has no receive",
    ),
    "another size": (
        (
            send(comm_dst=1, comm_tag=0, comm_size=8),
            lambda s: [node(s, 1, RECV, comm_src=0, comm_tag=0, comm_size=9)],
        ),
        "differs in size: got 8 bytes sent, 9 received",
    ),
    "no tag": ((send(comm_dst=0, comm_size=8),), "node 1 of .* lacks an attribute: expected comm_tag"),
    "a dependency that is not there": ((computations((2,)),), "node 1 waits for one that is not there: got 2"),
    "a circle": ((computations((2,), (1,)),), "wait for each other in a circle: got 2 of 2"),
    "an id twice": ((computations((), (), first=7),), "ids are not unique: got 7"),
    "a tag that is no number": ((send(comm_dst=0, comm_tag="x", comm_size=8),), "node 1 of .* is malformed"),
    "a size below nothing": ((send(comm_dst=0, comm_tag=1, comm_size=-8),), "node 1 of .* is malformed: got duration"),
    "an unknown collective": (
        (lambda s: [node(s, 1, COLL, comm_type=99, comm_size=1)],),
        "is malformed: got comm_type 99, not 0 to 9",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_traces_that_cannot_be(tmp_path, name):
    per_rank, message = BAD[name]
    with pytest.raises(InputError, match=message):
        load_chakra(foreign(tmp_path / "t", *per_rank))


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="holds no Chakra traces"):
        load_chakra(tmp_path)
    (tmp_path / "x.0.et").write_bytes(b"")
    with pytest.raises(InputError, match="it is empty"):
        load_chakra(tmp_path)
    (tmp_path / "x.0.et").write_bytes(b"\xff\xff\xff\xff\xff\xff")
    with pytest.raises(InputError, match="a length is impossible"):
        load_chakra(tmp_path)
    (tmp_path / "x.0.et").write_bytes(b"\xff\xff\xff\x7f")
    with pytest.raises(InputError, match="a message is too long"):
        load_chakra(tmp_path)
    (tmp_path / "x.0.et").write_bytes(b"\x05hello")
    with pytest.raises(InputError, match="cannot be decoded"):
        load_chakra(tmp_path)
    (tmp_path / "x.2.et").write_bytes(b"")
    with pytest.raises(InputError, match="rank 1 is missing"):
        load_chakra(tmp_path)


@pytest.mark.parametrize("kept", [1, 9, 50, -1])
def test_truncated_files(tmp_path, kept):
    exported(tmp_path / "t", *SCHEDULES["one rank"])
    path = tmp_path / "t" / "attnsim.0.et"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="it ends within a|waits for one that is not there"):
        load_chakra(tmp_path / "t")


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match=r"holds other files: got notes\.txt"):
        exported(tmp_path, *SCHEDULES["ring"])
    exported(tmp_path / "t", *SCHEDULES["ring"])
    exported(tmp_path / "t", *SCHEDULES["ulysses"])
    assert all(node.type != SEND for nodes in read(tmp_path / "t") for node in nodes)


def test_hosts_that_wait_have_no_counterpart(tmp_path):
    program = random_program(1, host_waits=True)
    assert HOST in {operation.lane for operation in program.operations}
    with pytest.raises(InputError, match="no hosts that wait"):
        export_chakra(program, RandomCosts(program, 0), tmp_path / "out")
    assert not (tmp_path / "out").exists()
