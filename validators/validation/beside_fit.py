"""How much of its rate communication over NVLink keeps beside an attention kernel, from runs with timed operations.

Of a hop that takes a on its own, began when all its ranks had come, took t, and for o of that had attention beside it,

    share = (a - (t - o)) / o

The first hop of a call is left out, as its host is late; so are hops that are short, or mostly alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cost_models.hardware import HardwareProfile
from simulator.costing import CostModel
from simulator.program.operations import Attention, Exchange
from simulator.recording import build_program
from simulator.schedules import parse_schedule
from traces.timeline import Timeline
from validators.validation.forecast import GpuPredictor
from validators.validation.runs import Configuration, MeasuredRun, RunFolder

SHORT_S, BESIDE, FEWEST = 5e-4, 0.5, 6
"""Least time alone of a hop, least part of it beside attention, and fewest such hops of a kernel."""
Found = dict[str, list[float]]


def fit_beside(folders: Sequence[RunFolder], profile: HardwareProfile, topology: str | None) -> Mapping[str, float]:
    """Median share by KERNEL_DIRECTION (`InterferenceTerms.communication_share`).

    A direction that no hop was beside takes that of the other.
    """
    found, predictor = Found(), GpuPredictor(profile, topology)
    for folder in folders:
        for run in folder.runs.values():
            several = run.outcome == "measured" and run.configuration.ranks > 1
            timeline = folder.timeline(run) if several and predictor.link_kind(run) == "nvlink" else None
            if timeline is not None and isinstance(run.configuration, Configuration):
                _add(found, run, run.configuration, timeline, predictor)
    shares = {
        name: min(max(float(np.median(each)), 0.05), 1.0) for name, each in found.items() if len(each) >= FEWEST
    }  # fmt: skip
    for name in list(shares):
        kernel, _, direction = name.rpartition("_")
        other = "forward" if direction == "backward" else "backward"
        shares.setdefault(f"{kernel}_{other}", shares[name])
    return shares


def _add(found: Found, run: MeasuredRun, c: Configuration, measured: Timeline, predictor: GpuPredictor) -> None:
    """Each hop of a run that has attention beside it."""
    operations = build_program(parse_schedule(run.schedule), c.setup, c.pass_).operations
    resolved = predictor.request(c, run.schedule, machine=run.machine).resolve()
    costs = CostModel(resolved.topology, predictor.profile, c.kernel)
    attention = {each.id: each.work.direction for each in operations if isinstance(each.work, Attention)}
    for hop in [each for each in operations if isinstance(each.work, Exchange)][1:]:
        alone_s = float(np.max(costs.device_ns(hop))) / 1e9
        rows = measured.operation == hop.id
        if alone_s < SHORT_S or not rows.any():
            continue
        begin, end = measured.start_ns[rows].max(), measured.end_ns[rows].max()
        beside_s, direction = _beside(measured, attention, begin, end)
        if beside_s >= BESIDE * alone_s:
            share = (alone_s - ((end - begin) / 1e9 - beside_s)) / beside_s
            found.setdefault(f"{c.kernel}_{direction}", []).append(share)


def _beside(measured: Timeline, attention: Mapping[int, str], begin: int, end: int) -> tuple[float, str]:
    """The longest that an attention operation of any rank ran meanwhile, in seconds, and its direction."""
    rows = np.flatnonzero(np.isin(measured.operation, list(attention)))
    if not len(rows):
        return 0.0, ""
    together = np.minimum(measured.end_ns[rows], end) - np.maximum(measured.start_ns[rows], begin)
    most = int(np.argmax(together))
    return max(float(together[most]), 0.0) / 1e9, attention[int(measured.operation[rows[most]])]
