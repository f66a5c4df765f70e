"""How quick plans are: ``python -m benchmarks.plans [--json FILE] [--only NAME ...]``.

Every row is a whole ``attnsim plan`` in a fresh process: the time that passes with two processes on two cores, which
others who work on the machine lengthen, and the processor time of the same plan in one process. The number of distinct
legal candidates is printed beside; `main` fails where a row has fewer than its name says.
"""

from __future__ import annotations

import sys

from benchmarks.engines import Benchmark, run_all
from simulator.planning.space import list_candidates
from simulator.request import SimulationRequest

SMALL = {"model": "llama-3.1-8b", "seq-len": "128k", "gpus": 16, "batch": 4}
LARGE = {"model": "llama-3.1-70b", "seq-len": "1M", "gpus": 1024, "batch": 32}
ROOMY = {"model": "llama-3.1-8b", "seq-len": "256k", "gpus": 1024, "batch": 32}
"""Most candidates of `LARGE` do not fit; of `ROOMY` most do."""

CASES = {
    "8B step, 128k, 16 GPUs, 750 candidates": (SMALL, 750),
    "70B step, 1M, 1,024 GPUs, 1,596 candidates": (LARGE, 1596),
    "8B step, 256k, 1,024 GPUs, 1,572 candidates": (ROOMY, 1572),
}
TARGET_S = 30.0


def _plan(options: dict[str, object], workers: int) -> list[str]:
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-c", "import attnsim; attnsim.main()", "plan", *given, "--topology", "dgx-h100",
            "--workers", str(workers), "--json", "-"]  # fmt: skip


BENCHMARKS = tuple(
    benchmark
    for name, (options, _) in CASES.items()
    for benchmark in (
        Benchmark(f"{name}, two processes", _plan(options, 2), "wall_s", TARGET_S, 1, 2),
        Benchmark(f"{name}, one process", _plan(options, 1), "cpu_s", None, 1),
    )
)


def count_candidates(options: dict[str, object]) -> int:
    """Distinct legal candidates of a plan."""
    given = {name.replace("-", "_"): value for name, value in options.items()}
    found = list_candidates(SimulationRequest(**given, topology="dgx-h100", layers="model"))  # type: ignore[arg-type]
    return len({str(each) for each in found if not each.reason})


def main() -> int:
    """Measure."""
    for name, (options, expected) in CASES.items():
        found = count_candidates(options)
        print(f"{name}: {found} distinct legal candidates", file=sys.stderr)
        if found < expected:
            return 1
    return run_all(BENCHMARKS, __doc__)


if __name__ == "__main__":
    sys.exit(main())
