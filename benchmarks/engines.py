"""How quick the engines and the commands are: ``python -m benchmarks.engines [--json FILE] [--only NAME ...]``.

Every row is measured in a fresh process on one core, by processor time: commands as a whole, cases within theirs. On
an idle machine that is the time that passes, which is listed beside it. A target is a limit of the project; a missed
one is printed as missed and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Measured, python, run_fresh

DOCUMENTS = ["--mask", "document:histogram=@benchmarks/data/documents.csv,seed=0,causal=true"]
"""About 300 documents in 1600k tokens."""

LLAMA = ["--model", "llama-3.1-8b", "--json", "-"]


@dataclass(frozen=True)
class Benchmark:
    """One row: a command, what of its report counts, and the target (a rate is at least it, all else at most)."""

    name: str
    command: list[str]
    quantity: str
    target: float | None
    repeats: int = 3
    cores: int = 1

    def value(self, run: Measured) -> float:
        """The quantity: seconds, bytes, or a rate per second of something the case counts."""
        if self.quantity.endswith("/s"):
            return float(run[self.quantity.removesuffix("/s")]) / float(run["seconds"])
        return float(run[self.quantity])

    def holds(self, value: float) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return value >= self.target if self.quantity.endswith("/s") else value <= self.target


def _case(name: str) -> list[str]:
    return python("benchmarks.cases", name)


def _attnsim(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "import attnsim; attnsim.main()", *arguments]


BENCHMARKS = (
    Benchmark("max-plus, ring of 1,024", _case("maxplus-1024"), "seconds", 0.2, 5),
    Benchmark("max-plus, ring of 16,384", _case("maxplus-16384"), "seconds", 10.0, 2),
    Benchmark("max-plus, ring of 16,384, memory", _case("maxplus-16384"), "peak_rss_bytes", 200e6, 1),
    Benchmark("SimPy, ring of 256", _case("des-256"), "rank_operations/s", 150_000, 3),
    Benchmark("SimPy, ring of 1,024", _case("des-1024"), "rank_operations/s", None, 1),
    Benchmark("flows, synchronous rings of 256", _case("flows-synchronous"), "flow_starts/s", 20_000, 3),
    Benchmark("flows, random arrivals, 256 ranks", _case("flows-random"), "flow_starts/s", 2_000, 3),
    Benchmark("attnsim --help", _attnsim("--help"), "cpu_s", 0.3, 5),
    Benchmark(
        "compare, 8 GPUs, 128k tokens",
        _attnsim("compare", *LLAMA, "--gpus", "8", "--seq-len", "128k", "--topology", "dgx-h100"), "cpu_s", 1.5,
    ),
    Benchmark(
        "compare, 16 GPUs, 1M tokens",
        _attnsim("compare", *LLAMA, "--gpus", "16", "--seq-len", "1M", "--topology", "dgx-h100"), "cpu_s", 3.0,
    ),
    Benchmark(
        "compare, 64 GPUs, 300 documents",
        _attnsim("compare", *LLAMA, "--gpus", "64", "--seq-len", "1600k", "--topology", "dgx-h100", *DOCUMENTS),
        "wall_s", 5.0,
    ),
    Benchmark(
        "step of a 70B model, 512 GPUs",
        _attnsim("simulate", "--model", "llama-3.1-70b", "--json", "-", "--layers", "model", "--schedule", "ring",
                 "--gpus", "512", "--topology", "dgx-h100", "--seq-len", "128k", "--tp", "8", "--dp", "8", "--batch",
                 "8", "--zero", "3", "--checkpoint", "full", "--loss-chunks", "16"),
        "wall_s", 10.0, 1,
    ),
)  # fmt: skip


def run_all(benchmarks: Sequence[Benchmark], description: str | None) -> int:
    """Measure, print a table, write JSON; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write the measurements to FILE")
    parser.add_argument("--only", nargs="*", default=[], metavar="TEXT", help="rows whose name has one of these")
    options = parser.parse_args()
    chosen = [each for each in benchmarks if not options.only or any(text in each.name for text in options.only)]
    rows = [_measure(each) for each in chosen]
    _print(rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": _machine(), "rows": rows}, indent=1) + "\n")
    return 1 if any(row["met"] is False for row in rows) else 0


def _measure(benchmark: Benchmark) -> dict[str, Any]:
    run = run_fresh(benchmark.command, benchmark.repeats, benchmark.cores)
    value = benchmark.value(run)
    print(f"{benchmark.name}: {value:,.4g}", file=sys.stderr)
    return {
        "name": benchmark.name, "quantity": benchmark.quantity, "value": value, "target": benchmark.target,
        "met": benchmark.holds(value), "run": run,
    }  # fmt: skip


def _machine() -> dict[str, str]:
    cpu = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown")
    return {"cpu": cpu, "python": platform.python_version(), "system": platform.platform()}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "case",
        "quantity",
        "measured",
        "target",
        "met",
        "process: wall s",
        "cpu s",
        title=_machine()["cpu"],
        title_justify="left",
    )
    for row in rows:
        target = "" if row["target"] is None else f"{row['target']:,.4g}"
        met = {True: "yes", False: "NO", None: ""}[row["met"]]
        process = [f"{row['run'][name]:.2f}" for name in ("wall_s", "cpu_s")]
        table.add_row(row["name"], row["quantity"], f"{row['value']:,.4g}", target, met, *process)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(run_all(BENCHMARKS, __doc__))
