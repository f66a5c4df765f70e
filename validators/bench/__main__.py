"""Microbenchmarks of one GPU: ``python -m validators.bench --records FILE --minutes 7``.

The same as ``attnsim calibrate --measure``, for nodes that have nothing but PyTorch.
"""

from __future__ import annotations

import argparse
import time

import torch

from traces.records import open_records
from validators.bench.plan import Case
from validators.bench.runner import full_plan, run_plan


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", required=True, help="file of records, appended to")
    parser.add_argument("--minutes", type=float, default=8.0, help="no case is begun after them")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th of the cases that are missing")
    parser.add_argument("--only", default="", help="kinds, kernels or `layers`, separated by commas")
    parser.add_argument("--again", action="store_true", help="measure also what is recorded")
    options = parser.parse_args()
    start = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = set(filter(None, options.only.split(",")))
    plan = [case for case in full_plan() if not wanted or wanted & _names(case)]
    first, count = (int(part) for part in options.shard.split("/"))
    left = options.minutes - (time.monotonic() - start) / 60
    summary = run_plan(
        plan, open_records(options.records), device, minutes=left, shard=(first, count), again=options.again,
        report=lambda line: print(f"{time.monotonic() - start:6.1f}s {line}", flush=True),
    )  # fmt: skip
    print(summary)


def _names(case: Case) -> set[object]:
    """What a case can be chosen by."""
    of_layers = case.kind == "host_copy" or {"hidden", "form"} & set(case.parameters)
    return {case.kind, case.parameters.get("kernel"), "layers" if of_layers else None}


if __name__ == "__main__":
    main()
