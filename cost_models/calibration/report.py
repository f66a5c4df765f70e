"""The report of a calibration, in Markdown: what was measured and fitted, and how wrong it is on what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cost_models.calibration.attention import AttentionSample
    from cost_models.calibration.fit import Calibration, FittedPass
    from cost_models.calibration.holdout import Errors
    from cost_models.calibration.host import HostTerms
    from cost_models.calibration.robust import Estimate

TARGET_MEDIAN, TARGET_P95 = 0.025, 0.08
"""What kernels must reach on whole lengths left out."""

UNITS = {
    "overhead_s": ("us", 1e6),
    "prologue_s": ("us", 1e6),
    "tile_s": ("us", 1e6),
    "varlen_s": ("us", 1e6),
    "checked_mask_s": ("us", 1e6),
    "isolation_s": ("us", 1e6),
    "boost_s": ("ms", 1e3),
}


def render_report(calibration: Calibration, reference: str) -> str:
    """Markdown text of the whole report."""
    parts = [
        f"# Calibration of {calibration.hardware}\n",
        f"Made by `attnsim calibrate --hardware {calibration.hardware}` from {reference}.\n",
        *_machines(calibration),
        *_errors(calibration.passes),
        *_fresh(calibration),
        *_parameters(calibration.passes),
        *_worst(calibration.passes),
        *_others(calibration),
        *_power(calibration),
        *_calls(calibration),
    ]
    return "\n".join(parts)


def _machines(calibration: Calibration) -> Iterator[str]:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(calibration.outcomes.items()))
    yield f"## What was measured\n\nCases by outcome: {counts}.\n"
    for machine in calibration.machines:
        names = (
            "gpu",
            "driver",
            "cuda",
            "cudnn",
            "nccl",
            "torch",
            "triton",
            "power_limit_w",
            "max_sm_clock_mhz",
            "cpu",
        )
        yield "- " + ", ".join(f"{name} {machine[name]}" for name in names if name in machine)
    if calibration.spread:
        median, p95 = (_percent(each) for each in calibration.spread)
        yield (
            f"\nSamples of attention calls over 2 ms spread by {median} (median; 95th percentile {p95}; half the"
            "\ndistance between quartiles). Where that is percents the GPU was not at rest before every sample, and its"
            "\nclock, which the power limit lowers, depended on what had run before: part of the errors below."
        )
    yield (
        "\nEach time is that of one isolated call on a GPU that had worked for less than 20 ms before it. It was kept"
        "\nonly after sampled rows and columns of the result had been checked against float64 at the same shape.\n"
    )


def _errors(passes: Sequence[FittedPass]) -> Iterator[str]:
    if not passes:
        return
    yield "## Errors of attention kernels\n\nPredicted against measured, relative; median / 95th percentile of sizes."
    yield "Left out: every fifth length (or shape: batch, heads, KV heads) at once, predicted by a fit to the others.\n"
    yield "| kernel | pass | head dim | calls | in the fit | lengths left out | shapes left out |"
    yield "|---|---|---|---|---|---|---|"
    for each in passes:
        kernel, direction, dim = each.key
        row = [
            kernel,
            direction,
            str(dim),
            str(each.inside.count),
            *map(_pair, (each.inside, each.lengths, each.shapes)),
        ]
        yield "| " + " | ".join(row) + " |"
    judged = [each for each in passes if each.lengths]
    yield ""
    for direction in ("forward", "backward"):
        mine = [each for each in judged if each.key[1] == direction]
        if mine:
            yield f"All {direction} passes, lengths left out: {_verdict(mine)}"
    yield ""


def _verdict(passes: Sequence[FittedPass]) -> str:
    sizes = np.abs(np.concatenate([each.length_errors for each in passes if each.length_errors is not None]))
    median, p95 = float(np.median(sizes)), float(np.quantile(sizes, 0.95))
    reached = {True: "reached", False: "missed"}
    return (
        f"{len(sizes)} calls, median {_percent(median)} (target {_percent(TARGET_MEDIAN)}: "
        f"{reached[median <= TARGET_MEDIAN]}), 95th percentile {_percent(p95)} (target {_percent(TARGET_P95)}: "
        f"{reached[p95 <= TARGET_P95]})."
    )


def _parameters(passes: Sequence[FittedPass]) -> Iterator[str]:
    if not passes:
        return
    yield "## Fitted parameters\n\nWith 90 % intervals; without one where the measurements do not determine it.\n"
    names = list(dict.fromkeys(name for each in passes for name in each.fit.estimates))
    yield "| kernel | pass | head dim | share of peak | " + " | ".join(_heading(name) for name in names) + " |"
    yield "|---" * (4 + len(names)) + "|"
    for each in passes:
        kernel, direction, dim = each.key
        values = [_value(name, each.fit.estimates.get(name)) for name in names]
        share = f"{each.fit.curve.efficiency[0][1]:.3f}"
        yield "| " + " | ".join([kernel, direction, str(dim), share, *values]) + " |"
    yield ""


def _worst(passes: Sequence[FittedPass]) -> Iterator[str]:
    if not passes:
        return
    yield "## Worst predictions\n\nThree of each pass, on lengths left out where there are enough of them.\n"
    yield "| kernel | pass | head dim | call | measured | error |"
    yield "|---|---|---|---|---|---|"
    for each in passes:
        kernel, direction, dim = each.key
        for sample, error in each.worst[:3]:
            measured = f"{1e3 * sample.seconds:.4g} ms"
            yield f"| {kernel} | {direction} | {dim} | {_call(sample)} | {measured} | {100 * error:+.1f} % |"
    yield ""


def _power(calibration: Calibration) -> Iterator[str]:
    power = calibration.power
    if power is None:
        return
    yield f"\n## Power limit\n\nFrom {power.trains} trains without rests; {_percent(power.error)} is left (median).\n"
    if power.products:
        boost_s, loss = power.products["boost_s"], power.products["sustained_loss"]
        yield f"Products keep the highest clock for {1e3 * boost_s:.0f} ms, then lose {_percent(loss)} of the rate."
    control = power.control
    yield (
        f"The clock's control overshoots {control.overshoot:.2f} times for {1e3 * control.overshoot_s:.0f} ms. After"
        f" {control.deep_from_s:.2f} s of work a slower one takes\n{_percent(control.deep_loss)} from all kernels for"
        f" {control.deep_for_s:.2f} s, and {_percent(control.later_loss)} on average from then on.\n"
    )


def _fresh(calibration: Calibration) -> Iterator[str]:
    if not calibration.fresh:
        return
    yield "## Lengths, head counts and products that no fit has seen\n"
    yield "Measured to judge by (`validators.bench.fresh`).\n"
    yield "| what | number | median error | median size, 95th percentile |\n|---|---|---|---|"
    for name, errors in calibration.fresh.items():
        yield f"| {name} | {errors.count} | {100 * errors.bias:+.1f} % | {_pair(errors)} |"
    yield ""


def _calls(calibration: Calibration) -> Iterator[str]:
    if calibration.calls:
        isolated, error, call = (calibration.calls[name] for name in ("isolated", "isolated_error", "call_error"))
        yield (
            f"\n## Isolated calls\n\nFrom {calibration.calls_reference}: the host takes {isolated:.2f} times as long"
            f" as warm (within {_percent(error)} in 9 of 10), and whole calls differ from\ntheir predictions by"
            f" {_percent(call)} (90 %) beyond the errors of the terms.\n"
        )


def _others(calibration: Calibration) -> Iterator[str]:
    if calibration.read_shares:
        shares = ", ".join(f"{kernel} {share:.3f}" for kernel, share in calibration.read_shares.items())
        yield f"Share of memory bandwidth at which one query's attention reads keys and values: {shares}.\n"
    if calibration.elementwise:
        yield "## Memory-bound kernels\n\nShare of memory bandwidth by access pattern, and the overhead of a kernel.\n"
        yield from _estimates(calibration.elementwise, calibration.elementwise_errors)
    if calibration.gemm:
        yield "## Matrix products\n"
        yield from _estimates(calibration.gemm, calibration.gemm_errors)
    yield from _host(calibration.host)


def _host(host: HostTerms) -> Iterator[str]:
    if not host.terms:
        return
    yield "## Host\n\nMicroseconds to issue one call from Python, one after the other.\n\n| call | us |\n|---|---|"
    yield f"| others | {1e6 * host.terms['kernel_s']:.1f} |"
    for name, seconds in sorted(host.attention.items()):
        yield f"| {name} | {1e6 * seconds:.1f} |"
    yield ""
    if host.kinds:
        yield "In a call on its own, by operation (of attention one launch), and what the first takes more.\n"
        yield "| operation | us | first |\n|---|---|---|"
        for name, seconds in sorted(host.kinds.items()):
            more = host.first.get(name, host.first.get(f"attention_{name.rpartition('_')[2]}"))
            yield f"| {name} | {1e6 * seconds:.1f} | {'' if more is None else f'{1e6 * more:.1f}'} |"
        yield ""


def _estimates(estimates: dict[str, Estimate], errors: dict[str, Errors]) -> Iterator[str]:
    yield "| term | value | error in the fit, median / 95 % |"
    yield "|---|---|---|"
    for name, estimate in estimates.items():
        yield f"| {name} | {_value(name, estimate)} | {_pair(errors.get(name))} |"
    yield ""


def _heading(name: str) -> str:
    return f"{name.removesuffix('_s')} ({UNITS[name][0]})" if name in UNITS else name


def _value(name: str, estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    unit, factor = UNITS.get(name, ("", 1.0))
    width = f" ± {factor * estimate.half_width:.2g}" if np.isfinite(estimate.half_width) else ""
    return f"{factor * estimate.value:.3g}{width}" + (
        f" {unit}" if unit and name in ("overhead_s", "isolation_s", "prologue_s") else ""
    )


def _call(sample: AttentionSample) -> str:
    segment, shape, call = sample.call.segments[0], sample.shape, sample.call
    window = f"window {call.left}, {call.right}"
    if call.left is None:
        window = "full" if call.right is None else "causal"
    return f"{segment.q_stop} x {segment.k_stop}, B {shape.batch}, H {shape.heads}/{shape.kv_heads}, {window}"


def _pair(errors: Errors | None) -> str:
    return "-" if errors is None else f"{_percent(errors.median)} / {_percent(errors.p95)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
