"""What isolated calls have beyond the terms that microbenchmarks fit, from runs that are not those judged.

    isolated    median over runs that wait for the host of
                (time to issue the call) / (sum of what its operations take to issue)
    its error   what (n + 1) 9/10 of n configurations stay within of that, relative
    call_error  least e for which (n + 1) 9/10 of n configurations that the device limits lie, with all their schedules,
                in  time / (1 + s) ... time (1 + s),  s^2 = s_terms^2 + e^2

That is the quantile of split conformal prediction: on configurations drawn alike it holds 90 %, whatever the errors
are made of (Vovk et al. 2005; Lei et al. 2018, section 2.2). Schedules of one configuration err alike, so that
configurations count, not runs. Runs that judge are to be drawn from another seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cost_models.hardware import HardwareProfile
from simulator.costing import CostModel
from simulator.engines.hosts import HostTimes
from simulator.recording import build_program
from simulator.schedules import parse_schedule
from traces.errors import InputError
from validators.validation.forecast import GpuPredictor
from validators.validation.runs import MeasuredRun, RunFolder
from validators.validation.step_configuration import StepConfiguration

FloatArray = NDArray[np.float64]

LEVEL = 0.9
FEWEST = 10
"""Runs below which nothing is fitted."""


@dataclass(frozen=True)
class CallTerms:
    """Terms of isolated calls, from so many runs (`HostCosts`, `HardwareProfile.call_error`)."""

    isolated: float
    isolated_error: float
    call_error: float
    runs: int


def fit_calls(folders: Sequence[RunFolder], profile: HardwareProfile, topology: str) -> CallTerms:
    """Terms of folders' runs.

    Parameters
    ----------
    profile : with its kernels fitted.
    topology : of the GPUs.

    Raises
    ------
    InputError
        Where there are hardly any runs.
    """
    runs = [
        run for folder in folders for run in folder.runs.values() if run.outcome == "measured" and run.issued_s
    ]  # fmt: skip
    if len(runs) < FEWEST:
        raise InputError("too few runs to fit isolated calls to", got=len(runs), expected=f"{FEWEST} with issued_s")
    plain = profile.model_copy(
        update={"call_error": 0.0, "host": profile.host.model_copy(update={"isolated": 1.0, "isolated_error": 0.0})}
    )
    waiting = [run for run in runs if GpuPredictor(plain, topology).predict(run).host_limited]
    ratios = np.array([(run.issued_s or 0.0) / expected_s(plain, topology, run) for run in waiting or runs])
    isolated = float(np.median(ratios))
    error = conformal(_by_configuration(waiting or runs, np.abs(np.log(ratios / isolated)).tolist()))
    host = plain.host.model_copy(update={"isolated": isolated, "isolated_error": math.expm1(error)})
    predictor = GpuPredictor(plain.model_copy(update={"host": host}), topology)
    judged, lacking = list[MeasuredRun](), list[float]()
    for run in runs:
        found = predictor.predict(run)
        off, terms = abs(math.log(found.time_s / run.time_s)), found.high_s / found.time_s - 1
        if not found.host_limited:
            judged.append(run)
            lacking.append(math.sqrt(max(0.0, math.expm1(off) ** 2 - terms**2)))
    return CallTerms(isolated, math.expm1(error), conformal(_by_configuration(judged, lacking)), len(runs))


def _by_configuration(runs: Sequence[MeasuredRun], sizes: Sequence[float]) -> FloatArray:
    """The largest number of any schedule of each configuration."""
    largest: dict[object, float] = {}
    for run, size in zip(runs, sizes, strict=True):
        key = replace(run.configuration, pass_="both")
        largest[key] = max(size, largest.get(key, 0.0))
    return np.array(list(largest.values()))


def expected_s(profile: HardwareProfile, topology: str, run: MeasuredRun) -> float:
    """Time of the host for all operations of a call on its own, by the terms of microbenchmarks."""
    plain = profile.model_copy(update={"host": profile.host.model_copy(update={"isolated": 1.0})})
    c = run.configuration
    resolved = GpuPredictor(plain, topology).request(c, run.schedule).resolve()
    program = (
        c.program(run.schedule)
        if isinstance(c, StepConfiguration)
        else build_program(parse_schedule(run.schedule), c.setup, c.pass_)
    )
    hosts = HostTimes(c.ranks, CostModel(resolved.topology, plain.isolated(), c.kernel))
    program.replay(hosts)
    return float(hosts.issuing_ns.max()) / 1e9


def conformal(sizes: FloatArray) -> float:
    """The (n + 1) `LEVEL`-th smallest of n numbers.

    >>> conformal(np.arange(1.0, 20.0))
    18.0
    """
    ordered = np.sort(sizes)
    return float(ordered[min(len(ordered), math.ceil((len(ordered) + 1) * LEVEL)) - 1])
