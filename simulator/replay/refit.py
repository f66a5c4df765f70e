"""Make the committed fits anew: ``python -m simulator.replay.refit NAME``. ``attnsim replay`` never does this.

Kernel curves, per implementation and direction: efficiency, prologue, cost of masking and varlen cost minimise

    sum over fitted rows of rho(ln(predicted / published)),       rho = soft L1 at 5 %

Physical bounds: efficiency below 1, times up to 40 us, masking at most six tiles.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from cost_models.hardware import HardwareProfile, load_hardware
from simulator.replay.attention import Machine
from simulator.replay.refit_network import refit_nccl
from simulator.replay.rows import Row, Skip
from simulator.replay.source import DATA
from simulator.replay.sources.burst_bench import TOPOLOGY, BurstBench
from simulator.replay.sources.burst_profile import BurstProfile
from simulator.replay.sources.magi_kernels import KERNELS, MagiKernels, is_dense
from simulator.replay.sources.usp import Usp, build_machine, degrees
from traces.atomic import write_text_atomic

STRUCTURE = {
    "fa2": ("flash2", {}),
    "fa3": ("flash3", {}),
    "cudnn-te": ("cudnn", {}),
    "sdpa": ("cudnn", {}),
    "sdpa-mask": ("flash2", {"masks_window_tiles": False}),
    "flex": ("flex", {}),
    "ffa": ("flash3", {}),
    "flashmask": ("flash2", {}),
}
"""Kernel of h100-sxm whose tiles an implementation has, and what differs."""

WHOLE_GRID = ("flex", "flashmask")
SEARCHING = ("flashmask",)
"""Implementations that look at every tile's interval of masked rows, and skip it."""

NAMES = ("efficiency", "prologue_s", "masked_tile_cost", "varlen_s", "skipped_tile_cost")
UNITS = np.array([1, 1e-6, 1, 1e-6, 1])
START, LOWEST, HIGHEST = (0.4, 2.0, 1.3, 1.0, 0.01), (0.02, 0.0, 1.0, 0.0, 0.0), (0.99, 40.0, 6.0, 40.0, 0.3)


def refit_magi_kernels() -> None:
    """Fit and write the curves and call times of `magi_kernels`."""
    source = MagiKernels()
    base = load_hardware("h100-sxm")
    curves: dict[str, dict[str, dict[str, float]]] = {}
    call_s: dict[str, dict[str, float]] = {}
    for method, own in KERNELS.items():
        for kernel in (own, "sdpa-mask") if own == "sdpa" else (own,):
            for direction in ("forward", "backward"):
                rows = [
                    row for row in _fit_rows(source) if row["method"] == method and _is(source, row, kernel, direction)
                ]
                calls = [_published_s(source, row) for row in _one_k(source, method, direction)]
                call_s.setdefault(own, {})[direction] = min(calls)
                curves.setdefault(kernel, {})[direction] = _fit_pass(source, base, kernel, direction, rows)
    _write(source, base, curves, call_s)


def _fit_rows(source: MagiKernels) -> Iterator[Row]:
    for row in source.rows:
        try:
            source.published(row), source.read(row)
        except Skip:
            continue
        if source.in_fit(row) and row["seq_len"] != "1024":
            yield row


def _one_k(source: MagiKernels, method: str, direction: str) -> list[Row]:
    rows = [row for row in source.rows if row["seq_len"] == "1024" and row["method"] == method and source.in_fit(row)]
    return [row for row in rows if source.read(row)[1] == direction]


def _is(source: MagiKernels, row: Row, kernel: str, direction: str) -> bool:
    dense = kernel == "sdpa-mask"
    mask, own, _ = source.read(row)
    return own == direction and dense == is_dense(row["method"], mask)


def _published_s(source: MagiKernels, row: Row) -> float:
    return source.flop(row, *source.read(row)) / row.number("value") / 1e12


def _fit_pass(
    source: MagiKernels, base: HardwareProfile, kernel: str, direction: str, rows: list[Row]
) -> dict[str, float]:
    published = np.array([_published_s(source, row) for row in rows])

    def residuals(x: Any) -> Any:
        profile = _with_curve(base, kernel, direction, x)
        return np.log([source.kernel_s(profile, row, *source.read(row)) for row in rows] / published)

    count = len(NAMES) if kernel in SEARCHING else len(NAMES) - 1
    bounds = (LOWEST[:count], HIGHEST[:count])
    found = least_squares(residuals, START[:count], bounds=bounds, x_scale=(0.1, 1, 0.5, 1, 0.01)[:count],
                          loss="soft_l1", f_scale=0.05, diff_step=[1e-3] * count)  # fmt: skip
    return dict(zip(NAMES, found.x * UNITS[:count], strict=False))


def _with_curve(base: HardwareProfile, kernel: str, direction: str, x: Any) -> HardwareProfile:
    of, changes = STRUCTURE[kernel]
    curve = base.kernels[of]
    values = dict(zip(NAMES, (x * UNITS[: len(x)]).tolist(), strict=False))
    terms = {**values, "efficiency": ((128, values["efficiency"]),), **changes}
    changed = curve.direction(direction).model_copy(update=terms)
    fitted = curve.model_copy(update={direction: changed, "whole_grid": kernel in WHOLE_GRID, "general_masks": True})
    return base.model_copy(update={"kernels": {kernel: fitted}})


def _write(
    source: MagiKernels,
    base: HardwareProfile,
    curves: Mapping[str, Mapping[str, Mapping[str, float]]],
    call_s: Mapping[str, Mapping[str, float]],
) -> None:
    lines = ["# Fitted curves; made by python -m simulator.replay.refit magi-kernels", 'base = "h100-sxm"',
             'default_kernel = "fa3"']  # fmt: skip
    for kernel, passes in curves.items():
        of, changes = STRUCTURE[kernel]
        lines += ["", f"[kernels.{kernel}]", "max_head_dim = 128", 'dtypes = ["bf16"]', "general_masks = true",
                  f"whole_grid = {str(kernel in WHOLE_GRID).lower()}"]  # fmt: skip
        for direction, fitted in passes.items():
            like = base.kernels[of].direction(direction)
            window = changes.get("masks_window_tiles", like.masks_window_tiles)
            lines += ["", f"[kernels.{kernel}.{direction}]"]
            lines += [f"{name} = {getattr(like, name)}" for name in ("tile_rows", "tile_columns", "blocks_per_sm")]
            lines += [
                f"longest_first = {str(like.longest_first).lower()}",
                f"masks_window_tiles = {str(window).lower()}",
            ]
            lines += [f"efficiency = {{ 128 = {fitted['efficiency']:.4g} }}", f"overhead_s = {like.overhead_s:g}"]
            lines += [f"{name} = {fitted[name]:.4g}" for name in NAMES[1:] if name in fitted]
            lines += ["fitted_rows = [2048, 32768]", "fitted_head_dims = [128]"]
    lines += [
        "",
        "[[source]]",
        'terms = ["kernels"]',
        'basis = "published"',
        'reference = "MagiAttention docs, cp_benchmark @2c64135, rows of magi-kernels.fit.toml; tiles as h100-sxm"',
    ]
    write_text_atomic(DATA / f"{source.name}.hardware.toml", "\n".join(lines) + "\n")
    tables = [
        f"[constants.call_s.{kernel}]\n" + "".join(f"{d} = {s:.4g}\n" for d, s in by.items())
        for kernel, by in call_s.items()
    ]
    text = (
        "# Made by python -m simulator.replay.refit magi-kernels\n"
        + f'fitted_on = "{FITTED_ON}"\n\n'
        + "\n".join(tables)
    )
    write_text_atomic(DATA / f"{source.name}.fit.toml", text)


def refit_burst_bench() -> None:
    """Forward and backward efficiency from the profiled run, the network's from the flat ring's forward."""
    source, base = BurstBench(), load_hardware("a800")
    rows = [row for row in source.rows if source.in_fit(row) and "Burst" in row["method"]]
    published = np.array([source.published(row)[0] for row in rows])

    def residuals(x: Any) -> Any:
        vars(source)["machine"] = Machine(TOPOLOGY, with_shares(base, "flash2", *x), "a800", "flash2")
        return np.log([source.predict(row) for row in rows] / published)

    found = least_squares(residuals, (0.65, 0.6, 0.85), bounds=(0.05, 0.999), diff_step=[1e-3] * 3)
    _write_shares(
        source.name,
        "a800",
        "flash2",
        found.x,
        "Burst's profiled 512K run and the flat ring's forward; balance of ring-first USP",
    )


def refit_burst_profile() -> None:
    """Forward and backward efficiency from Burst's steps beyond the first."""
    source, base = BurstProfile(), load_hardware("a800")
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
    source, base = Usp(), load_hardware("a100-80")
    fitted = [row for row in source.rows if source.in_fit(row)]
    kernels = [row for row in fitted if row["seq_len"] != "8192" and "long_ctx" not in row["table_or_figure"]]
    ring = next(row for row in fitted if "long_ctx" in row["table_or_figure"])

    def profile(x: Any) -> HardwareProfile:
        curve = base.kernels["flash2"]
        shares = {"forward": ((32, float(x[0])), (128, float(x[1]))), "backward": ((128, float(x[2])),)}
        passes = {d: curve.direction(d).model_copy(update={"efficiency": share}) for d, share in shares.items()}
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
        '# Fitted; made by python -m simulator.replay.refit usp\nbase = "a100-80"\n\n[kernels.flash2.forward]\n'
        f"efficiency = {{ 32 = {forward_32:.4g}, 64 = {(forward_32 * 2 + forward) / 3:.4g}, 128 = {forward:.4g} }}\n\n"
        f"[kernels.flash2.backward]\nefficiency = {{ 128 = {backward:.4g} }}\n\n"
        f'[[source]]\nterms = ["kernels.flash2"]\nbasis = "published"\nreference = "{USP_FITTED_ON}"\n'
    )
    write_text_atomic(DATA / "usp.hardware.toml", text)


USP_FITTED_ON = (
    "usp: Ulysses alone at 128K tokens (head dims 32, 128) and in gqa.png; zigzag at 8K tokens with rings of 2 and 8 "
    "for the host; the zigzag ring's forward of long_ctx_h8.png for its links"
)


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
        f'# Fitted; made by python -m simulator.replay.refit {name}\nbase = "{base}"\n\n'
        f"[kernels.{kernel}.forward]\nefficiency = {{ 128 = {forward:.4g} }}\n\n"
        f"[kernels.{kernel}.backward]\nefficiency = {{ 128 = {backward:.4g} }}\n\n"
        f"[links.net]\nefficiency = {net:.4g}\n\n"
        f'[[source]]\nterms = {terms}\nbasis = "published"\nreference = "{name}: {rows}"\n'
    )
    write_text_atomic(DATA / f"{name}.hardware.toml", text)
    write_text_atomic(DATA / f"{name}.fit.toml", f'fitted_on = "{name}: {rows}"\n')


FITTED_ON = (
    "magi-kernels: full, causal and sliding-window masks at 2K and 32K tokens, full documents at 16K (SDPA: full "
    "documents at 2K and 8K); time of a call from full documents at 1K (SDPA, FlexAttention: causal at 1K)"
)

if __name__ == "__main__":
    {
        "magi-kernels": refit_magi_kernels,
        "burst-bench": refit_burst_bench,
        "burst-profile": refit_burst_profile,
        "nccl": refit_nccl,
        "usp": refit_usp,
    }[sys.argv[1]]()
