"""What came out of a run: times of the critical rank, memory, traffic, how far to trust it, and what figures show."""

from __future__ import annotations

from typing import Any

import numpy as np

from cost_models.kernels import backward_fault
from cost_models.kernels.limits import REMEDY
from simulator.engines.details import Details
from simulator.engines.hosts import HostTimes
from simulator.engines.loads import LinkLoads
from simulator.engines.memory import Memory
from simulator.result import SimulatedRun, SimulationResult
from simulator.roofline import Kernels, Roofline
from simulator.run import Run
from simulator.trust import FP8_PRODUCTS, Trust
from traces.display import format_ns
from traces.metrics import breakdown, busy_intervals, busy_ns, critical_rank, exposed_communication_ns, phase_split_ns
from traces.timeline import Timeline

HOST_BOUND = 0.9
"""Share of the time for which a host issues operations that sets the time of decoding."""


def result_of(run: Run) -> SimulationResult:
    """The result of a run, after `Run.execute`."""
    timeline = run.rows.timeline({"schedule": str(run.schedule), "engine": run.ran.engine})
    trust = Trust(run.profile, run.kernel, run.traffic.head_dim, run.resolved.topology, run.resolved.request.fp8)
    parts = breakdown(timeline, critical_rank(timeline))
    beyond = trust.extrapolations(run.traffic.rows)
    return SimulationResult(
        schedule=str(run.schedule),
        inputs={**run.resolved.inputs, "schedule": str(run.schedule), "pass": run.pass_, "kernel": run.kernel},
        engine=run.ran.engine,
        provenance=trust.provenance(),
        warnings=(
            *run.resolved.warnings,
            *beyond,
            *run.ran.warnings,
            *_paced(run, timeline),
            *_faults(run),
            *_unmeasured(run),
        ),
        **_times(timeline, run.pass_),
        **_amounts(run),
        exact=run.schedule.exact,
        uncertainty=trust.uncertainty(parts, extrapolated=bool(beyond)),
        timeline=timeline if run.keeps_all and not run.followed else None,
        breakdown=parts,
        saturated_links=run.ran.saturated,
        step_times=run.ran.step_times,
        topology=run.resolved.topology,
        **(_details(run, timeline) if run.resolved.request.timeline else {}),
    )


def _times(timeline: Timeline, pass_: str) -> dict[str, Any]:
    """Times of the critical rank."""
    rank = critical_rank(timeline)
    forward, backward = phase_split_ns(timeline)
    other = timeline.makespan_ns - forward - backward if pass_ == "step" else 0
    return {
        "time_s": timeline.makespan_ns / 1e9,
        "forward_s": (timeline.makespan_ns - backward - other) / 1e9 if pass_ != "backward" else 0.0,
        "backward_s": backward / 1e9,
        "other_s": other / 1e9,
        "compute_s": busy_ns(timeline, rank, "compute") / 1e9,
        "communication_s": busy_ns(timeline, rank, "communication") / 1e9,
        "exposed_communication_s": exposed_communication_ns(timeline, rank) / 1e9,
    }


def _amounts(run: Run) -> dict[str, Any]:
    """What does not depend on time."""
    return {
        "peak_memory_bytes": int(run.memory.peak_bytes.max()),
        "reserved_memory_bytes": run.reserved_bytes,
        "host_memory_bytes": int(run.memory.host_peak_bytes.max()),
        "fits": not run.lacking_bytes,
        "bytes_sent_per_rank": tuple(run.traffic.sent_bytes.tolist()),
        "pairs_total": run.traffic.pairs,
        "flop_total": run.traffic.flop,
        "rank_imbalance": run.balance.ranks,
        "step_imbalance": run.balance.steps,
    }


def _details(run: Run, timeline: Timeline) -> dict[str, Any]:
    """What figures and traces show; beyond memory only where the timeline of all ranks is kept."""
    memory = _memory_curve(run)
    curve = {"memory_curve": tuple(memory.curve), "memory_holders": memory.holders_at_peak()}
    if not run.keeps_all:
        return curve
    return {
        **curve,
        "roofline": _roofline(run, critical_rank(timeline)),
        "run": _traced(run),
        "link_shares": _link_shares(run, timeline),
    }


def _faults(run: Run) -> tuple[str, ...]:
    """Says so where the kernel would go wrong on tensors as large as these."""
    fault = backward_fault(run.kernel, run.traffic.backward_elements)
    return () if fault is None else (f"{fault}: {REMEDY}",)


def _unmeasured(run: Run) -> tuple[str, ...]:
    """Says so where products are priced by nothing but a datasheet."""
    return (f"products in FP8 on {run.profile.name}: {FP8_PRODUCTS.reference}",) if run.resolved.request.fp8 else ()


def _paced(run: Run, timeline: Timeline) -> tuple[str, ...]:
    """Decoding's kernels are short: says so where the host cannot launch them as fast as they run."""
    if run.pass_ != "decode" or run.resolved.request.cuda_graphs:
        return ()
    hosts, makespan = HostTimes(run.setup.n_ranks, run.costs), timeline.makespan_ns
    run.replay(hosts)
    rank = critical_rank(timeline)
    busy = busy_intervals(timeline, rank, "compute", "communication", "copy").total_ns
    if hosts.issuing_ns[rank] < HOST_BOUND * makespan or busy > HOST_BOUND * makespan:
        return ()
    return (f"launches by the host set the time of decoding: kernels and communication take {format_ns(busy)} of "
            f"{format_ns(makespan)}; --cuda-graphs launches a token's at once",)  # fmt: skip


def _memory_curve(run: Run) -> Memory:
    rank = int(np.argmax(run.memory.peak_bytes))
    curve = Memory(run.setup.n_ranks, run.costs.workspace_bytes, follow=rank)
    run.replay(curve)
    return curve


def _roofline(run: Run, rank: int) -> Roofline:
    kernels = Kernels(run.costs, rank)
    run.replay(kernels)
    dtype = "fp8" if run.resolved.request.fp8 else run.setup.workload.dtype
    return kernels.roofline(run.profile, dtype)


def _traced(run: Run) -> SimulatedRun:
    details = Details(run.setup.n_ranks, run.costs)
    run.replay(details)
    return SimulatedRun(run.program, run.costs, details.result())


def _link_shares(run: Run, timeline: Timeline) -> tuple[float, ...]:
    capacities = run.resolved.topology.link_capacities_bytes_per_s
    loads = LinkLoads(run.costs, len(capacities))
    run.replay(loads)
    return loads.shares(capacities, timeline.makespan_ns / 1e9)
