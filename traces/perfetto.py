"""Chrome trace JSON, one file per rank, as Kineto writes it: for Perfetto, and for tools that read PyTorch profiles.

    row -> {"ph": "X", "pid": rank, "tid": lane, "ts": start, "dur": end - start}   in microseconds, 3 decimals

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
from traces.timeline import OperationInfo, Timeline

CHUNK_ROWS = 65_536
# Kineto's event category, and the prefix by which HTA knows it.
EVENT_OF = {"compute": ("kernel", ""), "communication": ("kernel", "ncclKernel "), "copy": ("gpu_memcpy", "Memcpy "),
            "host": ("cpu_op", "")}  # fmt: skip


class EventText(NamedTuple):
    """What the events of an operation have in common: up to the name, the arguments, and whether a device runs it."""

    head: str
    arguments: str
    on_device: bool


def write_traces(timeline: Timeline, folder: str | os.PathLike[str]) -> None:
    """Write ``rank0.json``, ``rank1.json``, ... into a folder, whole or not at all.

    Each file has a track per lane. Rows are written one after another, so memory holds one rank's indexes at most.

    Raises
    ------
    InputError
        Where the folder holds other files or cannot be written.
    """
    order = np.lexsort((timeline.end_ns, timeline.lane, timeline.start_ns, timeline.rank))
    bounds = np.searchsorted(timeline.rank[order], np.arange(timeline.n_ranks + 1))
    texts = [_event_text(info) for info in timeline.operations]

    def writer(rank: int) -> Writer:
        rows = order[bounds[rank] : bounds[rank + 1]]
        return lambda file: _write_rank(file, timeline, rank, rows, texts)

    write_folder_atomic(folder, {f"rank{rank}.json": writer(rank) for rank in range(timeline.n_ranks)})


def _write_rank(file: TextIO, timeline: Timeline, rank: int, rows: NDArray[np.intp], texts: list[EventText]) -> None:
    file.write(_preamble(timeline, rank))
    file.write('"traceEvents": [\n')
    file.write(",\n".join(json.dumps(event) for event in _metadata(timeline, rank, rows)))
    for first in range(0, len(rows), CHUNK_ROWS):
        file.writelines(_events(timeline, rank, rows[first : first + CHUNK_ROWS], texts))
    file.write("\n]}\n")


def _preamble(timeline: Timeline, rank: int) -> str:
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


def _metadata(timeline: Timeline, rank: int, rows: NDArray[np.intp]) -> Iterator[dict[str, object]]:
    """Names and order of the process and its tracks."""
    yield _named("process_name", rank, 0, {"name": f"rank {rank}"})
    yield _named("process_sort_index", rank, 0, {"sort_index": rank})
    for lane in np.unique(timeline.lane[rows]).tolist():
        yield _named("thread_name", rank, lane, {"name": timeline.lanes[lane]})
        yield _named("thread_sort_index", rank, lane, {"sort_index": lane})


def _named(name: str, pid: int, tid: int, args: dict[str, object]) -> dict[str, object]:
    return {"ph": "M", "ts": 0, "name": name, "pid": pid, "tid": tid, "args": args}


def _event_text(info: OperationInfo) -> EventText:
    category, prefix = EVENT_OF[info.category]
    name = info.name if info.name.startswith(prefix) else prefix + info.name
    args = {"operation": info.id, "step": info.step, "phase": info.phase, "kind": info.kind, "category": info.category}
    head = f',\n{{"ph": "X", "cat": "{category}", "name": {json.dumps(name)}'
    return EventText(head, json.dumps(args)[1:-1], info.category != "host")


def _events(timeline: Timeline, rank: int, rows: NDArray[np.intp], texts: list[EventText]) -> Iterator[str]:
    columns = (timeline.operation, timeline.lane, timeline.start_ns, timeline.end_ns, timeline.bytes)
    for operation, lane, start_ns, end_ns, n_bytes in zip(*(column[rows].tolist() for column in columns), strict=True):
        text = texts[operation]
        place = f'"device": {rank}, "stream": {lane}, ' if text.on_device else ""
        yield (
            f'{text.head}, "pid": {rank}, "tid": {lane}, "ts": {_us(start_ns)}, "dur": {_us(end_ns - start_ns)}, '
            f'"args": {{{place}"bytes": {n_bytes}, {text.arguments}}}}}'
        )


def _us(time_ns: int) -> str:
    """Microseconds with all their nanoseconds.

    >>> _us(1_234_005)
    '1234.005'
    """
    return f"{time_ns // 1000}.{time_ns % 1000:03d}"
