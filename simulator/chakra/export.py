"""Write a simulated Program as Chakra execution traces, one file per rank, as ASTRA-sim runs them.

    attention, products, elementwise   COMP: num_ops, tensor_size (bytes touched) for a roofline, duration for replay
    exchange, send                     SEND and RECV: comm_src, comm_dst, comm_size, and a comm_tag per operation
    collectives                        COLL: comm_type, comm_size (a rank's input; of all-gather its shard), pg_name

A lane's order is in ``ctrl_deps``, what other lanes are waited for in ``data_deps``: by the engines' own rules
(`simulator.engines.planner`). The receiving node has the higher id, so that a simulator that starts nodes in order of
their ids sends before it waits. Durations are those of the operation alone, without waiting for other ranks; what hosts
take is not in Chakra. Groups are numbered from 1 in ``comm_groups.json`` beside the traces (ASTRA-sim's
``--comm-group-configuration``); all ranks together are group 0. Durations are whole microseconds in the schema; the
attribute ``duration_ns`` has them exactly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from simulator.engines.alike import Alike
from simulator.engines.costs import Costs
from simulator.engines.planner import Planner, Task
from simulator.program.operations import (
    HOST,
    Attention,
    Collective,
    Column,
    Elementwise,
    Exchange,
    Gemm,
    Operation,
    Transfer,
)
from simulator.program.program import Program
from traces.atomic import write_folder_atomic
from traces.chakra.files import encode_nodes
from traces.chakra.schema import COLL, COLLECTIVES, COMP, RECV, SEND, load_schema
from traces.errors import InputError
from traces.garbage import collector_paused

COLLECTIVE_NUMBER = {
    "all_reduce": 0, "reduce": 1, "all_gather": 2, "gather": 3, "scatter": 4, "broadcast": 5, "all_to_all": 6,
    "all_to_all_v": 6, "reduce_scatter": 7, "barrier": 9,
}  # fmt: skip
FIELDS = {
    "is_cpu_op": "bool_val", "duration_ns": "uint64_val", "kind": "string_val", "lane": "string_val",
    "comm_type": "int64_val", "comm_size": "int64_val", "pg_name": "string_val", "num_ops": "int64_val",
    "tensor_size": "uint64_val", "comm_src": "int32_val", "comm_dst": "int32_val", "comm_tag": "int32_val",
}  # fmt: skip
"""Attributes and the types that ASTRA-sim's own generators give them."""
GROUPS_FILE = "comm_groups.json"
OWNED = r".+\.\d+\.et|comm_groups\.json"


@collector_paused()
def export_chakra(program: Program, costs: Costs, folder: str | os.PathLike[str], name: str = "attnsim") -> None:
    """Write ``NAME.0.et``, ``NAME.1.et``, ... and ``comm_groups.json``, whole or not at all.

    Parameters
    ----------
    costs : prices of its operations.

    Raises
    ------
    InputError
        Where an operation has no counterpart, or the folder cannot be written.
    """
    exporter = _Exporter(program, costs)
    files: dict[str, Any] = {f"{name}.{rank}.et": _Pieces(exporter, rank) for rank in range(program.setup.n_ranks)}
    files[GROUPS_FILE] = (json.dumps(exporter.groups, indent=1) + "\n").encode()
    write_folder_atomic(folder, files, owned=OWNED)


def _plan(program: Program, costs: Costs) -> list[Task]:
    if any(operation.lane == HOST for operation in program.operations):
        raise InputError("Chakra traces know no hosts that wait", remedy="export a schedule, or a trace without waits")
    planner = Planner(Alike.each(program.setup.n_ranks), costs)
    program.replay(planner)
    return planner.tasks


class _Pieces:
    """A rank's file, made while it is written."""

    def __init__(self, exporter: _Exporter, rank: int) -> None:
        self._exporter, self._rank = exporter, rank

    def __iter__(self) -> Iterator[bytes]:
        return encode_nodes(self._exporter.nodes(self._rank), producer="attnsim", rank=str(self._rank))


class _Draft(NamedTuple):
    """What a node says beside its place."""

    type: int
    verb: str
    duration_ns: int
    values: Mapping[str, int | str]


class _Exporter:
    """Nodes of all ranks."""

    def __init__(self, program: Program, costs: Costs) -> None:
        self._n = program.setup.n_ranks
        self._tasks = _plan(program, costs)
        self._schema = load_schema()
        self._attribute = lru_cache(maxsize=1 << 16)(self._encode_attribute)
        self._group_of: dict[tuple[int, ...], int] = {}
        self._names = [self._group_names(task.operation) for task in self._tasks]

    @property
    def groups(self) -> dict[str, list[int]]:
        """Members of the groups that are not all ranks, by number."""
        return {str(number): list(members) for members, number in self._group_of.items()}

    def nodes(self, rank: int) -> Iterator[bytes]:
        """One rank's nodes, in order of issue."""
        last_ids: list[tuple[int, ...]] = [()] * len(self._tasks)
        on_lane: dict[str, tuple[int, ...]] = {}
        number = 1
        for task, names in zip(self._tasks, self._names, strict=True):
            operation = task.operation
            if operation.ranks is not None and not operation.ranks[rank]:
                continue
            control, waited = on_lane.get(operation.lane, ()), set[int]()
            for _, numbers in task.waits:
                waited.update(last_ids[numbers[rank]] if numbers[rank] >= 0 else ())
            data = sorted(waited.difference(control))
            first = number
            for draft in self._drafts(task, rank, names):
                yield self._encode(operation, draft, number, control, data)
                number += 1
            last_ids[operation.id] = on_lane[operation.lane] = tuple(range(first, number))

    def _drafts(self, task: Task, rank: int, names: Mapping[int, str]) -> Iterator[_Draft]:
        operation, duration_ns = task.operation, task.device_ns[rank]
        work, kind = operation.work, operation.kind
        values: dict[str, int | str]
        if isinstance(work, Exchange):
            yield from self._messages(operation, task.to[rank], task.source[rank], rank, duration_ns)
        elif isinstance(work, Transfer):
            source = np.flatnonzero((work.to == rank) & (np.arange(self._n) != rank))
            ends = int(work.to[rank]), int(source[0]) if len(source) else rank
            yield from self._messages(operation, *ends, rank, duration_ns)
        elif isinstance(work, Collective):
            collective, size = COLLECTIVE_NUMBER[work.collective], _of(work.bytes, rank)
            values = {"comm_type": collective, "comm_size": size, "pg_name": names[rank]}
            yield _Draft(COLL, kind, duration_ns, values)
        else:
            values = {"num_ops": _flop(operation, rank), "tensor_size": _touched_bytes(operation, rank)}
            yield _Draft(COMP, kind, duration_ns, values)

    def _messages(self, operation: Operation, to: int, source: int, rank: int, duration_ns: int) -> Iterator[_Draft]:
        """A SEND, a RECV, or both; a rank that does neither has a COMP of no length to hang dependencies on."""
        ends = [(SEND, "send", rank, to)] if to != rank else []
        if source != rank and (operation.ranks is None or operation.ranks[source]):
            ends.append((RECV, "receive", source, rank))
        assert isinstance(operation.work, (Exchange, Collective))
        for kind, verb, sender, receiver in ends:
            size = _of(operation.work.bytes, sender)
            values = {"comm_src": sender, "comm_dst": receiver, "comm_size": size, "comm_tag": operation.id}
            yield _Draft(kind, verb, duration_ns, values)
        if not ends:
            yield _Draft(COMP, operation.kind, 0, {})

    def _encode(
        self, operation: Operation, draft: _Draft, number: int, control: Sequence[int], data: Sequence[int]
    ) -> bytes:
        """A node: encoded messages put after each other are one message, so that attributes are encoded once."""
        node = self._schema.Node(
            id=number, name=f"{draft.verb} {operation.phase} {operation.step}", type=draft.type,
            duration_micros=round(draft.duration_ns / 1000), ctrl_deps=control, data_deps=data,
        )  # fmt: skip
        always = (
            ("is_cpu_op", False), ("duration_ns", draft.duration_ns), ("kind", operation.kind), ("lane", operation.lane)
        )  # fmt: skip
        attributes = [self._attribute(*each) for each in (*always, *draft.values.items())]
        return b"".join((node.SerializeToString(), *attributes))

    def _encode_attribute(self, name: str, value: int | str | bool) -> bytes:
        attribute = self._schema.AttributeProto(name=name, **{FIELDS[name]: value})
        encoded: bytes = self._schema.Node(attr=[attribute]).SerializeToString()
        return encoded

    def _group_names(self, operation: Operation) -> dict[int, str]:
        """Number of each rank's group, as text; of all ranks 0."""
        work = operation.work
        if not isinstance(work, Collective) or isinstance(work, Transfer):
            return {}
        if work.collective not in COLLECTIVE_NUMBER:
            expected = ", ".join(COLLECTIVES)
            raise InputError("collective has no counterpart in Chakra", got=work.collective, expected=expected)
        groups = np.zeros(self._n, dtype=np.int64) if work.groups is None else work.groups
        present = np.ones(self._n, dtype=bool) if operation.ranks is None else operation.ranks
        names = {}
        for group in np.unique(groups[present]).tolist():
            members = tuple(np.flatnonzero((groups == group) & present).tolist())
            number = 0 if len(members) == self._n else self._group_of.setdefault(members, len(self._group_of) + 1)
            names.update(dict.fromkeys(members, str(number)))
        return names


def _flop(operation: Operation, rank: int) -> int:
    """Floating-point operations of a rank; of memory-bound kernels one per byte.

    Attention takes 2 (D + Dv) per pair and head forward, and 2.5 times that backward.
    """
    work = operation.work
    if isinstance(work, Attention):
        forward = 2 * (work.head_dim + work.v_head_dim) * work.heads * work.batch * _of(work.lowering.pairs, rank)
        return forward if work.direction == "forward" else forward * 5 // 2
    if isinstance(work, Gemm):
        return sum(2 * _of(work.m, rank) * n * k for n, k in work.shapes)
    return _touched_bytes(operation, rank)


def _touched_bytes(operation: Operation, rank: int) -> int:
    work = operation.work
    if isinstance(work, Elementwise) and work.lowering is None:
        return _of(work.bytes_read, rank) + _of(work.bytes_written, rank)
    return sum(_of(buffer.bytes, rank) for buffer in (*operation.reads, *operation.writes))


def _of(column: Column, rank: int) -> int:
    return column if isinstance(column, int) else int(column[rank])
