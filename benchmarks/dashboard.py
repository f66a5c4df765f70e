"""How quickly the dashboard answers: ``python -m benchmarks.dashboard [--json FILE]``.

A slider's answer is ranking, timeline, waterfall and memory, from the form to what is sent to the page; each slider is
moved over several notches, and the slowest answer counts. The project allows 0.3 s up to 16 GPUs, and 2 s for a
crossover map. Seconds are the process's own on one core.
"""

from __future__ import annotations

import sys

from benchmarks.engines import Benchmark, run_all
from benchmarks.measure import python

ANSWER_S, MAP_S = 0.3, 2.0
PARTS = ("flop", "hbm", "nvlink", "pcie", "net")


def benchmarks() -> tuple[Benchmark, ...]:
    """Sliders on two nodes and on one, then what else a user does, then maps."""

    def case(name: str, *, gpus: str = "16", seq_len: str = "128k") -> list[str]:
        return python("benchmarks.dashboard_cases", name, f"gpus={gpus}&seq_len={seq_len}")

    rows = [Benchmark(f"slider {part}, 16 GPUs, 128k tokens", case(part), "seconds", ANSWER_S) for part in PARTS]
    rows += [
        Benchmark("slider flop, 16 GPUs, 1M tokens", case("flop", seq_len="1M"), "seconds", ANSWER_S),
        Benchmark("slider net, 16 GPUs, 1M tokens", case("net", seq_len="1M"), "seconds", ANSWER_S),
        Benchmark("slider nvlink, 8 GPUs, 128k tokens", case("nvlink", gpus="8"), "seconds", ANSWER_S),
        Benchmark("another schedule, 16 GPUs, 128k tokens", case("schedule"), "seconds", ANSWER_S),
        Benchmark("first answer, 16 GPUs, 128k tokens", case("first"), "seconds", None),
        Benchmark("first crossover map, 8 GPUs, 128k tokens", case("map", gpus="8"), "seconds", MAP_S, 1),
        Benchmark("first crossover map, 16 GPUs, 128k tokens", case("map"), "seconds", MAP_S, 1),
    ]
    return tuple(rows)


if __name__ == "__main__":
    sys.exit(run_all(benchmarks(), __doc__))
