"""What isolated calls have beyond the terms that microbenchmarks fit, from runs that are not those judged.

    isolated    median over runs that wait for the host of
                (time to issue the call) / (sum of what its operations take to issue)
    its error   what (n + 1) 9/10 of n configurations stay within of that, relative
    call_error  least e for which (n + 1) 9/10 of n configurations that the device limits lie, with all their schedules,
                in  time / (1 + s) ... time (1 + s),  s^2 = s_terms^2 + e^2

That is the quantile of split conformal prediction: on configurations drawn alike it holds 90 %, whatever the errors
are made of (Vovk et al. 2005; Lei et al. 2018, section 2.2). Schedules of one configuration err alike, so that
configurations count, not runs. Runs that judge are to be drawn from another seed.

On several GPUs what a hop and a collective take to issue is fitted with the factor, to all runs of ours, where it was
not measured by kind:

    time to issue = isolated x (that of operations on one GPU) + hops x exchange + collectives x collective

and there is an error for each kind of link.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cost_models.calibration.robust import Parameter, fit_times
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
MOST_ERROR = 0.99
HOPS = ("exchange_s", "collective_s")


@dataclass(frozen=True)
class CallTerms:
    """Terms of isolated calls, from so many runs (`HostCosts`, `HardwareProfile.call_error`).

    Attributes
    ----------
    communication : ``exchange_s`` and ``collective_s`` of `HostCosts`, where there were several GPUs.
    link_errors : error of calls by kind of link (`LinkCurve.call_error`).
    """

    isolated: float
    isolated_error: float
    call_error: float
    runs: int
    communication: Mapping[str, float] = field(default_factory=dict)
    link_errors: Mapping[str, float] = field(default_factory=dict)


def fit_calls(folders: Sequence[RunFolder], profile: HardwareProfile, topology: str | None) -> CallTerms:
    """Terms of folders' runs.

    Parameters
    ----------
    profile : with its kernels, and links, fitted.
    topology : of the GPUs; None for GPUs of one host, whose links each run names.

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
    host = profile.host.model_copy(update={"isolated": 1.0, "isolated_error": 0.0})
    links = {kind: curve.model_copy(update={"call_error": None}) for kind, curve in profile.links.items()}
    plain = profile.model_copy(update={"call_error": 0.0, "host": host, "links": links})
    several = any(run.configuration.ranks > 1 for run in runs)
    waiting = runs if several else [run for run in runs if GpuPredictor(plain, topology).predict(run).host_limited]
    known = _fit_host(waiting or runs, plain, topology)
    hosted = plain.model_copy(update={"host": host.model_copy(update=known)})
    expected = np.array([expected_s(hosted, topology, run) for run in waiting or runs])
    ratios = np.array([run.issued_s for run in waiting or runs], dtype=float) / expected
    error = conformal(_by_configuration(waiting or runs, np.abs(np.log(ratios)).tolist()))
    known["isolated_error"] = min(math.expm1(error), MOST_ERROR)
    judged, lacking = _lacking(runs, GpuPredictor(_with_host(plain, known), topology))
    by_link = _by_link(judged, lacking, GpuPredictor(plain, topology)) if several else {}
    return CallTerms(
        known.pop("isolated"), known.pop("isolated_error"), conformal(_by_configuration(judged, lacking)), len(runs),
        known, by_link,
    )  # fmt: skip


def _with_host(profile: HardwareProfile, terms: Mapping[str, float]) -> HardwareProfile:
    return profile.model_copy(update={"host": profile.host.model_copy(update=dict(terms))})


def _fit_host(runs: Sequence[MeasuredRun], plain: HardwareProfile, topology: str | None) -> dict[str, float]:
    """The factor of operations, and on several GPUs what hops and collectives take."""
    issued = np.array([run.issued_s for run in runs], dtype=float)
    silent = _with_host(plain, {"exchange_s": 0.0, "collective_s": 0.0})
    work = np.array([expected_s(silent, topology, run) for run in runs])
    if all(run.configuration.ranks == 1 for run in runs) or "exchange" in plain.host.kinds:
        return {"isolated": float(np.median(issued / work))}
    hops, collectives = (
        np.array([expected_s(_with_host(silent, {name: 1e-3}), topology, run) for run in runs]) - work for name in HOPS
    )
    parameters = [
        Parameter("isolated", 1.2, 1.0, 100.0), Parameter("exchange_s", plain.host.exchange_s, 1e-6, 1e-3),
        Parameter("collective_s", plain.host.collective_s, 1e-6, 1e-3),
    ]  # fmt: skip
    found = fit_times(lambda x: x[0] * work + 1e3 * (x[1] * hops + x[2] * collectives), issued, parameters)
    return {name: each.value for name, each in found.items()}


def _lacking(runs: Sequence[MeasuredRun], predictor: GpuPredictor) -> tuple[list[MeasuredRun], list[float]]:
    """Runs that the device limits, and how much each lacks beyond the errors of the terms."""
    judged, lacking = list[MeasuredRun](), list[float]()
    for run in runs:
        found = predictor.predict(run)
        off, terms = abs(math.log(found.time_s / run.time_s)), found.high_s / found.time_s - 1
        if not found.host_limited:
            judged.append(run)
            lacking.append(math.sqrt(max(0.0, math.expm1(off) ** 2 - terms**2)))
    return judged, lacking


def _by_link(runs: Sequence[MeasuredRun], lacking: Sequence[float], predictor: GpuPredictor) -> dict[str, float]:
    """The error of each kind of link that enough configurations have."""
    kinds = [predictor.link_kind(run) for run in runs]
    found = {}
    for kind in sorted(set(kinds)):
        here = [number for number, each in enumerate(kinds) if each == kind]
        sizes = _by_configuration([runs[n] for n in here], [lacking[n] for n in here])
        if len(sizes) >= FEWEST:
            found[kind] = min(conformal(sizes), MOST_ERROR)
    return found


def _by_configuration(runs: Sequence[MeasuredRun], sizes: Sequence[float]) -> FloatArray:
    """The largest number of any schedule of each configuration."""
    largest: dict[object, float] = {}
    for run, size in zip(runs, sizes, strict=True):
        key = replace(run.configuration, pass_="both")
        largest[key] = max(size, largest.get(key, 0.0))
    return np.array(list(largest.values()))


def expected_s(profile: HardwareProfile, topology: str | None, run: MeasuredRun) -> float:
    """Time of the host for all operations of a call on its own."""
    c = run.configuration
    resolved = GpuPredictor(profile, topology).request(c, run.schedule, 0.0, run.machine).resolve()
    program = (
        c.program(run.schedule)
        if isinstance(c, StepConfiguration)
        else build_program(parse_schedule(run.schedule), c.setup, c.pass_)
    )
    hosts = HostTimes(c.ranks, CostModel(resolved.topology, profile.isolated(), c.kernel))
    program.replay(hosts)
    return float(hosts.issuing_ns.max()) / 1e9


def conformal(sizes: FloatArray) -> float:
    """The (n + 1) `LEVEL`-th smallest of n numbers.

    >>> conformal(np.arange(1.0, 20.0))
    18.0
    """
    ordered = np.sort(sizes)
    return float(ordered[min(len(ordered), math.ceil((len(ordered) + 1) * LEVEL)) - 1])
