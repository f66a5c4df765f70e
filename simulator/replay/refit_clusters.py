"""Fits of clusters: one efficiency per kernel and direction, one share of the network, what the host needs for a call.

Each minimises ln(predicted / published) over the rows that the source names (``in_fit``), as many as there are
constants or a few more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import least_squares

from cost_models.hardware import HardwareProfile
from cost_models.hardware.load import load_published
from simulator.replay.refit_kernels import PINNED_BASE, Structure, curve_lines, fit_efficiencies
from simulator.replay.source import DATA
from simulator.replay.sources.burst_bench import BurstBench
from simulator.replay.sources.burst_bench import build_machine as build_burst_machine
from simulator.replay.sources.burst_first_token import BurstFirstToken
from simulator.replay.sources.burst_first_token import build_cluster as build_first_token_cluster
from simulator.replay.sources.burst_profile import BurstProfile
from simulator.replay.sources.magi_distributed import FITTED, MagiDistributed, build_machines
from simulator.replay.sources.magi_kernels import MagiKernels
from simulator.replay.sources.usp import Usp, build_machine, degrees
from traces.atomic import write_text_atomic


def refit_burst_bench() -> None:
    """Forward and backward efficiency from the profiled run, the network's from the flat ring's forward."""
    source, base = BurstBench(), load_published("a800")
    rows = [row for row in source.rows if source.in_fit(row) and "Burst" in row["method"]]
    published = np.array([source.published(row)[0] for row in rows])

    def residuals(x: Any) -> Any:
        vars(source)["machine"] = build_burst_machine(with_shares(base, "flash2", *x))
        return np.log([source.predict(row) for row in rows] / published)

    found = least_squares(residuals, (0.65, 0.6, 0.85), bounds=(0.05, 0.999), diff_step=[1e-3] * 3)
    _write_shares(
        source.name,
        "a800",
        "flash2",
        found.x,
        "Burst's profiled 512K run and the flat ring's forward; balance of ring-first USP",
    )


def refit_burst_first_token() -> None:
    """The forward efficiency of flash-attention's Triton kernel, from the row in which attention weighs most."""
    source, base = BurstFirstToken(), load_published("a100-80")
    (row,) = [row for row in source.rows if source.in_fit(row)]
    curve, net = base.kernels["flash2"], base.links["net"].efficiency
    backward = dict(curve.backward.efficiency)[128]

    def residual(x: Any) -> Any:
        vars(source)["cluster"] = build_first_token_cluster(with_shares(base, "flash2", x[0], backward, net))
        return np.log(source.predict(row) / source.published(row)[0])

    (found,) = least_squares(residual, 0.5, bounds=(0.05, 0.999), diff_step=[1e-3]).x
    rows = "tensor parallelism (V1) at 256K tokens"
    _write_shares(source.name, "a100-80", "flash2", (found, backward, net), rows)


def refit_burst_profile() -> None:
    """Forward and backward efficiency from Burst's steps beyond the first."""
    source, base = BurstProfile(), load_published("a800")
    rows = [row for row in source.rows if source.in_fit(row)]
    published = np.array([source.published(row)[0] for row in rows])

    def residuals(x: Any) -> Any:
        vars(source)["hardware"] = with_shares(base, "flash2", x[0], x[1], base.links["net"].efficiency)
        return np.log([source.predict(row) for row in rows] / published)

    found = least_squares(residuals, (0.65, 0.6), bounds=(0.05, 0.999), diff_step=[1e-3] * 2)
    shares = (*found.x, base.links["net"].efficiency)
    _write_shares(source.name, "a800", "flash2", shares, "Burst's main kernels beyond the first step")


def refit_usp() -> None:
    """Efficiencies by head dim, what the host needs for a call, and the rate of the slow links."""
    source, base = Usp(), load_published("a100-80")
    fitted = [row for row in source.rows if source.in_fit(row)]
    kernels = [row for row in fitted if row["seq_len"] != "8192" and "long_ctx" not in row["table_or_figure"]]
    ring = next(row for row in fitted if "long_ctx" in row["table_or_figure"])

    def profile(x: Any) -> HardwareProfile:
        curve = base.kernels["flash2"]
        shares = {"forward": ((32, float(x[0])), (128, float(x[1]))), "backward": ((128, float(x[2])),)}
        order = {"in_order": True, "alone_share": ALONE_SHARE}
        passes = {
            d: curve.direction(d).model_copy(update={"efficiency": share, **order}) for d, share in shares.items()
        }
        return base.model_copy(update={"kernels": {"flash2": curve.model_copy(update=passes)}})

    def residuals(x: Any) -> Any:
        vars(source)["machine"] = build_machine(profile(x))
        return np.log([source.predict(row) / source.published(row)[0] for row in kernels])

    found = least_squares(residuals, (0.47, 0.65, 0.6), bounds=(0.05, 0.999), diff_step=[1e-3] * 3)

    def ring_error(x: Any) -> Any:
        vars(source)["slow_machine"] = build_machine(profile(found.x), x[0] * 1e9)
        return np.log(source.predict(ring) / source.published(ring)[0])

    rate = least_squares(ring_error, 13.0, bounds=(1, 100), diff_step=[1e-3]).x[0] * 1e9
    lines = [f'fitted_on = "{USP_FITTED_ON}"', "", "[constants]", f"long_ctx_bytes_per_s = {rate:.4g}"]
    for packed in ("no_packed", "qkvpack"):
        seconds = {
            degrees(row["method"], 8)[1]: 1 / source.published(row)[0]
            for row in fitted if row["seq_len"] == "8192" and packed in row["method"]
        }  # fmt: skip
        step = (seconds[8] - seconds[2]) / 6
        lines += ["", f"[constants.call_s.{packed}]", f"base = {seconds[2] - 2 * step:.4g}", f"step = {step:.4g}"]
    write_text_atomic(DATA / "usp.fit.toml", "\n".join(lines) + "\n")
    forward_32, forward, backward = found.x
    text = (
        '# Fitted; made by python -m simulator.replay.refit usp\nbase = "a100-80"\ncalibrated = false\n\n'
        "[kernels.flash2.forward]\n"
        f"efficiency = {{ 32 = {forward_32:.4g}, 64 = {(forward_32 * 2 + forward) / 3:.4g}, 128 = {forward:.4g} }}\n"
        f"in_order = true\nalone_share = {ALONE_SHARE}\n\n"
        f"[kernels.flash2.backward]\nefficiency = {{ 128 = {backward:.4g} }}\nin_order = true\n\n"
        f'[[source]]\nterms = ["kernels.flash2"]\nbasis = "published"\nreference = "{USP_FITTED_ON}"\n'
    )
    write_text_atomic(DATA / "usp.hardware.toml", text)


ALONE_SHARE = 0.72
"""Part of the time for which one block of flash-attention 2's forward keeps a multiprocessor busy: the H100's fit."""

USP_FITTED_ON = (
    "usp: Ulysses alone at 128K tokens (head dims 32, 128) and in gqa.png; zigzag at 8K tokens with rings of 2 and 8 "
    "for the host; the zigzag ring's forward of long_ctx_h8.png for its links"
)


HOPPER: Structure = {"fa3": ("flash3", {}), "ffa": ("flash3", {})}
"""Both have flash-attention 3's curve of the published H100 (of the kernel charts, another measurement)."""


def refit_magi_distributed() -> None:
    """FA3's and FFA's forward in long calls; backward as in the kernel charts, an efficiency each."""
    source, base = MagiDistributed(), load_published("h100-sxm")
    rows = {row["method"]: row for row in source.rows if source.in_fit(row)}
    backward = {kernel: fit_efficiencies(MagiKernels(), base, kernel, HOPPER)["backward"] for kernel in HOPPER}
    net = base.links["net"].efficiency

    def profile(forward: Any) -> HardwareProfile:
        shares = zip(HOPPER, forward, strict=True)
        curves = {k: with_shares(base, "flash3", share, backward[k], net).kernels["flash3"] for k, share in shares}
        return base.model_copy(update={"kernels": curves})

    def residuals(x: Any) -> Any:
        vars(source).update(machines=build_machines(profile(x)), hardware=profile(x))
        fitted = [rows[FITTED[kernel]] for kernel in HOPPER]
        return np.log([source.predict(row) / source.published(row)[0] for row in fitted])

    found = least_squares(residuals, (0.6, 0.6), bounds=(0.05, 0.999), diff_step=[1e-3] * 2).x
    named = "magi-distributed: Ulysses and MagiAttention's AlltoAll-v, full mask, forward on 8 GPUs"
    lines = ["# Fitted curves; made by python -m simulator.replay.refit magi-distributed", *PINNED_BASE,
             'default_kernel = "fa3"']  # fmt: skip
    for kernel, share in zip(HOPPER, found, strict=True):
        lines += curve_lines(base, kernel, {"forward": float(share), "backward": backward[kernel]}, HOPPER)
    forward = '", "'.join(f"kernels.{kernel}.forward.efficiency" for kernel in HOPPER)
    for terms, reference in (("kernels", KERNEL_ROWS), (forward, named)):
        lines += ["", "[[source]]", f'terms = ["{terms}"]', 'basis = "published"', f'reference = "{reference}"']
    write_text_atomic(DATA / "magi-distributed.hardware.toml", "\n".join(lines) + "\n")
    write_text_atomic(DATA / "magi-distributed.fit.toml", f'fitted_on = "{named}; kernels: {KERNEL_ROWS}"\n')


KERNEL_ROWS = "efficiencies from magi-kernels' fitted rows, all else flash3 of the published h100-sxm"


def with_shares(base: HardwareProfile, kernel: str, forward: float, backward: float, net: float) -> HardwareProfile:
    """A profile with other efficiencies of one kernel at head dim 128, and of the network."""
    curve, link = base.kernels[kernel], base.links["net"]
    passes = {
        direction: curve.direction(direction).model_copy(update={"efficiency": ((128, float(share)),)})
        for direction, share in (("forward", forward), ("backward", backward))
    }
    return base.model_copy(
        update={
            "kernels": {**base.kernels, kernel: curve.model_copy(update=passes)},
            "links": {**base.links, "net": link.model_copy(update={"efficiency": float(net)})},
        }
    )


def _write_shares(name: str, base: str, kernel: str, shares: Any, rows: str) -> None:
    forward, backward, net = shares
    terms = f'["kernels.{kernel}", "links.net"]'
    text = (
        f'# Fitted; made by python -m simulator.replay.refit {name}\nbase = "{base}"\ncalibrated = false\n\n'
        f"[kernels.{kernel}.forward]\nefficiency = {{ 128 = {forward:.4g} }}\n\n"
        f"[kernels.{kernel}.backward]\nefficiency = {{ 128 = {backward:.4g} }}\n\n"
        f"[links.net]\nefficiency = {net:.4g}\n\n"
        f'[[source]]\nterms = {terms}\nbasis = "published"\nreference = "{name}: {rows}"\n'
    )
    write_text_atomic(DATA / f"{name}.hardware.toml", text)
    write_text_atomic(DATA / f"{name}.fit.toml", f'fitted_on = "{name}: {rows}"\n')
