"""Microbenchmarks of one GPU: ``python -m validators.bench --records FILE --minutes 7``.

The same as ``attnsim calibrate --measure``, for nodes that have nothing but PyTorch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from traces.records import RecordFile, latest, open_records, read_folder
from validators.bench.plan import Case
from validators.bench.runner import full_plan, run_plan

RESTED_CLOCK, SHORT_S = 0.98, 5e-3
"""Share of the highest clock that a rested GPU has; calls up to the second are too short to lower it themselves."""


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", required=True, help="file of records, appended to")
    parser.add_argument("--minutes", type=float, default=8.0, help="no case is begun after them")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th of the cases that are missing")
    parser.add_argument("--only", default="", help="kinds, kernels, `layers`, `fresh`, separated by commas, in order")
    parser.add_argument("--unrested", default="", help="folder of records: first those taken at a lowered clock, again")
    parser.add_argument("--again", action="store_true", help="measure also what is recorded")
    options = parser.parse_args()
    start = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = _chosen(full_plan(), list(filter(None, options.only.split(","))))
    if options.unrested:
        again = unrested_keys(read_folder(Path(options.unrested)))
        plan = [*(case for case in full_plan() if case.key in again), *(case for case in plan if case.key not in again)]
    first, count = (int(part) for part in options.shard.split("/"))
    left = options.minutes - (time.monotonic() - start) / 60
    summary = run_plan(
        plan, open_records(options.records), device, minutes=left, shard=(first, count), again=options.again,
        report=lambda line: print(f"{time.monotonic() - start:6.1f}s {line}", flush=True),
    )  # fmt: skip
    print(summary)


def _chosen(plan: list[Case], wanted: list[str]) -> list[Case]:
    """The cases of each name in turn; all of them where none is named."""
    chosen = {case.key: case for name in wanted for case in plan if name in _names(case)}
    return list(chosen.values()) if wanted else plan


def unrested_keys(files: Sequence[RecordFile]) -> set[str]:
    """Cases whose newest record began at a clock that the power limit had lowered: what ran before was not over."""
    found = set()
    for record in latest(files):
        if record.kind == "attention" and record.samples_s and record.median_s < SHORT_S:
            highest = max(float(m.get("max_sm_clock_mhz", 0)) for file in files for m in file.machines.values())
            if record.conditions.get("min_sm_clock_mhz", highest) < RESTED_CLOCK * highest:
                found.add(record.key)
    return found


def _names(case: Case) -> set[object]:
    """What a case can be chosen by."""
    of_layers = case.kind == "host_copy" or {"hidden", "form"} & set(case.parameters)
    fresh = "fresh" if case.parameters.get("fresh") else None
    chosen_by = (case.parameters.get(name) for name in ("kernel", "operation_kind"))
    return {case.kind, *chosen_by, "layers" if of_layers else None, fresh}


if __name__ == "__main__":
    main()
