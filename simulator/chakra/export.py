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
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from simulator.engines.costs import Costs
from simulator.engines.planner import Planner
from simulator.program.operations import Attention, Collective, Column, Elementwise, Exchange, Gemm, Operation, Transfer
from simulator.program.program import Program
from traces.atomic import write_folder_atomic
from traces.chakra.files import encode_nodes
from traces.chakra.schema import COLL, COLLECTIVES, COMP, RECV, SEND, load_schema
from traces.errors import InputError

COLLECTIVE_NUMBER = {
    "all_reduce": 0, "reduce": 1, "all_gather": 2, "gather": 3, "scatter": 4, "broadcast": 5, "all_to_all": 6,
    "all_to_all_v": 6, "reduce_scatter": 7, "barrier": 9,
}  # fmt: skip
GROUPS_FILE = "comm_groups.json"
OWNED = r".+\.\d+\.et|comm_groups\.json"


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


class _Pieces:
    """A rank's file, made while it is written."""

    def __init__(self, exporter: _Exporter, rank: int) -> None:
        self._exporter, self._rank = exporter, rank

    def __iter__(self) -> Iterator[bytes]:
        return encode_nodes(self._exporter.nodes(self._rank), producer="attnsim", rank=str(self._rank))


class _Exporter:
    """Nodes of all ranks."""

    def __init__(self, program: Program, costs: Costs) -> None:
        self._n = program.setup.n_ranks
        self._tasks = Planner(self._n, costs, None).plan(program)
        self._schema = load_schema()
        self._group_of: dict[tuple[int, ...], int] = {}
        self._names = [self._group_names(task.operation) for task in self._tasks]

    @property
    def groups(self) -> dict[str, list[int]]:
        """Members of the groups that are not all ranks, by number."""
        return {str(number): list(members) for members, number in self._group_of.items()}

    def nodes(self, rank: int) -> Iterator[Any]:
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
            made = list(self._made(operation, rank, number, task.device_ns[rank], names))
            for node in made:
                node.ctrl_deps.extend(control)
                node.data_deps.extend(sorted(waited.difference(control)))
                yield node
            number += len(made)
            last_ids[operation.id] = on_lane[operation.lane] = tuple(node.id for node in made)

    def _made(
        self, operation: Operation, rank: int, number: int, duration_ns: int, names: Mapping[int, str]
    ) -> Iterator[Any]:
        work = operation.work
        if isinstance(work, (Exchange, Transfer)):
            to = work.ring.to if isinstance(work, Exchange) else work.to
            yield from self._messages(operation, to, rank, number, duration_ns)
        elif isinstance(work, Collective):
            node = self._node(operation, number, COLL, operation.kind, duration_ns)
            node.attr.add(name="comm_type", int64_val=COLLECTIVE_NUMBER[work.collective])
            node.attr.add(name="comm_size", int64_val=_of(work.bytes, rank))
            node.attr.add(name="pg_name", string_val=names[rank])
            yield node
        else:
            node = self._node(operation, number, COMP, operation.kind, duration_ns)
            node.attr.add(name="num_ops", int64_val=_flop(operation, rank))
            node.attr.add(name="tensor_size", uint64_val=_touched_bytes(operation, rank))
            yield node

    def _messages(self, operation: Operation, to: Any, rank: int, number: int, duration_ns: int) -> Iterator[Any]:
        """A SEND, a RECV, or both; a rank that does neither has a COMP of no length to hang dependencies on."""
        sources = np.flatnonzero((to == rank) & (np.arange(self._n) != rank))
        ends = []
        if to[rank] != rank:
            ends.append((SEND, rank, int(to[rank])))
        ends += [(RECV, int(source), rank) for source in sources if operation.ranks is None or operation.ranks[source]]
        for i, (kind, source, target) in enumerate(ends):
            node = self._node(operation, number + i, kind, "send" if kind == SEND else "receive", duration_ns)
            assert isinstance(operation.work, (Exchange, Collective))
            node.attr.add(name="comm_src", int32_val=source)
            node.attr.add(name="comm_dst", int32_val=target)
            node.attr.add(name="comm_size", int64_val=_of(operation.work.bytes, source))
            node.attr.add(name="comm_tag", int32_val=operation.id)
            yield node
        if not ends:
            yield self._node(operation, number, COMP, operation.kind, 0)

    def _node(self, operation: Operation, number: int, kind: int, verb: str, duration_ns: int) -> Any:
        node = self._schema.Node(
            id=number, name=f"{verb} {operation.phase} {operation.step}", type=kind,
            duration_micros=round(duration_ns / 1000),
        )  # fmt: skip
        node.attr.add(name="is_cpu_op", bool_val=False)
        node.attr.add(name="duration_ns", uint64_val=duration_ns)
        node.attr.add(name="kind", string_val=operation.kind)
        node.attr.add(name="lane", string_val=operation.lane)
        return node

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
