"""Chrome trace JSON, one file per rank, as Kineto writes it: for Perfetto, and for tools that read PyTorch profiles.

    row     -> {"ph": "X", "pid": rank, "tid": lane, "ts": start, "dur": end - start}   in microseconds, 3 decimals
    launch  -> {"ph": "X", "cat": "cuda_runtime"} on the host's track, and a flow "ac2g" from it to the row
    memory  -> {"ph": "C", "name": "memory"}

Three decimals are nanoseconds, so that nothing is rounded. Holistic Trace Analysis (HTA 0.5.0, hta/utils/utils.py)
finds the rank by a regular expression that needs the space in ``"rank": 0``, takes what has ``args.stream`` for work of
the device, so that host rows have none, and tells communication (``^nccl.*Kernel``) and copies (``^Memcpy``) from
computation by the name alone; hence the name prefixes below.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from traces.atomic import Writer, write_folder_atomic
from traces.errors import InputError
from traces.invariants import MAX_RANKS
from traces.launches import TraceDetails
from traces.nccl_arguments import communication_arguments, kernel_name
from traces.timeline import OperationInfo, Timeline

CHUNK_ROWS = 65_536
HOST_PID = MAX_RANKS
"""Processes of hosts are numbered from here, those of devices by their rank; a host's one thread has its number."""
FIRST_STREAM = 7
"""Lanes are numbered from here, as PyTorch's streams are. Perfetto takes thread 0 for none, and puts what is on it on
the thread that has the process's number, where it overlaps what is there and is dropped."""
FIRST_CORRELATION = 1 << 16
"""Numbers over 16 bits: HTA 0.5.0 with pandas 3 puts positions of events into a column of their correlations' width."""
CALLS = {"compute": "cudaLaunchKernel", "communication": "cudaLaunchKernelExC", "copy": "cudaMemcpyAsync"}


class EventText(NamedTuple):
    """What the events of an operation have in common: up to the name, the arguments, and the call that launches it."""

    head: str
    arguments: str
    call: str | None


def write_traces(timeline: Timeline, folder: str | os.PathLike[str], details: TraceDetails | None = None) -> None:
    """Write ``rank0.json``, ``rank1.json``, ... into a folder, whole or not at all.

    Each file has a track per lane. Rows are written one after another, so memory holds one rank's indexes at most.

    Parameters
    ----------
    details : launches (and flows from them to the rows), arguments of communication, and memory, where known.

    Raises
    ------
    InputError
        Where the folder holds other files or cannot be written, or launches are not one per row.
    """
    details = details or TraceDetails()
    known = None if details.launches is None else len(details.launches.start_ns)
    if known not in (None, len(timeline)):
        raise InputError("launches of a trace", got=known, expected=f"{len(timeline)}, one per row")
    order = np.lexsort((timeline.end_ns, timeline.lane, timeline.start_ns, timeline.rank))
    bounds = np.searchsorted(timeline.rank[order], np.arange(timeline.n_ranks + 1))
    texts = [_event_text(info) for info in timeline.operations]

    def writer(rank: int) -> Writer:
        rows = order[bounds[rank] : bounds[rank + 1]]
        return lambda file: _RankWriter(timeline, details, texts, rank).write(file, rows)

    write_folder_atomic(folder, {f"rank{rank}.json": writer(rank) for rank in range(timeline.n_ranks)})


class _RankWriter:
    """Writes one rank's file."""

    def __init__(self, timeline: Timeline, details: TraceDetails, texts: list[EventText], rank: int) -> None:
        self._timeline, self._details, self._texts, self._rank = timeline, details, texts, rank

    def write(self, file: TextIO, rows: NDArray[np.intp]) -> None:
        """Everything, to an open file."""
        file.write(preamble(self._timeline, self._rank))
        file.write('"traceEvents": [\n')
        file.write(",\n".join(json.dumps(event) for event in self._metadata(rows)))
        for first in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[first : first + CHUNK_ROWS]
            file.writelines(self._events(chunk))
            file.writelines(self._launches(chunk))
        file.writelines(self._waits())
        file.writelines(self._memory())
        file.write("\n]}\n")

    def _metadata(self, rows: NDArray[np.intp]) -> Iterator[dict[str, object]]:
        """Names and order of the processes and their tracks."""
        rank, timeline = self._rank, self._timeline
        yield _named("process_name", rank, 0, {"name": f"rank {rank}"})
        yield _named("process_sort_index", rank, 0, {"sort_index": rank})
        for lane in np.unique(timeline.lane[rows]).tolist():
            yield _named("thread_name", rank, FIRST_STREAM + lane, {"name": timeline.lanes[lane]})
            yield _named("thread_sort_index", rank, FIRST_STREAM + lane, {"sort_index": lane})
        if self._details.launches is not None:
            yield _named("process_name", HOST_PID + rank, 0, {"name": f"host of rank {rank}"})
            yield _named("process_sort_index", HOST_PID + rank, 0, {"sort_index": rank})
            yield _named("thread_name", HOST_PID + rank, HOST_PID + rank, {"name": "host"})

    def _events(self, rows: NDArray[np.intp]) -> Iterator[str]:
        timeline, rank, launches = self._timeline, self._rank, self._details.launches
        columns = (timeline.operation, timeline.lane + FIRST_STREAM, timeline.start_ns, timeline.end_ns, timeline.bytes)
        values = zip(rows.tolist(), *(column[rows].tolist() for column in columns), strict=True)
        for row, operation, stream, start_ns, end_ns, n_bytes in values:
            text = self._texts[operation]
            place = f'"device": {rank}, "stream": {stream}, ' if text.call else ""
            if launches is not None and text.call:
                place += f'"correlation": {FIRST_CORRELATION + row}, '
            yield (
                f'{text.head}, "pid": {rank}, "tid": {stream}, "ts": {_us(start_ns)}, "dur": {_us(end_ns - start_ns)}, '
                f'"args": {{{place}"bytes": {n_bytes}, {self._communication(operation)}{text.arguments}}}}}'
            )

    def _launches(self, rows: NDArray[np.intp]) -> Iterator[str]:
        """The host's calls, and flows from them to their rows."""
        timeline, launches, rank = self._timeline, self._details.launches, self._rank
        if launches is None:
            return
        streams, thread = timeline.lane + FIRST_STREAM, HOST_PID + rank
        columns = (timeline.operation, streams, timeline.start_ns, launches.start_ns, launches.end_ns)
        values = zip((rows + FIRST_CORRELATION).tolist(), *(column[rows].tolist() for column in columns), strict=True)
        for number, operation, stream, start_ns, call_ns, return_ns in values:
            call = self._texts[operation].call
            if call is None or call_ns < 0:
                continue
            host = f'"pid": {thread}, "tid": {thread}, "ts": {_us(call_ns)}'
            flow = f'"id": {number}, "cat": "ac2g", "name": "ac2g"'
            yield (
                f',\n{{"ph": "X", "cat": "cuda_runtime", "name": "{call}", {host}, "dur": {_us(return_ns - call_ns)}, '
                f'"args": {{"correlation": {number}}}}}'
                f',\n{{"ph": "s", {flow}, {host}}}'
                f',\n{{"ph": "f", {flow}, "pid": {rank}, "tid": {stream}, "ts": {_us(start_ns)}, "bp": "e"}}'
            )

    def _waits(self) -> Iterator[str]:
        """What streams wait for, as CUPTI records cudaStreamWaitEvent."""
        waits, timeline, rank = self._details.waits, self._timeline, self._rank
        if waits is None:
            return
        mine = timeline.rank[waits.row] == rank
        streams = timeline.lane + FIRST_STREAM
        columns = (waits.host_ns, streams[waits.row], streams[waits.source], waits.source)
        for host_ns, stream, source_stream, source in zip(*(column[mine].tolist() for column in columns), strict=True):
            yield (
                f',\n{{"ph": "X", "cat": "cuda_sync", "name": "Stream Wait Event", "pid": {rank}, "tid": {stream}, '
                f'"ts": {_us(host_ns)}, "dur": 0.000, "args": {{"cuda_sync_kind": "Stream Wait Event", '
                f'"device": {rank}, "stream": {stream}, "wait_on_stream": {source_stream}, '
                f'"wait_on_cuda_event_record_corr_id": {FIRST_CORRELATION + source}}}}}'
            )

    def _memory(self) -> Iterator[str]:
        memory = self._details.memory
        if memory is None:
            return
        mine = memory.rank == self._rank
        for time_ns, n_bytes in zip(memory.time_ns[mine].tolist(), memory.bytes[mine].tolist(), strict=True):
            yield (
                f',\n{{"ph": "C", "name": "memory", "pid": {self._rank}, "tid": 0, "ts": {_us(time_ns)}, '
                f'"args": {{"bytes": {n_bytes}}}}}'
            )

    def _communication(self, operation: int) -> str:
        found = self._details.communication.get(operation)
        if found is None:
            return ""
        kind = self._timeline.operations[operation].kind
        return json.dumps(communication_arguments(kind, found, self._rank))[1:-1] + ", "


def preamble(timeline: Timeline, rank: int) -> str:
    """What stands before the events."""
    fields = {
        "schemaVersion": 1,
        "deviceProperties": [],
        "distributedInfo": {"backend": "nccl", "rank": rank, "world_size": timeline.n_ranks},
        "displayTimeUnit": "ms",
        "baseTimeNanoseconds": 0,
        "traceName": f"rank{rank}.json",
        "provenance": dict(timeline.provenance),
    }
    return "{" + "".join(f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in fields.items())


def _named(name: str, pid: int, tid: int, args: dict[str, object]) -> dict[str, object]:
    return {"ph": "M", "ts": 0, "name": name, "pid": pid, "tid": tid, "args": args}


def _event_text(info: OperationInfo) -> EventText:
    category = {"host": "cpu_op", "copy": "gpu_memcpy"}.get(info.category, "kernel")
    args = {"operation": info.id, "step": info.step, "phase": info.phase, "kind": info.kind, "category": info.category}
    head = f',\n{{"ph": "X", "cat": "{category}", "name": {json.dumps(kernel_name(info))}'
    return EventText(head, json.dumps(args)[1:-1], CALLS.get(info.category))


def _us(time_ns: int) -> str:
    """Microseconds with all their nanoseconds.

    >>> _us(1_234_005)
    '1234.005'
    """
    return f"{time_ns // 1000}.{time_ns % 1000:03d}"
