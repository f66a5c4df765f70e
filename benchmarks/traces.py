"""How quick traces of 10^6 operations are written and read: ``python -m benchmarks.traces [--json FILE]``.

Targets are those of the project: export in under 10 s, import in under 30 s, in bounded memory. Seconds are the
process's own on one core (nothing here waits for anything but the disk), as the machine may be shared.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.engines import Benchmark, run_all
from benchmarks.measure import python

FORMATS = ("kineto", "kineto-launches", "jsonl", "parquet", "npz", "chakra")
EXPORT_S, IMPORT_S = 10.0, 30.0


def benchmarks(folder: Path) -> tuple[Benchmark, ...]:
    """Writing before reading, as each reads what was written."""

    def case(name: str) -> list[str]:
        return python("benchmarks.trace_cases", name, str(folder))

    rows = []
    for name in FORMATS:
        rows.append(Benchmark(f"write {name}", case(f"write-{name}"), "cpu_s", EXPORT_S, 1))
        rows.append(Benchmark(f"read {name}", case(f"read-{name}"), "cpu_s", IMPORT_S, 1))
    rows.append(Benchmark("read kineto-launches, memory", case("read-kineto-launches"), "peak_rss_bytes", 2e9, 1))
    rows += [Benchmark(name, case(f"use-{name}"), "cpu_s", None, 1) for name in ("summary", "what-if")]
    return tuple(rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(run_all(benchmarks(Path(temporary)), __doc__))
