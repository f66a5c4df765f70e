"""Traces of a million operations, run inside a fresh process: ``python -m benchmarks.trace_cases NAME FOLDER``.

Eight ranks of 125,000 rows each: attention and merge on the compute lane beside exchanges on a communication lane, as a
ring's. ``write-NAME`` makes the timeline and times only the writing; ``read-NAME`` reads what was written.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import own_peak_rss_bytes
from simulator.chakra.export import export_chakra
from simulator.chakra.load import load_chakra
from simulator.engines.costs import Costs
from simulator.program.operations import Buffer, Column, Elementwise, Exchange, Operation
from simulator.program.program import Program
from simulator.program.rings import Ring
from simulator.program.setup import Ranks
from simulator.traced.what_if import Changes, ask
from traces.kineto import read_recording
from traces.launches import Launches, TraceDetails
from traces.perfetto import write_traces
from traces.sources import RECORDS
from traces.summary import summarise
from traces.timeline import OperationInfo, Timeline

RANKS, ROWS = 8, 1_000_000
KINDS = (("exchange", "communication"), ("attention_forward", "compute"), ("merge", "compute"))


def million() -> tuple[Timeline, TraceDetails]:
    """The timeline, and launches of all its rows."""
    operations = ROWS // RANKS
    number = np.arange(operations)
    infos = tuple(
        OperationInfo(i, f"{KINDS[i % 3][0]} {i // 3}", KINDS[i % 3][0], "forward", i // 3, KINDS[i % 3][1])
        for i in range(operations)
    )
    start = (number // 3) * 30_000 + np.where(number % 3 == 2, 20_000, 0)
    end = start + np.array([25_000, 20_000, 8_000])[number % 3]
    lane, sent = (number % 3 == 0).astype(np.int64), np.where(number % 3 == 0, 1 << 20, 0)
    rank = np.repeat(np.arange(RANKS), operations)
    columns = [np.tile(column, RANKS) for column in (start, end)]
    rest = [np.tile(column, RANKS) for column in (lane, number, sent)]
    timeline = Timeline(infos, ("compute", "comm:ring"), RANKS, *columns, rank, *rest)
    called, returned = (np.maximum(timeline.start_ns - before_ns, 0) for before_ns in (9_000, 5_000))
    return timeline, TraceDetails(Launches(called, returned))


class OneCost(Costs):
    """All operations take as long."""

    def host_ns(self, operation: Operation) -> Column:
        """Nothing."""
        return 0

    def device_ns(self, operation: Operation) -> Column:
        """Ten microseconds."""
        return 10_000


def million_nodes() -> Program:
    """A ring's hops and computation on eight ranks: 10^6 nodes."""
    ring, program = Ring("ring", 1, RANKS, RANKS), Program(Ranks(RANKS, RANKS))
    held = Buffer(0, "held", 1, 1, 1, 1, "bf16", 2)
    for step in range(ROWS // RANKS // 4):
        arriving = Buffer(step + 1, "held", 1, 1, 1, 1, "bf16", 2)
        program.operation(
            Operation(3 * step, "exchange", ring.lane, "forward", step, (held,), (arriving,), Exchange(ring, 2))
        )
        for i, kind in enumerate(("attention_forward", "merge")):
            work = Elementwise("merge", 2, 2)
            program.operation(Operation(3 * step + 1 + i, kind, "compute", "forward", step, (held,), (), work))
        held = arriving
    return program


def writing(name: str, folder: Path) -> Callable[[], object]:
    """What is to be timed, its input made."""
    if name == "chakra":
        program = million_nodes()
        return lambda: export_chakra(program, OneCost(), folder / "chakra")
    timeline, details = million()
    if name in ("kineto", "kineto-launches"):
        return lambda: write_traces(timeline, folder / name, details if name.endswith("launches") else None)
    return lambda: RECORDS[f".{name}"][1](timeline, folder / f"t.{name}")


def reading(name: str, folder: Path) -> Callable[[], object]:
    """Likewise."""
    if name == "chakra":
        return lambda: load_chakra(folder / "chakra")
    if name in ("kineto", "kineto-launches"):
        return lambda: read_recording(folder / name)
    return lambda: RECORDS[f".{name}"][0](folder / f"t.{name}")


def using(name: str, folder: Path) -> Callable[[], object]:
    """Summary or what-if of the recording with launches."""
    recording = read_recording(folder / "kineto-launches")
    return lambda: summarise(recording) if name == "summary" else ask(recording, Changes(link=2))


def main() -> None:
    """Run one case; what it took is the last line printed."""
    (verb, _, name), folder = sys.argv[1].partition("-"), Path(sys.argv[2])
    run = {"write": writing, "read": reading, "use": using}[verb](name, folder)
    before = own_peak_rss_bytes()
    begin, cpu_begin = time.perf_counter(), time.process_time()
    run()
    seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu_begin
    report: dict[str, Any] = {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "peak_rss_bytes": own_peak_rss_bytes(),
        "before_bytes": before,
    }
    report["file_bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(json.dumps(report))


if __name__ == "__main__":
    main()
